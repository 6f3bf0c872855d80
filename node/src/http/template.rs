//! Path templates like `/v1/coupons/{id}`, with at most one parameter.
//!
//! Each request is compared with several templates, so a comparison looks at bytes and splits nothing.

use std::ops::Range;

/// Matches a path against a template. Returns the place of the parameter in the path. The place is empty if
/// the template has no parameter.
pub(crate) fn matches(template: &str, path: &str) -> Option<Range<usize>> {
    let Some(start) = template.bytes().position(|byte| byte == b'{') else {
        return (template == path).then_some(0..0);
    };
    let end = template.bytes().rposition(|byte| byte == b'}')?;
    let rest = path.strip_prefix(&template[..start])?;
    let value = rest.strip_suffix(&template[end + 1..])?;
    let is_segment = !value.is_empty() && !value.bytes().any(|byte| byte == b'/');
    is_segment.then(|| start..start + value.len())
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
