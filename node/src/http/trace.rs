//! W3C Trace Context: the trace of a request, for the log and the response, and the choice of the requests
//! that are traced.
//!
//! The response has `traceresponse`, as in the working group's draft: the same trace and flags, with a span
//! of this node. A malformed `traceparent` is ignored, as the recommendation requires.

use std::sync::Arc;

use actors::trace::{STATE_BYTES_MAX, Span, SpanKind, Spans, TraceContext, TraceParent};
use http::{HeaderMap, HeaderName, HeaderValue};

const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
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
    parent_id: &'a str,
    flags: &'a str,
}

/// The flags whose meaning is known: the trace is recorded, and its id is random.
const FLAGS: u8 = 0b11;

/// Chooses the requests that are traced.
#[derive(Debug, Clone, Default)]
pub struct Sampler {
    spans: Spans,
    paths: &'static str,
    ratio: f64,
}

impl Sampler {
    /// Makes a sampler that begins a trace with this share of the requests that belong to none and whose path
    /// begins with `paths`.
    pub(crate) fn new(spans: Spans, paths: &'static str, ratio: f64) -> Self {
        Self { spans, paths, ratio }
    }

    /// Begins the span of a request, if the request is traced.
    pub(super) fn begin(&self, headers: &HeaderMap, path: &str) -> Span {
        if !self.spans.are_recorded() {
            return Span::default();
        }
        match Trace::of(headers).and_then(|trace| trace.context()) {
            Some(context) => {
                let state = if context.is_sampled() {
                    state(headers)
                } else {
                    None
                };
                let parent = TraceParent { context, state };
                self.spans.continued(&parent, "request", SpanKind::Server)
            }
            None if path.starts_with(self.paths) && rand::random::<f64>() < self.ratio => {
                self.spans.root("request", SpanKind::Server)
            }
            None => Span::default(),
        }
    }
}

/// Returns the trace state, which may be in several headers. One that is too long or not ASCII is left out.
fn state(headers: &HeaderMap) -> Option<Arc<str>> {
    let values = headers.get_all(TRACESTATE).iter().map(HeaderValue::to_str);
    let values: Vec<&str> = values.collect::<Result<_, _>>().ok()?;
    let state = values.join(",");
    (1..=STATE_BYTES_MAX).contains(&state.len()).then(|| state.into())
}

/// Returns the header of the response to a request with this span and this trace.
pub(super) fn response(span: &Span, trace: Option<Trace<'_>>) -> Option<HeaderValue> {
    match span.context() {
        Some(context) => HeaderValue::try_from(context.to_string()).ok(),
        None => trace.and_then(|trace| trace.response()),
    }
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
        is_valid.then_some(Self {
            trace_id,
            parent_id,
            flags,
        })
    }

    /// Returns the span that the request continues.
    fn context(&self) -> Option<TraceContext> {
        let flags = u8::from_str_radix(self.flags, 16).ok()?;
        TraceContext::new(
            u128::from_str_radix(self.trace_id, 16).ok()?,
            u64::from_str_radix(self.parent_id, 16).ok()?,
            flags & FLAGS,
        )
    }

    /// Returns the header of the response: the trace, and a new span.
    fn response(&self) -> Option<HeaderValue> {
        let span = rand::random::<u64>().max(1);
        HeaderValue::try_from(format!("00-{}-{span:016x}-{}", self.trace_id, self.flags)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actors::trace::{SpanReceiver, SpanRecord};

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

    #[derive(Debug)]
    struct Nowhere;

    impl SpanReceiver for Nowhere {
        fn receive(&self, _span: SpanRecord) {}
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_request_is_traced_as_its_caller_traces_it_and_any_other_by_the_share() {
        let [sampled, unsampled] = ["03", "02"].map(|flags| format!("00-{ID}-00f067aa0ba902b7-{flags}"));
        let long = "x".repeat(STATE_BYTES_MAX + 1);
        let (none, all) = (0.0, 1.0);
        for (ratio, path, pairs, state) in [
            (none, "/readyz", vec![("traceparent", &*sampled)], Some(None)),
            (
                none,
                "/api/coupons",
                vec![
                    ("traceparent", &sampled),
                    ("tracestate", "a=1"),
                    ("tracestate", "b=2"),
                ],
                Some(Some("a=1,b=2")),
            ),
            (
                none,
                "/api/coupons",
                vec![("traceparent", &sampled), ("tracestate", &long)],
                Some(None),
            ),
            (all, "/api/coupons", vec![("traceparent", &unsampled)], None),
            (all, "/api/coupons", vec![("tracestate", "a=1")], Some(None)),
            (
                all,
                "/api/coupons",
                vec![("traceparent", "malformed")],
                Some(None),
            ),
            (all, "/readyz", vec![], None),
            (none, "/api/coupons", vec![], None),
        ] {
            let sampler = Sampler::new(Spans::to(Arc::new(Nowhere)), "/api/", ratio);
            let span = sampler.begin(&headers(&pairs), path);
            let parent = span.as_parent();
            let found = parent.as_ref().map(|parent| parent.state.as_deref());
            assert_eq!(found, state, "{path} {pairs:?}");
            if pairs.iter().any(|(_, value)| *value == sampled) {
                let context = parent.unwrap().context;
                assert_eq!(
                    (format!("{:032x}", context.trace_id()), context.flags()),
                    (ID.to_owned(), 3)
                );
            }
        }
        let off = Sampler::default().begin(&headers(&[("traceparent", &sampled)]), "/api/coupons");
        assert!(!off.is_recorded());
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
