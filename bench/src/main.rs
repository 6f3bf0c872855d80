//! The program `firstcome-bench`: parses its arguments and runs a command. See [`bench::load`],
//! [`bench::compare`], [`bench::rivals`], [`bench::verify`] and [`bench::cluster`].

use std::process::ExitCode;

use bench::cluster::Cluster;
use bench::compare::Compare;
use bench::load::Load;
use bench::rivals::{Rivals, Serve};
use bench::verify::Verify;
use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;

/// The node's allocator, so that the rivals have the same.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Measures a Firstcome service, and judges it by what its clients saw.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sends requests for coupons to a running service, and reports how fast it answered.
    ///
    /// Exits with 0 if all SLOs were met, 1 if one was missed, the service went away or the checker found
    /// something, 2 if there was no run or no rows to check.
    Load(Box<Load>),
    /// Starts the bare route, nodes and databases itself, measures them side by side, and prints Markdown
    /// tables.
    ///
    /// Exits with 0, or 2 if something could not be measured.
    Compare(Box<Compare>),
    /// Starts MySQL, Redis, and the ways in which limited coupons are usually issued, measures each of them
    /// and a node with the same load, and prints Markdown tables.
    ///
    /// Exits with 0, or 2 if something could not be measured.
    Rivals(Rivals),
    /// Serves one of the rivals, until a signal ends it.
    Rival(Serve),
    /// Checks a history of requests and answers against the stored rows.
    ///
    /// Exits with 0 if all promises were kept, 1 with findings, 2 if the input cannot be read.
    Verify(Verify),
    /// Starts three nodes of one cluster on this machine, with a database server of their own, and stops them
    /// on Ctrl-C.
    ///
    /// Exits with 0 if all nodes stopped with success, 1 if a node ended by itself or failed to stop, 2 if no
    /// node was started.
    Cluster(Box<Cluster>),
}

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Load(load) => load.run().await,
        Command::Compare(compare) => compare.run().await,
        Command::Rivals(rivals) => rivals.run().await,
        Command::Rival(serve) => serve.run().await,
        Command::Verify(verify) => verify.run().await,
        Command::Cluster(cluster) => cluster.run().await,
    }
}
