//! Path templates like `/v1/coupons/{id}`, with at most one parameter.

use std::ops::Range;

/// Matches a path against a template. Returns the place of the parameter in the path. The place is empty if
/// the template has no parameter.
pub(crate) fn matches(template: &str, path: &str) -> Option<Range<usize>> {
    let mut parameter = 0..0;
    let mut expected = template.split('/');
    let mut start = 0;
    for segment in path.split('/') {
        let wanted = expected.next()?;
        let end = start + segment.len();
        if wanted.starts_with('{') && !segment.is_empty() {
            parameter = start..end;
        } else if wanted != segment {
            return None;
        }
        start = end + 1;
    }
    expected.next().is_none().then_some(parameter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_matches_its_template_and_no_other() {
        let id = "/v1/coupons/{id}/issuances";
        assert_eq!(matches(id, "/v1/coupons/42/issuances"), Some(12..14));
        assert_eq!(matches("/livez", "/livez"), Some(0..0));
        for path in [
            "",
            "/",
            "*",
            "/v1/coupons/42",
            "/v1/coupons//issuances",
            "/v1/coupons/42/issuances/7",
            "/v1/coupons/42/issuances/",
            "//v1/coupons/42/issuances",
            "v1/coupons/42/issuances",
            "/v1/coupons/42/issuance",
        ] {
            assert_eq!(matches(id, path), None, "{path}");
        }
        assert_eq!(matches("/docs/{file}", "/docs/"), None);
    }
}
