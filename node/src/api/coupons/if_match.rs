//! `If-Match`: which versions of a coupon a request may change.

use http::header::IF_MATCH;

use crate::http::head::Head;
use crate::http::problem::RequestError;

/// Maximum number of tags. A client knows one version, or the few versions that its own changes made.
const TAGS_MAX: usize = 16;

/// A version that no coupon has: versions count from 1.
const NO_VERSION: u64 = 0;

/// Returns the versions that the request names. The coupon must have one of them; if there are none, any
/// version will do.
///
/// A weak tag counts as a strong one, because proxies that compress weaken tags. A tag that no coupon can
/// have, like one that is not a number, becomes [`NO_VERSION`].
pub(super) fn versions(head: &Head) -> Result<Vec<u64>, RequestError> {
    const FORM: &str = "a version in quotes like \"3\", a list of versions, or *";

    let malformed = |why: &str| RequestError::Malformed(format!("If-Match must be {why}"));
    let values = head.headers.get_all(IF_MATCH).iter();
    let values = values.map(|value| value.to_str().map_err(|_| malformed("ASCII")));
    let values = values.collect::<Result<Vec<_>, _>>()?;
    if values.is_empty() || matches!(values[..], [value] if value.trim() == "*") {
        return Ok(Vec::new());
    }
    // Several lines of a header are one list.
    let list = values.join(",");
    let (mut rest, mut versions) = (list.as_str(), Vec::new());
    loop {
        // A list may have empty elements.
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            break;
        }
        let (tag, after) = tag(rest).ok_or_else(|| malformed(FORM))?;
        versions.push(version(tag));
        rest = after;
    }
    match versions.len() {
        0 => Err(malformed(FORM)),
        1..=TAGS_MAX => Ok(versions),
        _ => Err(malformed("at most 16 versions")),
    }
}

/// Splits the first tag off: its text without quotes, and what follows it.
fn tag(text: &str) -> Option<(&str, &str)> {
    let quoted = text.strip_prefix("W/").unwrap_or(text).strip_prefix('"')?;
    let (tag, after) = quoted.split_once('"')?;
    let after = after.trim_start_matches([' ', '\t']);
    (after.is_empty() || after.starts_with(',')).then_some((tag, after))
}

/// Returns the version that this tag names. A version has only one spelling: `06` is not 6.
fn version(tag: &str) -> u64 {
    let number = tag.parse().ok();
    number
        .filter(|number: &u64| number.to_string() == tag)
        .unwrap_or(NO_VERSION)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http::{HeaderMap, HeaderValue, Method};

    use super::*;

    fn versions_of(values: &[&str]) -> Result<Vec<u64>, RequestError> {
        let values = values
            .iter()
            .map(|value| (IF_MATCH, HeaderValue::from_str(value).unwrap()));
        let mut headers = HeaderMap::new();
        headers.extend(values);
        versions(&Head::new(
            Method::PATCH,
            String::new(),
            headers,
            Ipv4Addr::LOCALHOST.into(),
        ))
    }

    #[test]
    fn if_match_takes_strong_and_weak_tags_and_lists_of_them() {
        let cases: [(&[&str], &[u64]); 9] = [
            (&[], &[]),
            (&["*"], &[]),
            (&[" * "], &[]),
            (&["\"3\""], &[3]),
            (&["W/\"3\""], &[3]),
            (&["\"3\", W/\"4\" ,\"5\""], &[3, 4, 5]),
            (&[",\"3\",,\"4\","], &[3, 4]),
            (&["\"3\"", "W/\"4\""], &[3, 4]),
            (&["\"a,b\", \"3\""], &[NO_VERSION, 3]),
        ];
        for (values, expected) in cases {
            assert_eq!(versions_of(values).unwrap(), expected, "{values:?}");
        }
    }

    #[test]
    fn a_tag_that_no_coupon_has_matches_no_version() {
        for value in [
            "\"three\"",
            "\"\"",
            "\"-3\"",
            "\"06\"",
            "\"+6\"",
            "\"6 \"",
            "W/\"06\"",
        ] {
            assert_eq!(versions_of(&[value]).unwrap(), [NO_VERSION], "{value}");
        }
    }

    #[test]
    fn a_value_that_is_not_a_list_of_tags_is_malformed() {
        let many = ["\"1\""; TAGS_MAX + 1].join(",");
        for value in [
            "3",
            "\"3",
            "\"3\" \"4\"",
            "",
            ",",
            "w/\"3\"",
            "*, \"3\"",
            "\"3\", *",
            &many,
        ] {
            assert!(
                matches!(versions_of(&[value]), Err(RequestError::Malformed(_))),
                "{value}"
            );
        }
    }
}
