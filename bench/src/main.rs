//! The program `firstcome-bench`: parses, runs. See [`bench::verify`].

use std::process::ExitCode;

use bench::verify::Verify;
use clap::{Parser, Subcommand};

/// Judges a Firstcome service by what its clients saw.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Holds a history of requests and answers against the stored rows.
    ///
    /// Exits with 0 if all promises were kept, 1 with findings, 2 if the input cannot be read.
    Verify(Verify),
}

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Verify(verify) => verify.run().await,
    }
}
