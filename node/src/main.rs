//! The program `firstcome`: parses, wires, runs. See [`node::cli`].

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use node::cli::Cli;

/// A request makes many small allocations, which are often freed on another thread.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    Cli::parse().run()
}
