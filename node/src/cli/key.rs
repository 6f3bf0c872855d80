//! The arguments of `firstcome key`.

use std::error::Error;
use std::io::{self, Write};

use actors::time::Timestamp;
use clap::Args;

use crate::config::RoleName;
use crate::service::auth::key_ring::new_key;

/// Arguments of the command.
#[derive(Debug, Args)]
pub(crate) struct Key {
    /// The name of the key: letters, digits, dashes, dots and underscores
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What its holder may do
    #[arg(long, value_enum)]
    role: RoleName,
    /// From when on the key is refused, like 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = until)]
    until: Option<Timestamp>,
}

impl Key {
    /// Makes a secret, and returns the entry for `auth.keys_file`. The secret goes to the standard error, so
    /// that the standard output can be appended to the file.
    pub(crate) fn make(&self) -> Result<String, Box<dyn Error>> {
        let key = new_key(&self.name, self.role, self.until).map_err(|reason| format!("--name: {reason}"))?;
        let mut stderr = io::stderr().lock();
        writeln!(stderr, "The secret, which is shown only now:\n{}", key.secret)
            .and_then(|()| stderr.flush())
            .map_err(|error| format!("the standard error: {error}"))?;
        Ok(key.entry)
    }
}

fn until(text: &str) -> Result<Timestamp, &'static str> {
    Timestamp::parse(text).ok_or("must be a time with an offset, like 2027-01-31T00:00:00Z")
}
