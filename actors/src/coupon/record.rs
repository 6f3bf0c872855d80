//! What the audit log keeps of a change: who made it, and what it asked for.

use crate::time::Timestamp;

/// Maximum length of [`ChangeRecord::asked`] in bytes: that of a request's body, and room around it.
pub const ASKED_BYTES_MAX: usize = 17 * 1024;

/// Maximum length of an author's name: that of a user's id.
const NAME_BYTES_MAX: usize = 128;

/// What made a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorKind {
    /// A user with a role.
    User,
    /// A named key.
    Key,
}

/// Who made a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeAuthor {
    kind: AuthorKind,
    name: String,
}

impl ChangeAuthor {
    /// Makes an author. `None` if the name is not 1 to 128 visible ASCII characters.
    pub fn new(kind: AuthorKind, name: &str) -> Option<Self> {
        let is_name =
            (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
        let name = name.to_owned();
        is_name.then_some(Self { kind, name })
    }

    /// Returns what the author is.
    pub fn kind(&self) -> AuthorKind {
        self.kind
    }

    /// Returns the author's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the text of the column: kind and name.
    pub fn column(&self) -> String {
        let kind = match self.kind {
            AuthorKind::User => "user",
            AuthorKind::Key => "key",
        };
        format!("{kind} {}", self.name)
    }

    /// Reads the text of the column. `None` if it is not such a text.
    pub fn parse(column: &str) -> Option<Self> {
        let (kind, name) = column.split_once(' ')?;
        let kind = match kind {
            "user" => AuthorKind::User,
            "key" => AuthorKind::Key,
            _ => return None,
        };
        Self::new(kind, name)
    }
}

/// Who made a change, and what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRecord {
    /// Who made it.
    pub author: ChangeAuthor,
    /// What it asked for, in the words of the client; at most [`ASKED_BYTES_MAX`].
    pub asked: String,
}

/// One row of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRow {
    /// The version of the coupon after the change.
    pub version: u64,
    /// When it was made.
    pub changed_at: Timestamp,
    /// `None` if a node of the previous release received it.
    pub record: Option<ChangeRecord>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_is_read_from_the_column_as_it_was_written() {
        for author in [
            ChangeAuthor::new(AuthorKind::User, "auth0|alice").unwrap(),
            ChangeAuthor::new(AuthorKind::Key, &"x".repeat(128)).unwrap(),
        ] {
            assert_eq!(ChangeAuthor::parse(&author.column()), Some(author));
        }
        for text in ["", "key", "key ", "key a b", "root a", "user \u{e9}", "keyx"] {
            assert_eq!(ChangeAuthor::parse(text), None, "{text:?}");
        }
        assert_eq!(ChangeAuthor::new(AuthorKind::Key, &"x".repeat(129)), None);
    }
}
