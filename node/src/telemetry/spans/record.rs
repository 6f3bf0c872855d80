//! Conversion of spans to those of the OpenTelemetry library.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use actors::time::Timestamp;
use actors::trace::{SpanKind, SpanRecord, TraceContext, Value};
use opentelemetry::trace::{
    Event, Link, SpanContext, SpanId, SpanKind as Kind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue, Value as Otlp};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

pub(super) fn convert(span: SpanRecord) -> SpanData {
    let state = span.state.as_deref().and_then(|state| state.parse().ok());
    let mut events = SpanEvents::default();
    let event = |(name, at)| Event::new(name, time(at), Vec::new(), 0);
    events.events = span.events.into_iter().map(event).collect();
    let mut links = SpanLinks::default();
    let link = |to| Link::with_context(context(to, TraceState::default()));
    links.links = span.links.into_iter().map(link).collect();
    links.dropped_count = span.links_dropped;
    let attribute = |(key, value)| KeyValue::new(key, otlp(value));
    SpanData {
        span_context: context(span.context, state.unwrap_or_default()),
        parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from),
        parent_span_is_remote: span.has_remote_parent,
        span_kind: match span.kind {
            SpanKind::Server => Kind::Server,
            SpanKind::Client => Kind::Client,
            SpanKind::Internal => Kind::Internal,
        },
        name: span.name,
        start_time: time(span.began_at),
        end_time: time(span.ended_at.unwrap_or(span.began_at)),
        attributes: span.attributes.into_iter().map(attribute).collect(),
        dropped_attributes_count: 0,
        events,
        links,
        status: span.failure.map_or(Status::Unset, Status::error),
        instrumentation_scope: InstrumentationScope::builder("firstcome").build(),
    }
}

fn context(context: TraceContext, state: TraceState) -> SpanContext {
    SpanContext::new(
        TraceId::from(context.trace_id()),
        SpanId::from(context.span_id()),
        TraceFlags::new(context.flags()),
        false,
        state,
    )
}

fn otlp(value: Value) -> Otlp {
    match value {
        Value::Text(Cow::Borrowed(text)) => text.into(),
        Value::Text(Cow::Owned(text)) => text.into(),
        Value::Number(number) => number.into(),
        Value::Truth(truth) => truth.into(),
    }
}

/// Times before 1970 count as its beginning.
fn time(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(at.as_micros()).unwrap_or(0))
}
