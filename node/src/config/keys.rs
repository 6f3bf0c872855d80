//! The table of configuration keys. Keys are declared with `section!`, which is the only place for a key's
//! name, type, default, check and help.

use serde_json::Value;

use super::{Config, InvalidConfig};

/// One configuration key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name, like `http.listen`.
    pub name: &'static str,
    /// The kind of its value, like `duration`.
    pub kind: &'static str,
    /// What the key means.
    help: &'static [&'static str],
    /// What applies if the key is not set and has no default value.
    unset: Option<&'static str>,
}

impl Key {
    /// Makes a key with the lines of its help.
    pub(super) const fn new(
        name: &'static str,
        kind: &'static str,
        help: &'static [&'static str],
        unset: Option<&'static str>,
    ) -> Self {
        Self {
            name,
            kind,
            help,
            unset,
        }
    }

    /// Returns what the key means, on one line.
    pub fn help(&self) -> String {
        let lines: Vec<&str> = self.help.iter().map(|line| line.trim()).collect();
        lines.join(" ")
    }

    /// Returns the default in TOML; `None` if the key is not set by default.
    pub fn default(&self) -> Option<String> {
        let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
        let value = self.name.split('.').fold(&defaults, |value, part| &value[part]);
        match value {
            Value::Null => None,
            value => Some(value.to_string()),
        }
    }
}

/// Keys that were renamed, each with its present name. The former names are still read, with a warning.
pub(super) const FORMER_KEYS: [(&str, &str); 2] = [
    ("http.requests_max", "limits.requests_max"),
    ("http.coupon_requests_max", "limits.coupon_requests_max"),
];

/// Returns the table in Markdown, for the documentation.
pub fn markdown() -> String {
    let mut table = String::from("| key | type | default | meaning |\n|---|---|---|---|\n");
    for key in Config::keys() {
        let default = match (key.default(), key.unset) {
            (Some(default), _) => format!("`{default}`"),
            (None, Some(unset)) => unset.to_owned(),
            (None, None) => "none".to_owned(),
        };
        let row = [&format!("`{}`", key.name), key.kind, &default, &key.help()].join(" | ");
        table.push_str(&format!("| {row} |\n"));
    }
    table
}

/// Fails if a key is not in the table. The error names a key with the same last part, if there is such a key.
pub(super) fn check_known(name: &str) -> Result<(), InvalidConfig> {
    let is_former = || FORMER_KEYS.iter().any(|(former, _)| *former == name);
    if Config::keys().any(|key| key.name == name) || is_former() {
        return Ok(());
    }
    let last = |name: &str| name.rsplit('.').next().map(str::to_owned);
    let similar = Config::keys().find(|key| last(key.name) == last(name));
    let hint = similar.map_or_else(String::new, |key| format!("; there is {}", key.name));
    Err(InvalidConfig(format!("unknown key {name}{hint}")))
}

/// Checks that the section with this name has a key, present or former.
pub(super) fn check_known_section(name: &str) -> Result<(), InvalidConfig> {
    let section = format!("{name}.");
    let is_in_it = |key: &str| key.starts_with(&section);
    let has_former = FORMER_KEYS.iter().any(|(former, _)| is_in_it(former));
    if has_former || Config::keys().any(|key| is_in_it(key.name)) {
        Ok(())
    } else {
        Err(InvalidConfig(format!("unknown section {name}")))
    }
}

/// Declares a section: its struct, its defaults, its keys and their checks.
///
/// A key is declared as `name: Type = default, "kind"`. It also has `check = function` if some values of the
/// type are not allowed, and `unset = "…"` to say what applies if there is no default. The doc comment of a
/// key is its help. Nested sections follow after `sections`, and fields that are not keys follow after
/// `not_keys`.
macro_rules! section {
    (
        $(#[doc = $doc:literal])*
        pub struct $section:ident in $prefix:literal {
            $(
                $(#[doc = $help:literal])*
                $(#[serde($($serde:tt)*)])?
                $name:ident: $type:ty = $default:expr, $kind:literal
                $(, check = $check:expr)?
                $(, unset = $unset:literal)?;
            )*
        }
        $(sections {
            $(
                $(#[doc = $nested_doc:literal])*
                $nested:ident: $nested_type:ty;
            )*
        })?
        $(not_keys {
            $(
                $(#[doc = $skipped_doc:literal])*
                $skipped:ident: $skipped_type:ty;
            )*
        })?
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, serde::Deserialize, serde::Serialize)]
        #[serde(default)]
        pub struct $section {
            $(
                $(#[doc = $help])*
                $(#[serde($($serde)*)])?
                pub $name: $type,
            )*
            $($(
                $(#[doc = $nested_doc])*
                pub $nested: $nested_type,
            )*)?
            $($(
                $(#[doc = $skipped_doc])*
                #[serde(skip)]
                $skipped: $skipped_type,
            )*)?
        }

        impl Default for $section {
            fn default() -> Self {
                Self {
                    $($name: $default,)*
                    $($($nested: Default::default(),)*)?
                    $($($skipped: Default::default(),)*)?
                }
            }
        }

        impl $section {
            const OWN_KEYS: &'static [$crate::config::keys::Key] = &[$(
                $crate::config::keys::Key::new(
                    concat!($prefix, stringify!($name)),
                    $kind,
                    &[$($help),*],
                    [$(Some($unset),)? None][0],
                ),
            )*];

            /// The keys of this section and of its nested sections.
            pub fn keys() -> Box<dyn Iterator<Item = &'static $crate::config::keys::Key>> {
                let own = Self::OWN_KEYS.iter();
                $($(let own = own.chain(<$nested_type>::keys());)*)?
                Box::new(own)
            }

            /// Checks each value on its own.
            pub(in crate::config) fn check_values(&self) -> Result<(), $crate::config::InvalidConfig> {
                $($(
                    let check: fn(&$type) -> Result<(), String> = $check;
                    check(&self.$name).map_err(|message| {
                        let key = concat!($prefix, stringify!($name));
                        $crate::config::InvalidConfig(format!("{key} {message}"))
                    })?;
                )?)*
                $($(self.$nested.check_values()?;)*)?
                Ok(())
            }
        }
    };
}

pub(super) use section;
