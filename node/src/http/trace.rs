//! W3C Trace Context: the trace of a request, for the log and the response.
//!
//! The response has `traceresponse`, as in the working group's draft: the same trace and flags, with a span
//! of this node. A malformed `traceparent` is ignored, as the recommendation requires.

use http::{HeaderMap, HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Header of responses.
pub(super) const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// Length of version, trace id, parent id and flags, with the dashes between them.
const VALUE_BYTES: usize = 2 + 1 + 32 + 1 + 16 + 1 + 2;

/// A request's place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trace<'a> {
    /// 32 lower-case hexadecimal digits, not all 0.
    pub(super) trace_id: &'a str,
    flags: &'a str,
}

impl<'a> Trace<'a> {
    /// Returns the trace of these headers, if they have exactly one `traceparent` and it is valid.
    pub(super) fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value.to_str().ok()?),
            _ => None,
        }
    }

    /// Parses a value of any version: later versions may append fields after another dash.
    fn parse(text: &'a str) -> Option<Self> {
        let known = text.get(..VALUE_BYTES)?;
        let mut fields = known.split('-');
        let (version, trace_id, parent_id, flags) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let is_hex = |field: &str, digits| {
            field.len() == digits
                && field
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_id = |field: &str, digits| is_hex(field, digits) && field.bytes().any(|byte| byte != b'0');
        let ends_well =
            text.len() == VALUE_BYTES || (version != "00" && text.as_bytes()[VALUE_BYTES] == b'-');
        let is_valid = is_hex(version, 2)
            && version != "ff"
            && is_id(trace_id, 32)
            && is_id(parent_id, 16)
            && is_hex(flags, 2)
            && ends_well;
        is_valid.then_some(Self { trace_id, flags })
    }

    /// Returns the header of the response: the trace, and a new span.
    pub(super) fn response(&self) -> Option<HeaderValue> {
        let span = rand::random::<u64>().max(1);
        HeaderValue::try_from(format!("00-{}-{span:016x}-{}", self.trace_id, self.flags)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn parse(text: &str) -> Option<String> {
        Trace::parse(text).map(|trace| trace.trace_id.to_owned())
    }

    #[test]
    fn valid_traces_are_parsed_including_those_of_later_versions() {
        for text in [
            format!("00-{ID}-00f067aa0ba902b7-01"),
            format!("01-{ID}-00f067aa0ba902b7-00"),
            format!("cc-{ID}-00f067aa0ba902b7-01-more"),
        ] {
            assert_eq!(parse(&text).as_deref(), Some(ID), "{text}");
        }
    }

    #[test]
    fn a_malformed_trace_is_ignored() {
        for text in [
            String::new(),
            "00".to_owned(),
            format!("ff-{ID}-00f067aa0ba902b7-01"),
            format!("00-{ID}-00f067aa0ba902b7-01-more"),
            format!("00-{ID}-00f067aa0ba902b7-01x"),
            format!("01-{ID}-00f067aa0ba902b7-01x"),
            format!("00-{}-00f067aa0ba902b7-01", ID.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{ID}-0000000000000000-01"),
            format!("00-{ID}-00f067aa0ba902b7-0"),
            format!("00_{ID}_00f067aa0ba902b7_01"),
            format!("00-{}-00f067aa0ba902b7-01", "g".repeat(32)),
            format!("00-{}é-00f067aa0ba902b7-01", "a".repeat(30)),
        ] {
            assert_eq!(parse(&text), None, "{text}");
        }
    }

    #[test]
    fn the_response_names_the_trace_and_a_new_span() {
        let text = format!("00-{ID}-00f067aa0ba902b7-01");
        let response = Trace::parse(&text).unwrap().response().unwrap();
        let response = response.to_str().unwrap();
        assert_eq!(parse(response).as_deref(), Some(ID), "{response}");
        assert!(
            response.ends_with("-01") && !response.contains("00f067aa0ba902b7"),
            "{response}"
        );
    }
}
