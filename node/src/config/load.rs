//! Reads a configuration from where it can stand, and says what is wrong by the name of the key.

use std::fs;
use std::path::{Path, PathBuf};

use config::{Environment, File, FileFormat};
use secrecy::{ExposeSecret, SecretString};

use super::value::HIDDEN;
use super::{Config, InvalidConfig};

/// Where a configuration comes from, besides the environment.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Keys and values that go over all else, like `http.listen` and `127.0.0.1:0`.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// Reads and checks the configuration.
    pub fn load(&self) -> Result<Config, InvalidConfig> {
        self.load_over(Environment::with_prefix("FIRSTCOME"))
    }

    /// The same with an environment that a test can bring along.
    pub(super) fn load_over(&self, environment: Environment) -> Result<Config, InvalidConfig> {
        let mut builder = config::Config::builder();
        if let Some(file) = &self.file {
            builder = builder.add_source(File::from(file.as_path()).format(FileFormat::Toml));
        }
        // Values are not guessed at (`try_parsing`): a token of digits is a text, and numbers are read as
        // such where one is wanted.
        builder = builder.add_source(
            environment
                .prefix_separator("__")
                .separator("__")
                .ignore_empty(true),
        );
        for (key, value) in &self.flags {
            builder = builder
                .set_override(key, value.as_str())
                .map_err(|error| InvalidConfig(error.to_string()))?;
        }
        let merged = builder
            .build()
            .map_err(|error| InvalidConfig(error.to_string()))?;
        let mut config: Config = serde_path_to_error::deserialize(merged).map_err(|error| named(&error))?;
        read_secrets(&mut config)?;
        config.check()?;
        Ok(config)
    }
}

/// The error with the name of the key that it is about.
fn named(error: &serde_path_to_error::Error<config::ConfigError>) -> InvalidConfig {
    let path = error.path().to_string();
    InvalidConfig(if path == "." {
        error.inner().to_string()
    } else {
        format!("{path}: {}", error.inner())
    })
}

/// Puts in place what `…_FILE` keys point at.
fn read_secrets(config: &mut Config) -> Result<(), InvalidConfig> {
    if let Some(path) = &config.store.url_file {
        if config.store.url.is_some() {
            return Err(InvalidConfig(
                "store.url and store.url_file are both set; one of them must go".to_owned(),
            ));
        }
        config.store.url = Some(read_secret("store.url_file", path)?.expose_secret().to_owned());
    }
    let cluster = &mut config.cluster;
    if let Some(path) = &cluster.cookie_file {
        if cluster.cookie.is_some() {
            return Err(InvalidConfig(
                "cluster.cookie and cluster.cookie_file are both set; one of them must go".to_owned(),
            ));
        }
        cluster.cookie = Some(read_secret("cluster.cookie_file", path)?);
    }
    let auth = &mut config.auth;
    if let Some(path) = &auth.jwt.key_file {
        if auth.jwt.key.is_some() {
            return Err(InvalidConfig(
                "auth.jwt.key and auth.jwt.key_file are both set; one of them must go".to_owned(),
            ));
        }
        auth.jwt.key = Some(read_secret("auth.jwt.key_file", path)?);
    }
    if let Some(path) = &auth.admin_token_file {
        if auth.admin_token.is_some() {
            return Err(InvalidConfig(
                "auth.admin_token and auth.admin_token_file are both set; one of them must go".to_owned(),
            ));
        }
        auth.admin_token = Some(read_secret("auth.admin_token_file", path)?);
    }
    match &auth.admin_token {
        Some(token) if !is_token(token) => Err(InvalidConfig(
            "auth.admin_token must be 1 to 512 visible ASCII characters without spaces, and not [hidden]"
                .to_owned(),
        )),
        _ => Ok(()),
    }
}

/// What a file holds, without the line end that editors leave.
fn read_secret(key: &str, path: &Path) -> Result<SecretString, InvalidConfig> {
    let text = fs::read_to_string(path)
        .map_err(|error| InvalidConfig(format!("{key}: {}: {error}", path.display())))?;
    Ok(SecretString::from(text.trim_end_matches(['\r', '\n'])))
}

/// Whether it can stand in a header, and is not what `config check` printed in its place.
fn is_token(token: &SecretString) -> bool {
    let token = token.expose_secret();
    (1..=512).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic()) && token != HIDDEN
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::io::Write;
    use std::time::Duration;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        let pairs: HashMap<String, String> = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Environment::with_prefix("FIRSTCOME").source(Some(pairs))
    }

    fn load(file: &str, pairs: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, String> {
        let mut on_disk = tempfile::NamedTempFile::new().unwrap();
        on_disk.write_all(file.as_bytes()).unwrap();
        let flags = flags
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let sources = Sources {
            file: Some(on_disk.path().to_owned()),
            flags,
        };
        sources
            .load_over(environment(pairs))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_set_is_one_node_on_loopback() {
        let config = load("", &[], &[]).unwrap();
        assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.http.deadline, Duration::from_secs(3));
        assert_eq!(config.shutdown_delay(), Duration::ZERO);
        assert_eq!(
            config.store_url().unwrap().to_string(),
            "sqlite://./data/firstcome.db"
        );
    }

    #[test]
    fn flags_go_over_the_environment_and_that_over_the_file() {
        let file = "[http]\nlisten = \"127.0.0.1:1\"\ndeadline = \"1s\"\nchange_deadline = \"1s\"\n";
        let pairs = [
            ("FIRSTCOME__HTTP__LISTEN", "127.0.0.1:2"),
            ("FIRSTCOME__HTTP__DEADLINE", "250ms"),
        ];
        let config = load(file, &pairs, &[("http.listen", "127.0.0.1:3")]).unwrap();
        assert_eq!(config.http.listen.port(), 3);
        assert_eq!(config.http.deadline, Duration::from_millis(250));
        assert_eq!(config.http.change_deadline, Duration::from_secs(1));
    }

    #[test]
    fn an_unknown_key_is_named_wherever_it_stands() {
        for (file, pairs, flags, key) in [
            (
                "[http]\nlisten_on = \"x\"\n",
                [("FIRSTCOME__LOG__LEVEL", "info")],
                vec![],
                "listen_on",
            ),
            ("", [("FIRSTCOME__STORE__URI", "x")], vec![], "uri"),
            ("", [("FIRSTCOME__STROE__URL", "x")], vec![], "stroe"),
            (
                "",
                [("FIRSTCOME__LOG__LEVEL", "info")],
                vec![("http.port", "1")],
                "port",
            ),
        ] {
            let error = load(file, &pairs, &flags).unwrap_err();
            assert!(error.contains("unknown field") && error.contains(key), "{error}");
        }
    }

    #[test]
    fn a_wrong_value_is_named_by_its_key() {
        for (key, value, name) in [
            ("FIRSTCOME__HTTP__LISTEN", "nowhere", "http.listen"),
            ("FIRSTCOME__HTTP__DEADLINE", "3", "http.deadline"),
            ("FIRSTCOME__HTTP__DEADLINE", "0s", "http.deadline"),
            ("FIRSTCOME__CLUSTER__LEASE", "300ms", "cluster.lease"),
            ("FIRSTCOME__NODE__ID", "a b", "node.id"),
            ("FIRSTCOME__AUTH__MODE", "trust", "auth.mode"),
            ("FIRSTCOME__AUTH__ADMIN_TOKEN", "with a space", "auth.admin_token"),
            ("FIRSTCOME__AUTH__ADMIN_TOKEN", "[hidden]", "auth.admin_token"),
            (
                "FIRSTCOME__AUTH__TRUSTED_PROXIES",
                "10.0.0.0/8,x",
                "auth.trusted_proxies",
            ),
            ("FIRSTCOME__AUTH__JWT__ALGORITHM", "none", "auth.jwt.algorithm"),
            ("FIRSTCOME__AUTH__JWT__LEEWAY", "11m", "auth.jwt.leeway"),
            (
                "FIRSTCOME__HTTP__CORS_ORIGINS",
                "https://shop.example,*",
                "http.cors_origins",
            ),
            (
                "FIRSTCOME__HTTP__CORS_ORIGINS",
                "https://shop.example/",
                "http.cors_origins",
            ),
            ("FIRSTCOME__LIMITS__USER_RATE", "0", "limits.user_rate"),
            ("FIRSTCOME__LIMITS__USER_RATE", "-1", "limits.user_rate"),
            ("FIRSTCOME__LIMITS__USER_RATE", "NaN", "limits.user_rate"),
            ("FIRSTCOME__LIMITS__USER_RATE", "many", "limits.user_rate"),
            ("FIRSTCOME__LIMITS__USER_BURST", "0", "limits.user_burst"),
            ("FIRSTCOME__LIMITS__USER_BURST", "5", "limits.user_rate"),
            ("FIRSTCOME__LOG__FORMAT", "xml", "log.format"),
            ("FIRSTCOME__LOG__LEVEL", "node=loud", "log.level"),
            ("FIRSTCOME__STORE__URL", "redis://x", "store.url"),
            (
                "FIRSTCOME__STORE__URL",
                "postgres://db/firstcome",
                "must be sqlite://<path> or mysql://",
            ),
        ] {
            let error = load("", &[(key, value)], &[]).unwrap_err();
            assert!(error.contains(name), "{key}={value}: {error}");
        }
    }

    #[test]
    fn header_mode_off_loopback_wants_to_know_whom_to_believe() {
        let listen = ("FIRSTCOME__HTTP__LISTEN", "0.0.0.0:8080");
        let error = load("", &[listen], &[]).unwrap_err();
        assert!(error.contains("auth.trusted_proxies"), "{error}");
        let config = load(
            "",
            &[
                listen,
                (
                    "FIRSTCOME__AUTH__TRUSTED_PROXIES",
                    "10.0.0.0/8, 192.168.1.7,fd00::/8",
                ),
            ],
            &[],
        )
        .unwrap();
        let networks: Vec<String> = config
            .auth
            .trusted_proxies
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(networks, ["10.0.0.0/8", "192.168.1.7/32", "fd00::/8"]);
        assert_eq!(config.shutdown_delay(), Duration::from_secs(5));
    }

    #[test]
    fn tokens_want_a_key_and_an_algorithm_or_a_set_of_keys() {
        let load = |keys: &[(&str, &str)]| {
            let flags: Vec<(String, &str)> = keys
                .iter()
                .map(|(key, value)| (format!("auth.{key}"), *value))
                .collect();
            load(
                "",
                &[],
                &flags
                    .iter()
                    .map(|(key, value)| (key.as_str(), *value))
                    .collect::<Vec<_>>(),
            )
        };
        let (mode, algorithm, key, set) = (
            ("mode", "jwt"),
            ("jwt.algorithm", "HS256"),
            ("jwt.key", "k"),
            ("jwt.jwks_file", "jwks.json"),
        );
        assert!(load(&[mode, algorithm, key]).is_ok() && load(&[mode, set]).is_ok());
        for (keys, name) in [
            (vec![mode], "auth.jwt.key"),
            (vec![mode, algorithm], "auth.jwt.key"),
            (vec![mode, key], "auth.jwt.algorithm"),
            (vec![mode, set, algorithm], "auth.jwt.algorithm"),
            (vec![mode, algorithm, key, set], "auth.jwt.jwks_file"),
            (vec![mode, algorithm, ("jwt.key", "[hidden]")], "auth.jwt.key"),
            (
                vec![mode, algorithm, ("jwt.key_file", "/nowhere")],
                "auth.jwt.key_file",
            ),
            (
                vec![mode, algorithm, key, ("jwt.key_file", "/nowhere")],
                "auth.jwt.key_file",
            ),
            // Without the mode no token would be looked at.
            (vec![algorithm, key], "auth.mode"),
            (vec![set], "auth.mode"),
            (vec![("jwt.issuer", "x")], "auth.mode"),
            (vec![("jwt.audience", "x")], "auth.mode"),
        ] {
            let error = load(&keys).unwrap_err();
            assert!(error.contains(name), "{keys:?}: {error}");
        }
    }

    #[test]
    fn the_key_of_tokens_is_a_secret_too() {
        let mut secret = tempfile::NamedTempFile::new().unwrap();
        secret.write_all(b"from-a-file-1234\n").unwrap();
        let path = secret.path().to_str().unwrap();
        let base = [("auth.mode", "jwt"), ("auth.jwt.algorithm", "HS256")];
        for (name, value) in [("auth.jwt.key", "from-a-file-1234"), ("auth.jwt.key_file", path)] {
            let config = load("", &[], &[base[0], base[1], (name, value)]).unwrap();
            assert_eq!(
                config.auth.jwt.key.as_ref().unwrap().expose_secret(),
                "from-a-file-1234"
            );
            let printed = config.to_toml().unwrap();
            assert!(
                !printed.contains("1234") && !format!("{config:?}").contains("1234"),
                "{printed}"
            );
        }
    }

    #[test]
    fn origins_and_rates_come_from_the_environment() {
        let pairs = [
            (
                "FIRSTCOME__HTTP__CORS_ORIGINS",
                "https://shop.example, http://localhost:3000",
            ),
            ("FIRSTCOME__LIMITS__USER_RATE", "0.5"),
            ("FIRSTCOME__LIMITS__USER_BURST", "4"),
        ];
        let config = load("", &pairs, &[]).unwrap();
        let origins: Vec<&str> = config
            .http
            .cors_origins
            .iter()
            .map(|origin| origin.as_str())
            .collect();
        assert_eq!(origins, ["https://shop.example", "http://localhost:3000"]);
        assert_eq!(
            (config.limits.user_rate, config.limits.burst(0.5).get()),
            (Some(0.5), 4)
        );
        let printed = config.to_toml().unwrap();
        assert_eq!(load(&printed, &[], &[]).unwrap().to_toml().unwrap(), printed);
        // Whole numbers are rates as well, and a burst is as much as one second's.
        let config = load("[limits]\nuser_rate = 5\n", &[], &[]).unwrap();
        assert_eq!(
            (
                config.limits.user_rate,
                config.limits.burst(5.0).get(),
                config.limits.burst(0.2).get()
            ),
            (Some(5.0), 5, 1)
        );
    }

    #[test]
    fn secrets_come_from_files_too_and_are_never_shown() {
        let mut secret = tempfile::NamedTempFile::new().unwrap();
        secret.write_all(b"from-a-file-1234\n").unwrap();
        let path = secret.path().to_str().unwrap();
        let config = load("", &[("FIRSTCOME__AUTH__ADMIN_TOKEN_FILE", path)], &[]).unwrap();
        assert_eq!(
            config.auth.admin_token.as_ref().unwrap().expose_secret(),
            "from-a-file-1234"
        );
        let printed = config.to_toml().unwrap();
        assert!(!printed.contains("1234") && !format!("{config:?}").contains("1234"));
        assert_eq!(load(&printed, &[], &[]).unwrap().to_toml().unwrap(), printed);

        let both = [
            ("FIRSTCOME__AUTH__ADMIN_TOKEN_FILE", path),
            ("FIRSTCOME__AUTH__ADMIN_TOKEN", "0123456789"),
        ];
        assert!(load("", &both, &[]).unwrap_err().contains("both set"));
    }

    #[test]
    fn tokens_of_digits_stay_as_they_are() {
        let config = load("", &[("FIRSTCOME__AUTH__ADMIN_TOKEN", "0012345678")], &[]).unwrap();
        assert_eq!(
            config.auth.admin_token.as_ref().unwrap().expose_secret(),
            "0012345678"
        );
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let config = load("", &[("FIRSTCOME__AUTH__TRUSTED_PROXIES", "10.0.0.0/8")], &[]).unwrap();
        let printed = config.to_toml().unwrap();
        assert_eq!(load(&printed, &[], &[]).unwrap().to_toml().unwrap(), printed);
    }
}
