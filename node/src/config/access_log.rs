//! The access log.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// The requests that are logged: `off`, `errors`, `all`, or `sample:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum AccessLog {
    /// No requests.
    #[default]
    Off,
    /// Requests answered with a status of 500 or above.
    Errors,
    /// All requests.
    All,
    /// One in this many requests, at random.
    Sample(NonZeroU32),
}

impl TryFrom<String> for AccessLog {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "off" => Ok(Self::Off),
            "errors" => Ok(Self::Errors),
            "all" => Ok(Self::All),
            text => {
                let one_in = text
                    .strip_prefix("sample:")
                    .and_then(|number| number.parse().ok());
                one_in
                    .map(Self::Sample)
                    .ok_or("must be off, errors, all, or sample:N with N of at least 1")
            }
        }
    }
}

impl From<AccessLog> for String {
    fn from(access: AccessLog) -> Self {
        access.to_string()
    }
}

impl fmt::Display for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Errors => f.write_str("errors"),
            Self::All => f.write_str("all"),
            Self::Sample(one_in) => write!(f, "sample:{one_in}"),
        }
    }
}
