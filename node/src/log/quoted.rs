//! Texts of clients and other programs in the log.

use std::fmt::{self, Display, Write as _};

/// Maximum number of characters of a text that a line quotes: enough for all names in use.
const QUOTED_CHARS_MAX: usize = 64;

/// Shows the first characters of a text that a client or another program chose, which may be kilobytes.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(QUOTED_CHARS_MAX) {
            None => write!(f, "{}", self.0.escape_debug()),
            Some((end, _)) => {
                write!(f, "{}", self.0[..end].escape_debug())?;
                f.write_char('…')
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_quoted_in_part() {
        assert_eq!(Quoted("PATCH").to_string(), "PATCH");
        assert_eq!(Quoted(&"é".repeat(64)).to_string(), "é".repeat(64));
        assert_eq!(
            Quoted(&"é".repeat(65)).to_string(),
            format!("{}…", "é".repeat(64))
        );
        assert_eq!(Quoted("a\nb").to_string(), "a\\nb");
    }
}
