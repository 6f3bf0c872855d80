//! The sample configuration and the documentation match the table of keys.

use std::collections::BTreeMap;
use std::path::PathBuf;

use node::config::{Config, keys};

/// Comments around the table in `docs/configuration.md`.
const BEGIN: &str = "<!-- table of keys -->";
const END: &str = "<!-- end of the table of keys -->";

fn file(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", path].iter().collect()
}

/// Returns the values of the sample by key; `None` for keys that are commented out.
fn sample() -> BTreeMap<String, Option<String>> {
    let text = std::fs::read_to_string(file("cluster-config/node.toml")).unwrap();
    let (mut section, mut keys) = (String::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            section = format!("{name}.");
            continue;
        }
        let (is_comment, assignment) = line.strip_prefix("# ").map_or((false, line), |rest| (true, rest));
        let Some((name, value)) = assignment.split_once(" = ") else {
            continue;
        };
        if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            continue;
        }
        let value = value.split(" #").next().unwrap().trim().to_owned();
        keys.insert(format!("{section}{name}"), (!is_comment).then_some(value));
    }
    keys
}

#[test]
fn the_sample_has_every_key_at_its_default() {
    let sample = sample();
    for key in Config::keys() {
        let Some(value) = sample.get(key.name) else {
            // A secret is given in a file, or in the environment.
            let in_file = format!("{}_file", key.name);
            assert!(sample.contains_key(&in_file), "{} is missing", key.name);
            continue;
        };
        assert_eq!(*value, key.default(), "{}", key.name);
    }
    for name in sample.keys() {
        assert!(Config::keys().any(|key| key.name == name), "{name} is not a key");
    }
}

/// With `UPDATE_DOCS` in the environment the table is written rather than compared.
#[test]
fn the_documentation_has_the_table_of_keys() {
    let path = file("docs/configuration.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect(BEGIN);
    let (table, after) = rest.split_once(END).expect(END);
    let generated = keys::markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}\n{generated}{END}{after}")).unwrap();
    } else {
        assert_eq!(
            table.trim(),
            generated.trim(),
            "run this test with UPDATE_DOCS=1 to write the table"
        );
    }
}
