//! Reads keys from the configuration, or from a file that is reloaded when it changes.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use secrecy::ExposeSecret;
use sha2::{Digest as _, Sha256};

use super::keys::{Keys, Rules};
use super::token::Digest;
use crate::config::{InvalidConfig, Jwt};

/// Interval between reads of the file; a removed key stays valid for up to this time. The whole file is read
/// each time, because modification times are too coarse, and mounted secrets are replaced through a link.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// Maximum size of the file: ten times the size of a file with a hundred keys.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Reads the configured keys.
pub(super) fn keys(config: &Jwt, rules: &Rules) -> Result<Keys, InvalidConfig> {
    if let Some(path) = &config.jwks_file {
        let wrong =
            |reason: String| InvalidConfig(format!("auth.jwt.jwks_file: {}: {reason}", path.display()));
        let text = read(path).map_err(|error| wrong(error.to_string()))?;
        let (keys, skipped) = Keys::set(&text, rules).map_err(wrong)?;
        warn_of(&skipped);
        return Ok(keys);
    }
    // The configuration has checked that key and algorithm are set.
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

/// Reads the file every [`RELOAD_INTERVAL`], for as long as the future is polled. If the content of the file
/// has changed, calls `changed` with the new keys. A missing or invalid file is logged once, and the old keys
/// stay.
pub(super) async fn reload(path: &Path, rules: &Rules, changed: impl Fn(Keys)) {
    let mut last = Content::None;
    let mut ticks = tokio::time::interval(RELOAD_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let owned = path.to_owned();
        // A panic there would be a bug in `read`.
        let text = tokio::task::spawn_blocking(move || read(&owned))
            .await
            .unwrap_or_else(|panic| Err(io::Error::other(panic)));
        let content = Content::of(&text);
        if content == last {
            continue;
        }
        let is_first = last == Content::None;
        last = content;
        match text
            .map_err(|error| error.to_string())
            .and_then(|text| Keys::set(&text, rules))
        {
            Ok((keys, skipped)) => {
                changed(keys);
                // The skipped keys of the first read were already logged at the start.
                if !is_first {
                    tracing::info!(path = %path.display(), "reloaded the keys of tokens");
                    warn_of(&skipped);
                }
            }
            Err(reason) => {
                tracing::error!(
                    path = %path.display(), reason,
                    "failed to reload the keys of tokens; the old ones stay"
                );
            }
        }
    }
}

/// The content of the file at the last read.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    None,
    Unreadable(io::ErrorKind),
    Text(Digest),
}

impl Content {
    fn of(text: &io::Result<Vec<u8>>) -> Self {
        match text {
            Ok(text) => Self::Text(Sha256::digest(text).into()),
            Err(error) => Self::Unreadable(error.kind()),
        }
    }
}

fn warn_of(skipped: &[String]) {
    for key in skipped {
        tracing::warn!("auth.jwt.jwks_file: {key}; skipped");
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
    fn a_file_that_is_too_large_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(FILE_BYTES_MAX).unwrap();
        assert_eq!(read(file.path()).unwrap().len() as u64, FILE_BYTES_MAX);
        file.as_file().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(read(file.path()).is_err());
    }
}
