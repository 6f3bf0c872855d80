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

    /// What a value of the wrong type should be, with an example. `None` if the error of the value itself
    /// says more.
    pub(super) fn expected(&self) -> Option<String> {
        let expected = match self.kind {
            "duration" => "a duration like 300ms, 3s or 1m 15s",
            "number" => "a whole number of at least 1",
            "number, also below 1" => "a number like 5 or 0.2",
            "path" => "a path",
            "table of roles" => "a table of names with their roles, like shop-admins = \"admin\"",
            "string" | "levels" | "URL" => "a string",
            "address" | "host and port" => return None,
            kind if kind.starts_with("list of") || kind.contains("sample:N") => return None,
            kind if kind.starts_with(|first: char| first.is_ascii_digit()) => {
                return Some(format!("a string of {kind}"));
            }
            kind if self.is_secret() => return Some(format!("a string: the {kind}")),
            kind => kind,
        };
        Some(expected.to_owned())
    }

    /// True if its value must not be shown.
    pub(super) fn is_secret(&self) -> bool {
        self.kind.contains("secret") || self.kind == "URL"
    }

    /// The environment variable that sets the key.
    pub(super) fn variable(&self) -> String {
        format!("FIRSTCOME__{}", self.name.to_uppercase().replace('.', "__"))
    }

    /// The default in TOML; `None` if the key is not set by default.
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

/// Fails if a key is not in the table. The error names the nearest key, or else one with the same last part.
pub(super) fn check_known(name: &str) -> Result<(), InvalidConfig> {
    let is_former = || FORMER_KEYS.iter().any(|(former, _)| *former == name);
    if Config::keys().any(|key| key.name == name) || is_former() {
        return Ok(());
    }
    let last = |name: &str| name.rsplit('.').next().map(str::to_owned);
    let similar = nearest(name).or_else(|| Config::keys().find(|key| last(key.name) == last(name)));
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

/// Returns the key whose name is nearest to a text; `None` if more than a few letters differ. Separators do
/// not count.
fn nearest(text: &str) -> Option<&'static Key> {
    let text = letters(text);
    let distance = |key: &Key| strsim::damerau_levenshtein(&letters(key.name), &text);
    let nearest = Config::keys().min_by_key(|key| distance(key))?;
    (distance(nearest) <= text.len() / 5).then_some(nearest)
}

fn letters(text: &str) -> String {
    let letters = text.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|letter| letter.to_ascii_lowercase()).collect()
}

/// Fails if an environment variable is meant as a key, but is not read because it has a single underscore
/// after the prefix. What follows the prefix shows that a key is meant: the name of a section, or nearly the
/// name of a key.
pub(super) fn check_variable(name: &str) -> Result<(), InvalidConfig> {
    let Some(rest) = name.strip_prefix("FIRSTCOME_") else {
        return Ok(());
    };
    if rest.starts_with('_') || is_of_kubernetes(rest) {
        return Ok(());
    }
    let near = nearest(rest);
    let first = rest.split('_').next().unwrap_or_default().to_lowercase();
    let is_of_section = |key: &Key| {
        key.name
            .split_once('.')
            .is_some_and(|(section, _)| section == first)
    };
    if near.is_none() && !Config::keys().any(is_of_section) {
        return Ok(());
    }
    let hint = near.map_or_else(String::new, |key| {
        format!("; {} sets {}", key.variable(), key.name)
    });
    Err(InvalidConfig(format!(
        "the environment variable {name} sets nothing: write two underscores after FIRSTCOME, and two for \
         each dot of the key{hint}"
    )))
}

/// True if Kubernetes sets such a variable for a service whose name begins with `firstcome`.
fn is_of_kubernetes(rest: &str) -> bool {
    let words: Vec<&str> = rest.split('_').collect();
    let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    words.last() == Some(&"PORT")
        || words
            .windows(2)
            .any(|pair| matches!(pair, ["SERVICE", "HOST" | "PORT"]))
        || words
            .windows(3)
            .any(|three| matches!(three, ["PORT", number, "TCP" | "UDP" | "SCTP"] if is_number(number)))
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
