//! Checks of single values. An error message continues a sentence that begins with the name of the key.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use actors::ids::NodeId;
use secrecy::{ExposeSecret, SecretString};
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::value::HIDDEN;

/// Maximum duration: a longer one is a mistake.
const DURATION_MAX: Duration = Duration::from_secs(3600);

/// Minimum length of the admin token. Each guess is a request, so a token of this many random characters
/// cannot be guessed.
const ADMIN_TOKEN_BYTES_MIN: usize = 8;
/// Maximum length of the admin token.
const ADMIN_TOKEN_BYTES_MAX: usize = 512;

type Check = Result<(), String>;

/// Checks that a number is within a range.
pub(super) fn between<T: PartialOrd + Display>(value: T, range: RangeInclusive<T>) -> Check {
    if range.contains(&value) {
        Ok(())
    } else {
        Err(format!("must be {} to {}", range.start(), range.end()))
    }
}

/// Checks that a number is not 0.
pub(super) fn at_least_one(value: &usize) -> Check {
    if *value == 0 {
        Err("must be at least 1".to_owned())
    } else {
        Ok(())
    }
}

/// Checks that a duration is at most an hour.
pub(super) fn at_most_an_hour(duration: &Duration) -> Check {
    if *duration > DURATION_MAX {
        Err("must be at most an hour".to_owned())
    } else {
        Ok(())
    }
}

/// Checks that an optional duration is at most an hour.
pub(super) fn optional_at_most_an_hour(duration: &Option<Duration>) -> Check {
    duration.as_ref().map_or(Ok(()), at_most_an_hour)
}

/// Checks that a duration is at most an hour and not 0.
pub(super) fn positive_and_at_most_an_hour(duration: &Duration) -> Check {
    if duration.is_zero() || *duration > DURATION_MAX {
        Err("must be longer than 0 and at most an hour".to_owned())
    } else {
        Ok(())
    }
}

/// Checks the id of a node.
pub(super) fn node_id(id: &Option<String>) -> Check {
    id.as_ref().map_or(Ok(()), |id| {
        NodeId::parse(id)
            .map(drop)
            .map_err(|error| format!("is not valid: {error}"))
    })
}

/// Checks the levels of the log.
pub(super) fn log_level(levels: &str) -> Check {
    log_targets(levels).map(drop)
}

/// The libraries that links use, and the most detailed level of each unless the levels name it. This program
/// itself logs what an operator should know about links, with the names of nodes. The libraries log a line
/// for each step of a connection and each frame that they do not understand, and at level debug whole
/// messages.
const QUIET_LIBRARIES: [(&str, LevelFilter); 2] = [
    ("ractor", LevelFilter::WARN),
    ("ractor_cluster", LevelFilter::ERROR),
];

/// Parses the levels of the log: a level for all modules, or `module=level`, separated by commas.
pub(crate) fn log_targets(levels: &str) -> Result<Targets, String> {
    let parts: Vec<&str> = levels
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect();
    if parts.is_empty() {
        return Err("has no level".to_owned());
    }
    let targets = parts
        .into_iter()
        .try_fold(Targets::new(), |targets, part| match part.split_once('=') {
            None => Ok(targets.with_default(level(part)?)),
            Some((module, text)) if is_module(module.trim()) => {
                Ok(targets.with_target(module.trim(), level(text.trim())?))
            }
            Some((module, _)) => Err(format!("has `{}`, which is not a module", module.trim())),
        })?;
    Ok(QUIET_LIBRARIES
        .into_iter()
        .fold(targets, |targets, (library, most)| {
            if targets.iter().any(|(module, _)| module == library) {
                return targets;
            }
            let general = targets.default_level().unwrap_or(LevelFilter::OFF);
            targets.with_target(library, general.min(most))
        }))
}

fn level(text: &str) -> Result<LevelFilter, String> {
    let parsed = text.parse::<LevelFilter>().ok().filter(|_| !text.is_empty());
    parsed.ok_or_else(|| format!("has `{text}`, which is not off, error, warn, info, debug or trace"))
}

fn is_module(text: &str) -> bool {
    let of_a_path = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    !text.is_empty() && text.bytes().all(of_a_path)
}

/// Checks that an admin token can be sent in a header, and is not the text that `config check` prints in
/// place of a secret.
pub(super) fn admin_token(token: &Option<SecretString>) -> Check {
    let is_valid = |token: &SecretString| {
        let token = token.expose_secret();
        (ADMIN_TOKEN_BYTES_MIN..=ADMIN_TOKEN_BYTES_MAX).contains(&token.len())
            && token.bytes().all(|byte| byte.is_ascii_graphic())
            && token != HIDDEN
    };
    if token.as_ref().is_none_or(is_valid) {
        Ok(())
    } else {
        Err(format!(
            "must be {ADMIN_TOKEN_BYTES_MIN} to {ADMIN_TOKEN_BYTES_MAX} visible ASCII characters \
             without spaces, and not {HIDDEN}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn the_libraries_of_links_are_quiet_unless_they_are_named() {
        for (levels, ractor, cluster) in [
            ("debug", Level::WARN, Level::ERROR),
            ("error", Level::ERROR, Level::ERROR),
            ("debug,ractor_cluster=info", Level::WARN, Level::INFO),
        ] {
            let targets = log_targets(levels).unwrap();
            for (library, most) in [("ractor::actor", ractor), ("ractor_cluster::node", cluster)] {
                for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG] {
                    assert_eq!(
                        targets.would_enable(library, &level),
                        level <= most,
                        "{levels} {library}"
                    );
                }
            }
        }
        assert!(
            !log_targets("off")
                .unwrap()
                .would_enable("ractor_cluster", &Level::ERROR)
        );
    }
}
