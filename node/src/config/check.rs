//! Checks of single values. A message follows the name of the key.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use actors::ids::NodeId;
use secrecy::{ExposeSecret, SecretString};
use tracing_subscriber::EnvFilter;

use super::value::HIDDEN;

/// Longest duration: a longer one is a mistake.
const DURATION_MAX: Duration = Duration::from_secs(3600);

/// Longest admin token.
const ADMIN_TOKEN_BYTES_MAX: usize = 512;

type Check = Result<(), String>;

/// A number within a range.
pub(super) fn between<T: PartialOrd + Display>(value: T, range: RangeInclusive<T>) -> Check {
    if range.contains(&value) {
        Ok(())
    } else {
        Err(format!("must be {} to {}", range.start(), range.end()))
    }
}

/// A number that is not 0.
pub(super) fn at_least_one(value: &usize) -> Check {
    if *value == 0 {
        Err("must be at least 1".to_owned())
    } else {
        Ok(())
    }
}

/// A duration of up to an hour.
pub(super) fn at_most_an_hour(duration: &Duration) -> Check {
    if *duration > DURATION_MAX {
        Err("must be at most an hour".to_owned())
    } else {
        Ok(())
    }
}

/// The same where none may be set.
pub(super) fn optional_at_most_an_hour(duration: &Option<Duration>) -> Check {
    duration.as_ref().map_or(Ok(()), at_most_an_hour)
}

/// A duration of up to an hour, but not 0.
pub(super) fn positive_and_at_most_an_hour(duration: &Duration) -> Check {
    if duration.is_zero() || *duration > DURATION_MAX {
        Err("must be longer than 0 and at most an hour".to_owned())
    } else {
        Ok(())
    }
}

/// The id of a node.
pub(super) fn node_id(id: &Option<String>) -> Check {
    id.as_ref().map_or(Ok(()), |id| {
        NodeId::parse(id)
            .map(drop)
            .map_err(|error| format!("is not valid: {error}"))
    })
}

/// Levels of the log.
pub(super) fn log_level(level: &str) -> Check {
    EnvFilter::builder()
        .parse(level)
        .map(drop)
        .map_err(|error| format!("is not valid: {error}"))
}

/// A token that can be sent in a header, and is not what `config check` prints in place of one.
pub(super) fn admin_token(token: &Option<SecretString>) -> Check {
    let is_valid = |token: &SecretString| {
        let token = token.expose_secret();
        (1..=ADMIN_TOKEN_BYTES_MAX).contains(&token.len())
            && token.bytes().all(|byte| byte.is_ascii_graphic())
            && token != HIDDEN
    };
    if token.as_ref().is_none_or(is_valid) {
        Ok(())
    } else {
        Err(format!(
            "must be 1 to {ADMIN_TOKEN_BYTES_MAX} visible ASCII characters without spaces, and not {HIDDEN}"
        ))
    }
}
