//! What differs from the defaults, for one line of the log.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{Config, InvalidConfig};

impl Config {
    /// Returns the settings in effect that differ from the defaults, like `log.format = "json"`, with secrets
    /// hidden.
    pub fn differences(&self) -> Result<Vec<String>, InvalidConfig> {
        let (own, default) = (values(self)?, values(&Self::default())?);
        let differing = own.iter().filter(|(key, value)| default.get(*key) != Some(value));
        Ok(differing.map(|(key, value)| format!("{key} = {value}")).collect())
    }
}

/// Returns the values in effect by the names of their keys.
fn values(config: &Config) -> Result<BTreeMap<String, Value>, InvalidConfig> {
    let table = Table::try_from(config.effective()?).map_err(|error| InvalidConfig(error.to_string()))?;
    let mut values = BTreeMap::new();
    collect("", table, &mut values);
    Ok(values)
}

fn collect(prefix: &str, table: Table, values: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        match value {
            Value::Table(section) => collect(&format!("{key}."), section, values),
            value => {
                values.insert(key, value);
            }
        }
    }
}
