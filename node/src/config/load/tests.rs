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
fn the_defaults_are_a_single_node_on_loopback() {
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
fn flags_override_the_environment_and_the_environment_overrides_the_file() {
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
fn an_unknown_key_is_reported_whichever_source_has_it() {
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
        assert!(error.contains("unknown key") && error.contains(key), "{error}");
    }
}

#[test]
fn an_invalid_value_is_reported_with_its_key() {
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
            "FIRSTCOME__AUTH__ADMIN_TOKEN",
            "1234567",
            "auth.admin_token must be 8 to 512",
        ),
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
        ("FIRSTCOME__LOG__LEVEL", "verbose", "log.level"),
        ("FIRSTCOME__LOG__LEVEL", ",", "log.level"),
        ("FIRSTCOME__LOG__LEVEL", "info,node=", "log.level"),
        ("FIRSTCOME__LOG__LEVEL", "node[request]=debug", "log.level"),
        ("FIRSTCOME__LOG__LEVEL", "=info", "log.level"),
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
fn the_error_of_a_value_of_the_wrong_type_says_what_it_should_be() {
    for (key, value, error) in [
        (
            "auth.mode",
            "oauth",
            "auth.mode must be `header` or `jwt`, not \"oauth\"",
        ),
        (
            "log.format",
            "xml",
            "log.format must be `text` or `json`, not \"xml\"",
        ),
        (
            "store.lanes",
            "four",
            "store.lanes must be a whole number of at least 1, not \"four\"",
        ),
        (
            "http.connections_max",
            "-1",
            "http.connections_max must be a whole number of at least 1, not \"-1\"",
        ),
        (
            "limits.user_rate",
            "many",
            "limits.user_rate must be a number like 5 or 0.2, not \"many\"",
        ),
        (
            "limits.user_burst",
            "0",
            "limits.user_burst must be a whole number of at least 1, not \"0\"",
        ),
        (
            "http.deadline",
            "3",
            "http.deadline must be a duration like 300ms, 3s or 1m 15s, not \"3\"",
        ),
        (
            "http.listen",
            "8080",
            "must be an address and a port like 127.0.0.1:8080 or localhost:8080, not \"8080\"",
        ),
        ("auth.jwt.algorithm", "none", "auth.jwt.algorithm must be `HS256`"),
    ] {
        let found = load("", &[], &[(key, value)]).unwrap_err();
        assert!(found.contains(error), "{found}");
    }
    let secret = load("[auth]\nadmin_token = [\"secret-in-a-list\"]\n", &[], &[]).unwrap_err();
    assert!(
        secret.contains("auth.admin_token must be a string") && !secret.contains("in-a-list"),
        "{secret}"
    );
}

#[test]
fn a_variable_with_one_underscore_is_an_error_that_names_the_key() {
    let check = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned());
        check_variables(names).map_err(|error| error.to_string())
    };
    for (name, sets) in [
        (
            "FIRSTCOME_HTTP_LISTEN",
            "FIRSTCOME__HTTP__LISTEN sets http.listen",
        ),
        ("FIRSTCOME_DATA_DIR", "FIRSTCOME__DATA_DIR sets data_dir"),
        ("FIRSTCOME_STORE__UR", "FIRSTCOME__STORE__URL sets store.url"),
        ("FIRSTCOME_HTTP_ADDRESS", "FIRSTCOME_HTTP_ADDRESS sets nothing"),
    ] {
        let error = check(&["PATH", name]).unwrap_err();
        assert!(error.contains(sets), "{name}: {error}");
    }
    // Variables of tests, and those that Kubernetes sets for services named firstcome and firstcome-http.
    let others = [
        "FIRSTCOME_SEED",
        "FIRSTCOME_REQUIRE_DATABASES",
        "FIRSTCOME__HTTP__LISTEN",
        "FIRSTCOME_SERVICE_HOST",
        "FIRSTCOME_PORT",
        "FIRSTCOME_PORT_8080_TCP_ADDR",
        "FIRSTCOME_HTTP_SERVICE_PORT_WEB",
        "FIRSTCOME_HTTP_PORT_8080_TCP",
    ];
    assert_eq!(check(&others), Ok(()));
}

#[test]
fn the_error_of_an_unknown_key_names_the_nearest_key() {
    for (key, nearest) in [
        (
            "FIRSTCOME__HTTP_LISTEN",
            "unknown key http_listen; there is http.listen",
        ),
        (
            "FIRSTCOME__HTTP__LISTN",
            "unknown key http.listn; there is http.listen",
        ),
        ("FIRSTCOME__CLUSTER__COKIE_FILE", "there is cluster.cookie_file"),
    ] {
        let error = load("", &[(key, "x")], &[]).unwrap_err();
        assert!(error.contains(nearest), "{error}");
    }
}

#[test]
fn only_a_node_that_no_balancer_can_know_stops_without_a_delay() {
    for (listen, seconds) in [
        ("127.0.0.1:8080", 0),
        ("127.0.0.1:0", 0),
        ("127.0.0.1:8081", 5),
        ("[::1]:8080", 5),
    ] {
        let config = load("", &[], &[("http.listen", listen)]).unwrap();
        assert_eq!(config.shutdown_delay(), Duration::from_secs(seconds), "{listen}");
    }
}

#[test]
fn header_mode_needs_trusted_proxies_unless_on_loopback() {
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
fn jwt_mode_needs_either_a_key_and_an_algorithm_or_a_set_of_keys() {
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
    let (mode, algorithm, key, set, url) = (
        ("mode", "jwt"),
        ("jwt.algorithm", "HS256"),
        ("jwt.key", "k"),
        ("jwt.jwks_file", "jwks.json"),
        ("jwt.jwks_url", "https://id.example/keys"),
    );
    assert!(load(&[mode, algorithm, key]).is_ok() && load(&[mode, set]).is_ok());
    for (keys, name) in [
        (vec![mode], "auth.jwt.key"),
        (vec![mode, algorithm], "auth.jwt.key"),
        (vec![mode, key], "auth.jwt.algorithm"),
        (vec![mode, set, algorithm], "auth.jwt.algorithm"),
        (vec![mode, algorithm, key, set], "auth.jwt.jwks_file"),
        (vec![mode, algorithm, key, url], "auth.jwt.jwks_url"),
        (vec![mode, set, url], "auth.jwt.jwks_url are both set"),
        (vec![mode, algorithm, ("jwt.key", "[hidden]")], "auth.jwt.key"),
        (
            vec![mode, algorithm, ("jwt.key_file", "/nowhere")],
            "auth.jwt.key_file",
        ),
        (
            vec![mode, algorithm, key, ("jwt.key_file", "/nowhere")],
            "auth.jwt.key_file",
        ),
        // In header mode tokens are ignored.
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
fn the_key_of_tokens_is_hidden() {
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
    // A whole number is a valid rate as well. The default burst is the number of requests in one second.
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
fn secrets_from_files_are_hidden() {
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
fn a_quoted_key_and_an_unknown_empty_section_are_refused() {
    for file in ["[auth]\n\"jwt.issuer\" = \"https://id.example\"\n", "[stroe]\n"] {
        assert!(load(file, &[], &[]).is_err(), "{file}");
    }
    assert!(load("[store]\n[auth.jwt]\n", &[], &[]).is_ok());
}

#[test]
fn a_token_of_digits_stays_a_string() {
    let config = load("", &[("FIRSTCOME__AUTH__ADMIN_TOKEN", "0012345678")], &[]).unwrap();
    assert_eq!(
        config.auth.admin_token.as_ref().unwrap().expose_secret(),
        "0012345678"
    );
}

#[test]
fn the_printed_configuration_can_be_loaded() {
    let config = load("", &[("FIRSTCOME__AUTH__TRUSTED_PROXIES", "10.0.0.0/8")], &[]).unwrap();
    let printed = config.to_toml().unwrap();
    assert_eq!(load(&printed, &[], &[]).unwrap().to_toml().unwrap(), printed);
}

#[test]
fn a_former_name_gives_a_warning_and_conflicts_with_the_present_name() {
    let config = load(
        "[http]\nrequests_max = 7\n",
        &[],
        &[("http.coupon_requests_max", "3")],
    )
    .unwrap();
    assert_eq!(
        (config.limits.requests_max, config.limits.coupon_requests_max),
        (7, 3)
    );
    let warnings: Vec<String> = config.warnings().collect();
    assert_eq!(warnings.len(), 2);
    assert!(
        warnings[0].starts_with("http.requests_max is now limits.requests_max"),
        "{warnings:?}"
    );
    assert_eq!(load("", &[], &[]).unwrap().warnings().count(), 0);
    let both = [("FIRSTCOME__LIMITS__REQUESTS_MAX", "1")];
    let error = load("[http]\nrequests_max = 7\n", &both, &[]).unwrap_err();
    assert!(error.contains("remove http.requests_max"), "{error}");
}

#[test]
fn the_error_of_an_unknown_key_names_a_key_with_the_same_last_part() {
    let error = load("", &[("FIRSTCOME__HTTP__URL", "x")], &[]).unwrap_err();
    assert!(
        error.contains("unknown key http.url; there is store.url"),
        "{error}"
    );
}

#[test]
fn the_table_has_every_key_of_the_configuration_once() {
    fn leaves(prefix: &str, value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    leaves(&format!("{prefix}.{name}"), value, found);
                }
            }
            _ => found.push(prefix[1..].to_owned()),
        }
    }
    let mut serialized = Vec::new();
    leaves(
        "",
        &serde_json::to_value(Config::default()).unwrap(),
        &mut serialized,
    );
    serialized.sort();
    let mut table: Vec<&str> = Config::keys().map(|key| key.name).collect();
    table.sort_unstable();
    assert_eq!(table, serialized);
    for key in Config::keys() {
        assert!(
            !key.help().is_empty() && !key.help().contains('|'),
            "{}",
            key.name
        );
    }
}
