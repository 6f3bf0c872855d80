//! The keys that principals send as bearer tokens: the admin token, and the named keys of `auth.keys_file`,
//! which is read again when it changes.

mod file;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actors::time::{self, Timestamp};
use arc_swap::ArcSwap;
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use self::file::KeyEntry;
use super::token::{BearerToken, Digest, digest};
use super::{Role, TokenRefusal, watched_file};
use crate::config::{Auth, InvalidConfig, RoleName};
use crate::metrics::{self, KeySource, KeysRead};

/// The name under which the admin token is a key.
pub(super) const ADMIN_KEY: &str = "admin";

/// The name of a key; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyName(Arc<str>);

impl KeyName {
    fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Returns the name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The admin token and the named keys.
#[derive(Debug)]
pub(crate) struct KeyRing {
    /// Only the digest of the token is stored. Comparing digests takes the same time for any input, so the
    /// time reveals neither bytes nor length.
    admin: Digest,
    admin_name: KeyName,
    path: Option<PathBuf>,
    named: ArcSwap<NamedKeys>,
}

/// The keys of one content of the file.
struct NamedKeys {
    /// Random, so that nothing can be learnt from the time of a lookup: a client that chooses tokens does not
    /// choose what is compared.
    salt: Digest,
    keys: HashMap<Digest, NamedKey>,
}

struct NamedKey {
    name: KeyName,
    role: Role,
    until: Option<Timestamp>,
}

impl KeyRing {
    /// Reads the keys. An error names the key of the configuration.
    pub(crate) fn new(admin_token: &SecretString, keys_file: Option<&Path>) -> Result<Self, InvalidConfig> {
        let admin = digest(admin_token.expose_secret());
        let named = match keys_file {
            Some(path) => read(path, Some(&admin))?,
            None => Vec::new(),
        };
        Ok(Self {
            admin,
            admin_name: KeyName::new(ADMIN_KEY),
            path: keys_file.map(Path::to_owned),
            named: ArcSwap::from_pointee(NamedKeys::new(named)),
        })
    }

    /// Checks the file that the configuration names. The admin token need not exist yet.
    pub(crate) fn check(auth: &Auth) -> Result<(), InvalidConfig> {
        let admin = auth
            .admin_token
            .as_ref()
            .map(|token| digest(token.expose_secret()));
        match &auth.keys_file {
            Some(path) => read(path, admin.as_ref()).map(drop),
            None => Ok(()),
        }
    }

    /// Returns the key whose secret a token is, with its role. Fails if the key has expired.
    pub(super) fn find(&self, token: &BearerToken<'_>) -> Result<Option<(KeyName, Role)>, TokenRefusal> {
        let BearerToken::Token { digest, .. } = token else {
            return Ok(None);
        };
        if self.admin.ct_eq(digest).into() {
            return Ok(Some((self.admin_name.clone(), Role::Admin)));
        }
        self.named.load().find(digest, time::timestamp())
    }

    /// Reads the file again when it changes, for as long as the future is polled. The former keys stay while
    /// the file is missing or wrong.
    pub(super) async fn reload(&self) {
        let Some(path) = &self.path else {
            return;
        };
        watched_file::watch(path, |text, is_first| match self.take(text) {
            Ok(keys) => {
                metrics::keys_read(KeySource::KeysFile, KeysRead::of(true, is_first));
                if !is_first {
                    tracing::info!(path = %path.display(), keys, "reloaded the named keys");
                }
            }
            Err(reason) => {
                metrics::keys_read(KeySource::KeysFile, KeysRead::Refused);
                tracing::error!(path = %path.display(), reason, "failed to reload the named keys; the old ones stay");
            }
        })
        .await;
    }

    /// Replaces the named keys. Returns how many there are.
    fn take(&self, text: io::Result<Vec<u8>>) -> Result<usize, String> {
        let text = text.map_err(|error| error.to_string())?;
        let keys = file::parse(&text, Some(&self.admin))?;
        let count = keys.len();
        self.named.store(NamedKeys::new(keys).into());
        Ok(count)
    }
}

fn read(path: &Path, admin: Option<&Digest>) -> Result<Vec<KeyEntry>, InvalidConfig> {
    let text = watched_file::read(path).map_err(|error| error.to_string());
    text.and_then(|text| file::parse(&text, admin))
        .map_err(|reason| InvalidConfig(format!("auth.keys_file: {}: {reason}", path.display())))
}

impl NamedKeys {
    fn new(entries: Vec<KeyEntry>) -> Self {
        let salt: Digest = rand::rng().random();
        let keys = entries.into_iter().map(|entry| {
            let key = NamedKey {
                name: KeyName::new(&entry.name),
                role: entry.role.into(),
                until: entry.until,
            };
            (salted(&salt, &entry.digest), key)
        });
        Self {
            salt,
            keys: keys.collect(),
        }
    }

    fn find(&self, digest: &Digest, now: Timestamp) -> Result<Option<(KeyName, Role)>, TokenRefusal> {
        if self.keys.is_empty() {
            return Ok(None);
        }
        match self.keys.get(&salted(&self.salt, digest)) {
            Some(key) if key.until.is_some_and(|until| now >= until) => Err(TokenRefusal::KeyOver),
            key => Ok(key.map(|key| (key.name.clone(), key.role))),
        }
    }
}

fn salted(salt: &Digest, digest: &Digest) -> Digest {
    Sha256::new()
        .chain_update(salt)
        .chain_update(digest)
        .finalize()
        .into()
}

impl fmt::Debug for NamedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NamedKeys").field(&self.keys.len()).finish()
    }
}

/// A secret that was made for a key, and the entry that names it in the file.
pub(crate) struct NewKey {
    /// The secret, which is stored nowhere.
    pub(crate) secret: String,
    /// The entry in TOML.
    pub(crate) entry: String,
}

/// Makes a secret for a key.
///
/// # Errors
///
/// If the name is not valid; the error says why.
pub(crate) fn new_key(name: &str, role: RoleName, until: Option<Timestamp>) -> Result<NewKey, String> {
    file::check_name(name)?;
    let secret = super::random_secret();
    let entry = KeyEntry {
        name: name.to_owned(),
        role,
        digest: digest(&secret),
        until,
    };
    Ok(NewKey {
        secret,
        entry: entry.to_toml(),
    })
}

#[cfg(test)]
mod tests;
