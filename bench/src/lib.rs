//! Measures a Firstcome service, and judges it by what its clients saw.
//!
//! [`load`] drives a service, reports how fast it answered, and records what it saw. [`compare`] starts
//! services itself and measures them side by side. [`verify`] is [`testkit::checker`] as a command.
//! [`rivals`] measures Firstcome beside the ways in which limited coupons are usually issued.
//! [`cluster`] starts several nodes to try them out and to break them. [`prefilled`] makes coupons with many
//! issuances without a node.
//!
//! Time and memory of the checker grow with n log n. An example times it over a million operations:
//!
//! ```text
//! cargo run --release --example check_million
//! ```

pub mod cluster;
pub mod compare;
pub mod load;
pub mod prefilled;
pub mod rivals;
pub mod verify;

use std::path::{Path, PathBuf};

/// Returns the program at the path `named`. If no path is given, returns the program `name` beside this
/// program.
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
