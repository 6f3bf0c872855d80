//! How a node's row names the nodes that it is linked to: one text for every database.

use crate::ids::{Incarnation, PEERS_MAX as LINKS_MAX};

/// Incarnations in decimal, separated by commas; of more than [`LINKS_MAX`], the first so many.
pub fn text_of(links: &[Incarnation]) -> String {
    let numbers: Vec<String> = links
        .iter()
        .take(LINKS_MAX)
        .map(|link| link.get().to_string())
        .collect();
    numbers.join(",")
}

/// The inverse of [`text_of`]; `None` for a text that it does not write.
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
    fn links_come_back_as_they_were_written_and_are_bounded() {
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
    fn what_no_node_writes_is_not_read() {
        for text in ["0", ",", "1,", "1,,2", "x", "1, 2", "9007199254740992"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
