//! Reads keys from the configuration, or from a file that is reloaded when it changes.

use std::path::Path;

use secrecy::ExposeSecret;

use super::keys::{Keys, Rules};
use super::watched_file;
use crate::config::{InvalidConfig, Jwt};
use crate::metrics::{self, KeySource, KeysRead};

/// Reads the configured keys.
pub(super) fn keys(config: &Jwt, rules: &Rules) -> Result<Keys, InvalidConfig> {
    if let Some(path) = &config.jwks_file {
        let wrong =
            |reason: String| InvalidConfig(format!("auth.jwt.jwks_file: {}: {reason}", path.display()));
        let text = watched_file::read(path).map_err(|error| wrong(error.to_string()))?;
        let (keys, skipped) = Keys::set(&text, rules).map_err(wrong)?;
        warn_of("auth.jwt.jwks_file", &skipped);
        return Ok(keys);
    }
    if config.jwks_url.is_some() {
        return Ok(Keys::none());
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

/// Reads the file when it changes, for as long as the future is polled, and calls `changed` with the new
/// keys. A missing or invalid file is logged once, and the old keys stay.
pub(super) async fn reload(path: &Path, rules: &Rules, changed: impl Fn(Keys)) {
    watched_file::watch(path, |text, is_first| {
        let keys = text
            .map_err(|error| error.to_string())
            .and_then(|text| Keys::set(&text, rules));
        metrics::keys_read(KeySource::JwksFile, KeysRead::of(keys.is_ok(), is_first));
        match keys {
            Ok((keys, skipped)) => {
                changed(keys);
                // The skipped keys of the first read were already logged at the start.
                if !is_first {
                    tracing::info!(path = %path.display(), "reloaded the keys of tokens");
                    warn_of("auth.jwt.jwks_file", &skipped);
                }
            }
            Err(reason) => {
                tracing::error!(
                    path = %path.display(), reason,
                    "failed to reload the keys of tokens; the old ones stay"
                );
            }
        }
    })
    .await;
}

/// Logs which keys of a set are not used, and why. `name` is that of the key of the configuration.
pub(super) fn warn_of(name: &str, skipped: &[String]) {
    for key in skipped {
        tracing::warn!("{name}: {key}; skipped");
    }
}
