//! Loads a configuration from its sources. Errors name the key.

use std::fs;
use std::path::{Path, PathBuf};

use config::{ConfigError, Environment, File, FileFormat, Map, Source, Value, ValueKind};
use secrecy::{ExposeSecret, SecretString};

use super::keys::{FORMER_KEYS, check_known, check_known_section, check_variable};
use super::{Config, InvalidConfig};

/// Sources of a configuration, besides the environment.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Keys and values that override all others, like `http.listen` and `127.0.0.1:0`.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// Loads and checks the configuration.
    pub fn load(&self) -> Result<Config, InvalidConfig> {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        check_variables(names)?;
        self.load_over(Environment::with_prefix("FIRSTCOME"))
    }

    /// Loads and checks the configuration with this environment, for tests.
    pub(super) fn load_over(&self, environment: Environment) -> Result<Config, InvalidConfig> {
        let mut builder = config::Config::builder();
        if let Some(file) = &self.file {
            builder = builder.add_source(File::from(file.as_path()).format(FileFormat::Toml));
        }
        // Types of values are not guessed (`try_parsing`): a token of digits stays a string, and a number is
        // parsed where a number is expected.
        builder = builder.add_source(
            environment
                .prefix_separator("__")
                .separator("__")
                .ignore_empty(true),
        );
        for (key, value) in &self.flags {
            builder = builder.set_override(key, value.as_str()).map_err(invalid)?;
        }
        let merged = builder.build().map_err(invalid)?;
        check_known_keys("", &merged.collect().map_err(invalid)?)?;
        let (merged, former_keys) = rename_former_keys(merged)?;
        let mut config: Config =
            serde_path_to_error::deserialize(merged.clone()).map_err(|error| named(&error, &merged))?;
        config.former_keys = former_keys;
        read_secrets(&mut config)?;
        config.check()?;
        Ok(config)
    }
}

fn invalid(error: ConfigError) -> InvalidConfig {
    InvalidConfig(error.to_string())
}

/// Fails if a key is not in the table.
fn check_known_keys(prefix: &str, values: &Map<String, Value>) -> Result<(), InvalidConfig> {
    for (name, value) in values {
        let key = format!("{prefix}{name}");
        match &value.kind {
            // A quoted key of the file. It looks like a known key, but is in another table, where nothing
            // reads it.
            _ if name.contains('.') => {
                return Err(InvalidConfig(format!(
                    "`{name}` is quoted; write {key} without quotes"
                )));
            }
            // The names in such a table are not keys.
            ValueKind::Table(_) if Config::keys().any(|known| known.name == key) => {}
            ValueKind::Table(values) if values.is_empty() => check_known_section(&key)?,
            ValueKind::Table(values) => check_known_keys(&format!("{key}."), values)?,
            _ => check_known(&key)?,
        }
    }
    Ok(())
}

/// The former name of a key, and its present name.
type Renamed = (&'static str, &'static str);

/// Moves the values of former keys to the present keys. Returns the former keys that were used, each with its
/// present name.
fn rename_former_keys(merged: config::Config) -> Result<(config::Config, Vec<Renamed>), InvalidConfig> {
    let mut used = Vec::new();
    let mut builder = config::Config::builder().add_source(merged.clone());
    for (former, present) in FORMER_KEYS {
        let Ok(value) = merged.get::<Value>(former) else {
            continue;
        };
        if merged.get::<Value>(present).is_ok() {
            return Err(InvalidConfig(format!(
                "{present} and its former name {former} are both set; remove {former}"
            )));
        }
        builder = builder.set_override(present, value).map_err(invalid)?;
        used.push((former, present));
    }
    Ok((builder.build().map_err(invalid)?, used))
}

/// Fails if one of these environment variables is meant as a key, and is not read. The order of variables
/// does not matter: the first name in the alphabet is reported.
fn check_variables(names: impl Iterator<Item = String>) -> Result<(), InvalidConfig> {
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.iter().try_for_each(|name| check_variable(name))
}

/// Names the key in an error, and says what its value should be.
fn named(error: &serde_path_to_error::Error<ConfigError>, merged: &config::Config) -> InvalidConfig {
    let path = error.path().to_string();
    let key = Config::keys().find(|key| key.name == path);
    if let Some((key, expected)) = key.and_then(|key| Some((key, key.expected()?))) {
        let value = merged.get::<Value>(key.name).ok().filter(|_| !key.is_secret());
        let not = value.map_or_else(String::new, |value| format!(", not {}", shown(&value)));
        return InvalidConfig(format!("{path} must be {expected}{not}"));
    }
    InvalidConfig(if path == "." {
        error.inner().to_string()
    } else {
        format!("{path}: {}", error.inner())
    })
}

/// Shows a value as it would stand in a file.
fn shown(value: &Value) -> String {
    match &value.kind {
        ValueKind::String(text) => format!("{text:?}"),
        _ => value.to_string(),
    }
}

/// Reads the files of `…_file` keys.
fn read_secrets(config: &mut Config) -> Result<(), InvalidConfig> {
    if let Some(path) = &config.store.url_file {
        if config.store.url.is_some() {
            return Err(InvalidConfig(
                "store.url and store.url_file are both set; remove one of them".to_owned(),
            ));
        }
        config.store.url = Some(read_secret("store.url_file", path)?.expose_secret().to_owned());
    }
    let cluster = &mut config.cluster;
    if let Some(path) = &cluster.cookie_file {
        if cluster.cookie.is_some() {
            return Err(InvalidConfig(
                "cluster.cookie and cluster.cookie_file are both set; remove one of them".to_owned(),
            ));
        }
        cluster.cookie = Some(read_secret("cluster.cookie_file", path)?);
    }
    let auth = &mut config.auth;
    if let Some(path) = &auth.jwt.key_file {
        if auth.jwt.key.is_some() {
            return Err(InvalidConfig(
                "auth.jwt.key and auth.jwt.key_file are both set; remove one of them".to_owned(),
            ));
        }
        auth.jwt.key = Some(read_secret("auth.jwt.key_file", path)?);
    }
    if let Some(path) = &auth.admin_token_file {
        if auth.admin_token.is_some() {
            return Err(InvalidConfig(
                "auth.admin_token and auth.admin_token_file are both set; remove one of them".to_owned(),
            ));
        }
        auth.admin_token = Some(read_secret("auth.admin_token_file", path)?);
    }
    Ok(())
}

/// Reads a secret from a file, without the line end that editors add.
fn read_secret(key: &str, path: &Path) -> Result<SecretString, InvalidConfig> {
    let text = fs::read_to_string(path)
        .map_err(|error| InvalidConfig(format!("{key}: {}: {error}", path.display())))?;
    Ok(SecretString::from(text.trim_end_matches(['\r', '\n'])))
}

#[cfg(test)]
mod tests;
