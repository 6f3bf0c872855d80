//! The program `firstcome`: parses, wires, runs. See [`node::cli`].

use std::process::ExitCode;

use clap::Parser;
use node::cli::Cli;

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
