//! The text in a node's row that names the nodes to which it is linked. All databases use the same text.

use crate::ids::{Incarnation, PEERS_MAX as LINKS_MAX};

/// Returns the first [`LINKS_MAX`] incarnations in decimal, separated by commas.
pub fn text_of(links: &[Incarnation]) -> String {
    let numbers: Vec<String> = links
        .iter()
        .take(LINKS_MAX)
        .map(|link| link.get().to_string())
        .collect();
    numbers.join(",")
}

/// Parses a text that [`text_of`] returned. Returns `None` if it is not a list of incarnations.
pub fn parse(text: &str) -> Option<Vec<Incarnation>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    text.split(',')
        .map(|number| number.parse().ok().and_then(Incarnation::new))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_as_they_were_written_and_are_bounded() {
        let links: Vec<Incarnation> = (1..=100).filter_map(Incarnation::new).collect();
        for many in [0, 1, 2, LINKS_MAX] {
            assert_eq!(parse(&text_of(&links[..many])).unwrap(), links[..many]);
        }
        assert_eq!(parse(&text_of(&links)).unwrap(), links[..LINKS_MAX]);
        // The column of the server databases has room for this many bytes.
        let longest = vec![Incarnation::new(crate::ids::ID_MAX).unwrap(); LINKS_MAX];
        assert!(text_of(&longest).len() <= 1088);
    }

    #[test]
    fn a_text_that_no_node_writes_is_refused() {
        for text in ["0", ",", "1,", "1,,2", "x", "1, 2", "9007199254740992"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
