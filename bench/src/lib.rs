//! What Firstcome is measured and judged by.
//!
//! [`load`] drives a service, says how fast it answered what, and records what it saw; [`compare`] starts
//! services itself and measures them side by side. How a record is judged:
//!
//! 1. Whatever drives a service ([`load`], a test with child processes) records every operation: [`history`].
//! 2. When it is quiet, the coupons and issuances are read back: [`rows`], over HTTP by [`fetch`].
//! 3. [`checker::check`] decides whether both can be of one service that keeps its promises; it is pure, and
//!    `firstcome-bench verify` is [`verify`] around it.
//!
//! Time and memory grow with n log n. A million operations, timed by hand:
//!
//! ```text
//! cargo run --release -p firstcome-bench --example check_million
//! ```
//!
//! Beside them are coupons that are [`owned`] here, to be filled without a node, and [`cluster`], which starts
//! several nodes to try and to break.

pub mod checker;
pub mod cluster;
pub mod compare;
pub mod fetch;
pub mod history;
pub mod load;
pub mod owned;
pub mod rows;
pub mod verify;

use std::path::{Path, PathBuf};

/// The program that was named, or the one beside this.
fn beside(named: Option<&Path>, name: &str) -> Result<PathBuf, load::Failed> {
    let program = match named {
        Some(program) => program.to_owned(),
        None => std::env::current_exe()?.with_file_name(name),
    };
    if program.is_file() {
        Ok(program)
    } else {
        Err(format!(
            "there is no {}: build it, or name it with a flag",
            program.display()
        )
        .into())
    }
}
