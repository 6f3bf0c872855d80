//! The arguments of `firstcome token`.

use std::path::PathBuf;
use std::time::Duration;

use actors::ids::UserId;
use clap::Args;

use crate::config::{Auth, RoleName};
use crate::service::auth::Role;
use crate::service::auth::mint::{self, MintError};

/// Maximum validity. Operators would forget about a token that is valid for longer.
const EXPIRES_IN_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Arguments of the command.
#[derive(Debug, Args)]
pub(crate) struct Token {
    /// The user (`sub`)
    #[arg(long, value_name = "USER", value_parser = user)]
    user: UserId,
    /// Rights beyond those of every user
    #[arg(long, value_enum)]
    role: Option<RoleName>,
    /// How long the token is valid, like 15m or 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = expires_in)]
    expires_in: Duration,
    /// The private key that signs the token (PEM, PKCS #8), if only public keys are configured
    #[arg(long, value_name = "FILE")]
    private_key_file: Option<PathBuf>,
}

impl Token {
    /// Mints the token.
    pub(crate) fn mint(self, auth: &Auth) -> Result<String, MintError> {
        let role = self.role.map_or(Role::User, Role::from);
        mint::mint(
            auth,
            &mint::TokenRequest {
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
    let allowed = Duration::from_secs(1)..=EXPIRES_IN_MAX;
    if allowed.contains(&time) {
        Ok(time)
    } else {
        Err("must be between a second and a year".to_owned())
    }
}
