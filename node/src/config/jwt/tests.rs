use std::collections::HashMap;
use std::io::Write;

use config::Environment;

use super::*;
use crate::config::{Config, Sources};

fn load(file: &str, pairs: &[(&str, &str)]) -> Result<Jwt, String> {
    let mut on_disk = tempfile::NamedTempFile::new().unwrap();
    let mode = "[auth]\nmode = \"jwt\"\n[auth.jwt]\njwks_url = \"https://id.example/keys\"\n";
    write!(on_disk, "{mode}{file}").unwrap();
    let pairs = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let environment = Environment::with_prefix("FIRSTCOME").source(Some(pairs.collect::<HashMap<_, _>>()));
    let sources = Sources {
        file: Some(on_disk.path().to_owned()),
        flags: Vec::new(),
    };
    let loaded = sources.load_over(environment);
    loaded
        .map(|config| config.auth.jwt)
        .map_err(|error| error.to_string())
}

fn expected() -> BTreeMap<String, RoleName> {
    [("Shop:Admins", RoleName::Admin), ("tills.x", RoleName::Service)]
        .map(|(name, role)| (name.to_owned(), role))
        .into()
}

#[test]
fn names_of_roles_are_a_table_in_a_file_and_a_string_in_the_environment() {
    let table = "[auth.jwt.roles]\n\"Shop:Admins\" = \"admin\"\n\"tills.x\" = \"service\"\n";
    assert_eq!(load(table, &[]).unwrap().roles, Some(expected()));
    let variable = (
        "FIRSTCOME__AUTH__JWT__ROLES",
        "Shop:Admins=admin, tills.x = service",
    );
    assert_eq!(load("", &[variable]).unwrap().roles, Some(expected()));
    // The environment replaces the table of the file.
    let other = "[auth.jwt.roles]\nother = \"viewer\"\n";
    assert_eq!(load(other, &[variable]).unwrap().roles, Some(expected()));
    assert!(load("", &[]).unwrap().roles.is_none());
    for (file, pairs) in [
        ("[auth.jwt.roles]\na = \"root\"\n", &[][..]),
        ("[auth.jwt.roles]\na = 5\n", &[]),
        ("", &[("FIRSTCOME__AUTH__JWT__ROLES", "a=root")]),
        ("", &[("FIRSTCOME__AUTH__JWT__ROLES", "admin")]),
    ] {
        let error = load(file, pairs).unwrap_err();
        assert!(error.contains("auth.jwt.roles"), "{file}{pairs:?}: {error}");
    }
}

#[test]
fn the_effective_configuration_has_the_names_of_roles() {
    let mut config = Config::default();
    config.auth.jwt.roles = Some(expected());
    let text = config.to_toml().unwrap();
    assert!(text.contains("[auth.jwt.roles]"), "{text}");
    let differences = config.differences().unwrap();
    assert!(
        differences
            .iter()
            .any(|line| line.contains("Shop:Admins") && line.contains("admin")),
        "{differences:?}"
    );
}

#[test]
fn claims_and_urls_that_cannot_be_meant_are_refused() {
    for (line, name) in [
        ("user_claim = \"\"", "auth.jwt.user_claim"),
        ("role_claim = \"a..b\"", "auth.jwt.role_claim"),
        ("role_claim = \".a\"", "auth.jwt.role_claim"),
    ] {
        let error = load(line, &[]).unwrap_err();
        assert!(error.contains(name), "{line}: {error}");
    }
    for url in ["http://id.example/keys", "id.example", "file:///keys"] {
        let error = load("", &[("FIRSTCOME__AUTH__JWT__JWKS_URL", url)]).unwrap_err();
        assert!(error.contains("auth.jwt.jwks_url"), "{url}: {error}");
    }
}
