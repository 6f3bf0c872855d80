//! The text of `auth.keys_file`: TOML with an entry `[[keys]]` for each key.

use std::collections::BTreeSet;

use actors::time::Timestamp;
use serde::Deserialize;
use toml::Value;

use super::ADMIN_KEY;
use crate::config::RoleName;
use crate::service::auth::Role;
use crate::service::auth::token::Digest;

/// Maximum number of keys. A company has some dozens of programs that call the service.
const KEYS_MAX: usize = 1_000;

/// Maximum length of a name, which is shown and stored with every change.
const NAME_CHARS_MAX: usize = 64;

/// A key of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyEntry {
    /// The name, which no other key has.
    pub(super) name: String,
    /// The role.
    pub(super) role: RoleName,
    /// SHA-256 of the secret.
    pub(super) digest: Digest,
    /// From when on the key is refused.
    pub(super) until: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    keys: Vec<RawKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    name: String,
    role: RoleName,
    sha256: String,
    until: Option<Value>,
}

/// Parses the file. `admin` is the digest of the admin token, which no key may have. A message does
/// not quote the value of `sha256`: someone may have written a secret there.
pub(super) fn parse(text: &[u8], admin: Option<&Digest>) -> Result<Vec<KeyEntry>, String> {
    let text = std::str::from_utf8(text).map_err(|_| "is not UTF-8".to_owned())?;
    let file: KeysFile = toml::from_str(text).map_err(|error| described(&error, text))?;
    if file.keys.len() > KEYS_MAX {
        return Err(format!("holds more than {KEYS_MAX} keys"));
    }
    let (mut names, mut digests) = (BTreeSet::new(), BTreeSet::new());
    let mut keys = Vec::with_capacity(file.keys.len());
    for (index, raw) in file.keys.into_iter().enumerate() {
        let key = entry(raw).map_err(|reason| format!("key {}: {reason}", index + 1))?;
        let name = &key.name;
        if !names.insert(name.clone()) {
            return Err(format!("two keys have the name {name:?}"));
        }
        if !digests.insert(key.digest) || admin == Some(&key.digest) {
            return Err(format!("the secret of the key {name:?} is that of another key"));
        }
        keys.push(key);
    }
    Ok(keys)
}

/// Returns what is wrong with the TOML, and in which line, without its text.
fn described(error: &toml::de::Error, text: &str) -> String {
    if text.trim().is_empty() {
        return "is empty; a file without keys has the line `keys = []`".to_owned();
    }
    let line = |start: usize| text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
    let place = error
        .span()
        .map_or_else(String::new, |span| format!("line {}: ", line(span.start)));
    format!("{place}{}", error.message())
}

fn entry(raw: RawKey) -> Result<KeyEntry, String> {
    check_name(&raw.name)?;
    let mut digest = Digest::default();
    hex::decode_to_slice(&raw.sha256, &mut digest)
        .map_err(|_| "sha256 must be the SHA-256 of the secret: 64 hexadecimal digits".to_owned())?;
    let until = raw.until.map(|value| {
        let text = match value {
            Value::Datetime(time) => time.to_string(),
            Value::String(text) => text,
            _ => String::new(),
        };
        Timestamp::parse(&text)
            .ok_or_else(|| "until must be a time with an offset, like 2027-01-31T00:00:00Z".to_owned())
    });
    Ok(KeyEntry {
        name: raw.name,
        role: raw.role,
        digest,
        until: until.transpose()?,
    })
}

/// Checks the name of a key.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name == ADMIN_KEY {
        Err(format!("the name {ADMIN_KEY} is that of the admin token"))
    } else if (1..=NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(is_allowed) {
        Ok(())
    } else {
        Err(format!(
            "a name has 1 to {NAME_CHARS_MAX} letters, digits, dashes, dots and underscores"
        ))
    }
}

impl KeyEntry {
    /// Returns the entry as it stands in the file.
    pub(super) fn to_toml(&self) -> String {
        let Self {
            name,
            role,
            digest,
            until,
        } = self;
        let role = Role::from(*role).name();
        let digest = hex::encode(digest);
        let until = until.map_or_else(String::new, |until| format!("until = {until}\n"));
        format!("[[keys]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{digest}\"\n{until}")
    }
}
