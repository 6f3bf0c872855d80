//! Where keys come from: the configuration itself, or a file that is read again when it changes.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use secrecy::ExposeSecret;
use sha2::{Digest as _, Sha256};

use super::bearer::Digest;
use super::keys::{Keys, Rules};
use crate::config::{InvalidConfig, Jwt};

/// How often the file is read. A key that was taken out counts no longer than this; and reading a few
/// kilobytes costs nothing. All of it is read each time: the time of a change is too coarse to go by, and
/// mounted secrets change by a link.
const READ_EVERY: Duration = Duration::from_secs(2);

/// Largest file: a hundred keys are a tenth of it.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The keys that are configured.
pub(super) fn keys(config: &Jwt, rules: &Rules) -> Result<Keys, InvalidConfig> {
    if let Some(path) = &config.jwks_file {
        let wrong =
            |reason: String| InvalidConfig(format!("auth.jwt.jwks_file: {}: {reason}", path.display()));
        let text = read(path).map_err(|error| wrong(error.to_string()))?;
        let (keys, passed_over) = Keys::set(&text, rules).map_err(wrong)?;
        mention(&passed_over);
        return Ok(keys);
    }
    // The configuration has checked that both are there.
    let missing = || InvalidConfig("auth.jwt.key and auth.jwt.algorithm must be set".to_owned());
    let (key, algorithm) = config.key.as_ref().zip(config.algorithm).ok_or_else(missing)?;
    let name = if config.key_file.is_some() {
        "auth.jwt.key_file"
    } else {
        "auth.jwt.key"
    };
    Keys::one(algorithm, key.expose_secret(), rules)
        .map_err(|reason| InvalidConfig(format!("{name} {reason}")))
}

/// Reads the file every [`READ_EVERY`] and hands over its keys when they changed, for as long as it is
/// polled. A file that is broken or gone changes nothing but the log, and that once.
pub(super) async fn follow(path: &Path, rules: &Rules, changed: impl Fn(Keys)) {
    let mut last = Seen::Nothing;
    let mut ticks = tokio::time::interval(READ_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let owned = path.to_owned();
        // A panic there would be a mistake in `read`.
        let text = tokio::task::spawn_blocking(move || read(&owned))
            .await
            .unwrap_or_else(|panic| Err(io::Error::other(panic)));
        let seen = Seen::of(&text);
        if seen == last {
            continue;
        }
        let first = last == Seen::Nothing;
        last = seen;
        match text
            .map_err(|error| error.to_string())
            .and_then(|text| Keys::set(&text, rules))
        {
            Ok((keys, passed_over)) => {
                changed(keys);
                // What was read at the start was told then.
                if !first {
                    tracing::info!(path = %path.display(), "the keys that verify tokens were read again");
                    mention(&passed_over);
                }
            }
            Err(reason) => {
                tracing::error!(path = %path.display(), reason, "the keys that verify tokens cannot be read; the old ones stay")
            }
        }
    }
}

/// What was last found in the file.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    Unreadable(io::ErrorKind),
    Text(Digest),
}

impl Seen {
    fn of(text: &io::Result<Vec<u8>>) -> Self {
        match text {
            Ok(text) => Self::Text(Sha256::digest(text).into()),
            Err(error) => Self::Unreadable(error.kind()),
        }
    }
}

fn mention(passed_over: &[String]) {
    for line in passed_over {
        tracing::warn!("auth.jwt.jwks_file: {line}; it is passed over");
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        Err(io::Error::other("larger than a megabyte"))
    } else {
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_something_else_is_not_read_to_its_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(FILE_BYTES_MAX).unwrap();
        assert_eq!(read(file.path()).unwrap().len() as u64, FILE_BYTES_MAX);
        file.as_file().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(read(file.path()).is_err());
    }
}
