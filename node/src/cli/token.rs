//! `firstcome token`: what is asked of it.

use std::path::PathBuf;
use std::time::Duration;

use actors::ids::UserId;
use clap::{Args, ValueEnum};

use crate::config::Auth;
use crate::service::auth::Role;
use crate::service::auth::mint::{self, MintError};

/// Longest that a token may count: whoever means more forgets it.
const EXPIRES_IN_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Whose token, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Token {
    /// Whose it is (`sub`)
    #[arg(long, value_name = "USER", value_parser = user)]
    user: UserId,
    /// What they may do besides what every user may
    #[arg(long, value_enum)]
    role: Option<TokenRole>,
    /// How long it counts, like 15m or 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = expires_in)]
    expires_in: Duration,
    /// The private key that signs it (PEM, PKCS #8), where only public ones are configured
    #[arg(long, value_name = "FILE")]
    private_key_file: Option<PathBuf>,
}

/// Roles by the names that tokens have for them.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum TokenRole {
    /// Makes and changes coupons
    Admin,
    /// Issues for others
    Service,
}

impl Token {
    /// Makes it.
    pub(crate) fn mint(self, auth: &Auth) -> Result<String, MintError> {
        let role = match self.role {
            None => Role::User,
            Some(TokenRole::Admin) => Role::Admin,
            Some(TokenRole::Service) => Role::Service,
        };
        mint::mint(
            auth,
            &mint::Request {
                user: self.user,
                role,
                expires_in: self.expires_in,
                private_key_file: self.private_key_file,
            },
        )
    }
}

fn user(text: &str) -> Result<UserId, String> {
    UserId::parse(text).map_err(|error| error.to_string())
}

fn expires_in(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let sane = Duration::from_secs(1)..=EXPIRES_IN_MAX;
    if sane.contains(&time) {
        Ok(time)
    } else {
        Err("must be a second to a year".to_owned())
    }
}
