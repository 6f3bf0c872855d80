//! README.md and the configuration know the same keys, with the same defaults.

use std::collections::BTreeMap;

use node::config::Config;
use serde_json::Value;

/// Every key with its value, `http.listen` and the like.
fn flatten(prefix: &str, value: &Value, keys: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let key = if prefix.is_empty() {
                    name.clone()
                } else {
                    format!("{prefix}.{name}")
                };
                flatten(&key, value, keys);
            }
        }
        _ => {
            keys.insert(prefix.to_owned(), value.clone());
        }
    }
}

/// The texts between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_readme_lists_every_key_with_its_default_and_no_other() {
    let mut keys = BTreeMap::new();
    flatten("", &serde_json::to_value(Config::default()).unwrap(), &mut keys);
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let section = readme
        .split("\n## Configuration\n")
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap();
    let mut listed = Vec::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert!(
            cells.len() == 3 && cells.iter().all(|cell| !cell.is_empty()),
            "{row}"
        );
        for key in quoted(cells[0]) {
            listed.push(key.to_owned());
            let default = match keys.get(key).unwrap_or_else(|| panic!("no such key: {key}")) {
                // Where nothing is set, the table says in words what then holds.
                Value::Null => continue,
                Value::Array(values) if values.is_empty() => "none".to_owned(),
                Value::String(text) => format!("`{text}`"),
                value => format!("`{value}`"),
            };
            assert_eq!(cells[1], default, "{key}");
        }
    }
    listed.sort();
    assert_eq!(listed, keys.into_keys().collect::<Vec<_>>());
}
