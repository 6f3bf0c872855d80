//! The program `firstcome`: parses, wires, runs. See [`node::cli`].

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use node::cli::Cli;

/// Many small things are made and dropped for a request, often on another thread than the one that made them.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("firstcome: {error}");
            ExitCode::FAILURE
        }
    }
}
