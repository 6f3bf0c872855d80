//! The names of roles.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The name of a role that a key or a token can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum RoleName {
    /// Everything.
    Admin,
    /// Creates and changes coupons, uses and revokes issuances, and reads everything.
    Operator,
    /// Issues for others, uses issuances for orders, and reads and exports what users have.
    Service,
    /// Reads everything.
    Viewer,
}

impl RoleName {
    /// Returns the role with this name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::from_str(text, false).ok()
    }
}
