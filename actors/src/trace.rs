//! Traces: what happens to a request on its way, as spans that are handed to a receiver.
//!
//! The engine neither chooses which requests are traced nor sends spans anywhere. It continues the spans that
//! it is given, over links too, and hands each span that has ended to a [`SpanReceiver`]. A span that is not
//! recorded is an empty pointer: it costs neither an allocation nor a reading of a clock.

use std::borrow::Cow;
use std::fmt::{self, Debug, Display};
use std::num::{NonZeroU64, NonZeroU128};
use std::sync::{Arc, Mutex, PoisonError};

use crate::time::{self, Timestamp};

/// Length of a context on a link: trace id, span id and flags.
pub const CONTEXT_BYTES: usize = 16 + 8 + 1;
/// Maximum length of a trace state. W3C Trace Context asks for at least as much.
pub const STATE_BYTES_MAX: usize = 512;
/// Maximum number of links of a span, as in OpenTelemetry. Further links are counted.
pub const LINKS_MAX: usize = 128;

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 0x01;
/// The flag of a trace id whose last seven bytes are random.
const RANDOM: u8 = 0x02;

/// A span's identity, as W3C Trace Context defines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: NonZeroU128,
    span_id: NonZeroU64,
    flags: u8,
}

impl TraceContext {
    /// Makes a context; `None` if an id is 0.
    pub fn new(trace_id: u128, span_id: u64, flags: u8) -> Option<Self> {
        Some(Self {
            trace_id: NonZeroU128::new(trace_id)?,
            span_id: NonZeroU64::new(span_id)?,
            flags,
        })
    }

    /// Makes the context of the first span of a new trace, which is recorded.
    pub fn root() -> Self {
        let trace_id = NonZeroU128::new(rand::random()).unwrap_or(NonZeroU128::MIN);
        Self {
            trace_id,
            span_id: span_id(),
            flags: SAMPLED | RANDOM,
        }
    }

    /// Returns the context of a new span in this trace.
    fn child(self) -> Self {
        Self {
            span_id: span_id(),
            ..self
        }
    }

    /// Returns the id of the trace.
    pub fn trace_id(self) -> u128 {
        self.trace_id.get()
    }

    /// Returns the id of the span.
    pub fn span_id(self) -> u64 {
        self.span_id.get()
    }

    /// Returns the flags.
    pub fn flags(self) -> u8 {
        self.flags
    }

    /// Returns true if the trace is recorded.
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Writes the context for another node.
    pub fn to_bytes(self) -> [u8; CONTEXT_BYTES] {
        let mut bytes = [0; CONTEXT_BYTES];
        bytes[..16].copy_from_slice(&self.trace_id().to_be_bytes());
        bytes[16..24].copy_from_slice(&self.span_id().to_be_bytes());
        bytes[24] = self.flags;
        bytes
    }

    /// Reads a context that another node wrote; `None` if the bytes are no context.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (trace_id, rest) = bytes.split_first_chunk()?;
        let (span_id, rest) = rest.split_first_chunk()?;
        let &[flags] = rest else { return None };
        Self::new(
            u128::from_be_bytes(*trace_id),
            u64::from_be_bytes(*span_id),
            flags,
        )
    }
}

fn span_id() -> NonZeroU64 {
    NonZeroU64::new(rand::random()).unwrap_or(NonZeroU64::MIN)
}

/// As the header `traceparent` has it.
impl Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trace_id,
            span_id,
            flags,
        } = self;
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{flags:02x}")
    }
}

/// What a span continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent {
    /// The span that is continued.
    pub context: TraceContext,
    /// What other tracing systems added to the trace, as the header `tracestate` has it.
    pub state: Option<Arc<str>>,
}

/// A value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(Cow<'static, str>),
    /// A number.
    Number(i64),
    /// A truth value.
    Truth(bool),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Truth(truth)
    }
}

/// The role of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// A request of another process, which this process answers.
    Server,
    /// A request to another process.
    Client,
    /// Work within this process.
    Internal,
}

/// What was recorded of a span.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanRecord {
    /// Its identity.
    pub context: TraceContext,
    /// The id of the span that it continues.
    pub parent: Option<u64>,
    /// True if another process made that span.
    pub has_remote_parent: bool,
    /// What other tracing systems added to the trace.
    pub state: Option<Arc<str>>,
    /// What was done.
    pub name: Cow<'static, str>,
    /// Its role.
    pub kind: SpanKind,
    /// When it began.
    pub began_at: Timestamp,
    /// When it ended; `None` while it has not ended.
    pub ended_at: Option<Timestamp>,
    /// Its attributes.
    pub attributes: Vec<(&'static str, Value)>,
    /// What happened in it, and when.
    pub events: Vec<(&'static str, Timestamp)>,
    /// Other spans that it has to do with, at most [`LINKS_MAX`].
    pub links: Vec<TraceContext>,
    /// Number of links that are missing.
    pub links_dropped: u32,
    /// Why it failed, if it failed.
    pub failure: Option<Cow<'static, str>>,
}

impl SpanRecord {
    /// Adds an attribute.
    pub fn note(&mut self, key: &'static str, value: impl Into<Value>) {
        self.attributes.push((key, value.into()));
    }

    /// Adds what happened at this time.
    pub fn event(&mut self, name: &'static str, at: Timestamp) {
        self.events.push((name, at));
    }

    /// Adds a link.
    pub fn link(&mut self, to: TraceContext) {
        if self.links.len() < LINKS_MAX {
            self.links.push(to);
        } else {
            self.links_dropped = self.links_dropped.saturating_add(1);
        }
    }

    /// Marks the span as failed.
    pub fn fail(&mut self, why: impl Into<Cow<'static, str>>) {
        self.failure = Some(why.into());
    }
}

/// Gets the spans that have ended.
pub trait SpanReceiver: Debug + Send + Sync {
    /// Takes a span. Must not wait.
    fn receive(&self, span: SpanRecord);
}

/// Where the spans of a node go, if anywhere; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Spans(Option<Arc<dyn SpanReceiver>>);

impl Spans {
    /// Makes the spans of a node that hands them to this receiver.
    pub fn to(receiver: Arc<dyn SpanReceiver>) -> Self {
        Self(Some(receiver))
    }

    /// Returns true if spans go anywhere.
    pub fn are_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Begins the first span of a new trace.
    pub fn root(&self, name: &'static str, kind: SpanKind) -> Span {
        self.0.as_ref().map_or_else(Span::default, |receiver| {
            let parent = TraceParent {
                context: TraceContext::root(),
                state: None,
            };
            Span::begin(receiver, parent, None, name, kind)
        })
    }

    /// Begins a span that continues one of another process or task. It is recorded if that one is.
    pub fn continued(&self, parent: &TraceParent, name: &'static str, kind: SpanKind) -> Span {
        let receiver = self.0.as_ref().filter(|_| parent.context.is_sampled());
        receiver.map_or_else(Span::default, |receiver| {
            let own = TraceParent {
                context: parent.context.child(),
                state: parent.state.clone(),
            };
            let span = Span::begin(receiver, own, Some(parent.context), name, kind);
            span.edit(|record| record.has_remote_parent = kind == SpanKind::Server);
            span
        })
    }
}

/// A span that has begun, or nothing. It ends when it is dropped, unless [`Self::end`] ended it before.
#[derive(Debug, Default)]
pub struct Span(Option<Box<Recording>>);

#[derive(Debug)]
struct Recording {
    receiver: Arc<dyn SpanReceiver>,
    /// What children continue.
    own: TraceParent,
    record: Mutex<SpanRecord>,
}

impl Recording {
    /// Ends the span if it has not ended, and hands it to the receiver. Most spans are not recorded, so this
    /// is kept out of the code that drops them.
    #[cold]
    fn hand_over(self: Box<Self>) {
        let Self { receiver, record, .. } = *self;
        let mut record = record.into_inner().unwrap_or_else(PoisonError::into_inner);
        record.ended_at = record.ended_at.or_else(|| Some(time::timestamp()));
        receiver.receive(record);
    }
}

impl Span {
    fn begin(
        receiver: &Arc<dyn SpanReceiver>,
        own: TraceParent,
        parent: Option<TraceContext>,
        name: &'static str,
        kind: SpanKind,
    ) -> Self {
        let record = SpanRecord {
            context: own.context,
            parent: parent.map(TraceContext::span_id),
            has_remote_parent: false,
            state: own.state.clone(),
            name: name.into(),
            kind,
            began_at: time::timestamp(),
            ended_at: None,
            attributes: Vec::new(),
            events: Vec::new(),
            links: Vec::new(),
            links_dropped: 0,
            failure: None,
        };
        Self(Some(Box::new(Recording {
            receiver: Arc::clone(receiver),
            own,
            record: Mutex::new(record),
        })))
    }

    /// Begins a part of this span. It is recorded if this span is.
    #[must_use]
    #[inline]
    pub fn child(&self, name: &'static str, kind: SpanKind) -> Self {
        self.0.as_ref().map_or_else(Self::default, |recording| {
            let own = TraceParent {
                context: recording.own.context.child(),
                state: recording.own.state.clone(),
            };
            Self::begin(&recording.receiver, own, Some(recording.own.context), name, kind)
        })
    }

    /// Returns true if the span is recorded.
    #[inline]
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Returns what spans of other tasks and processes continue; `None` if the span is not recorded.
    #[inline]
    pub fn as_parent(&self) -> Option<TraceParent> {
        self.0.as_ref().map(|recording| recording.own.clone())
    }

    /// Returns its identity; `None` if the span is not recorded.
    #[inline]
    pub fn context(&self) -> Option<TraceContext> {
        self.0.as_ref().map(|recording| recording.own.context)
    }

    /// Changes what is recorded. Does nothing if the span is not recorded.
    #[inline]
    pub fn edit(&self, edit: impl FnOnce(&mut SpanRecord)) {
        if let Some(recording) = &self.0 {
            edit(&mut recording.record.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Records that this happened now.
    pub fn event(&self, name: &'static str) {
        self.edit(|record| record.event(name, time::timestamp()));
    }

    /// Ends the span now, though it is dropped later.
    #[inline]
    pub fn end(&self) {
        self.edit(|record| record.ended_at = record.ended_at.or_else(|| Some(time::timestamp())));
    }
}

impl Drop for Span {
    #[inline]
    fn drop(&mut self) {
        if let Some(recording) = self.0.take() {
            recording.hand_over();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Received(Mutex<Vec<SpanRecord>>);

    impl SpanReceiver for Received {
        fn receive(&self, span: SpanRecord) {
            self.0.lock().unwrap().push(span);
        }
    }

    #[test]
    fn a_context_is_read_as_it_was_written_and_no_other_bytes_are_one() {
        let context = TraceContext::root();
        assert_eq!(TraceContext::from_bytes(&context.to_bytes()), Some(context));
        let bytes = context.to_bytes();
        let longer = [&bytes[..], &[0]].concat();
        for wrong in [
            &[][..],
            &bytes[..24],
            &longer,
            &[0; CONTEXT_BYTES],
            &[&bytes[..16], &[0; 9]].concat(),
        ] {
            assert_eq!(TraceContext::from_bytes(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn spans_form_a_tree_and_go_to_the_receiver_when_they_end() {
        let received = Arc::new(Received::default());
        let spans = Spans::to(Arc::clone(&received) as Arc<dyn SpanReceiver>);
        let root = spans.root("root", SpanKind::Server);
        let child = root.child("child", SpanKind::Client);
        let far = spans.continued(&child.as_parent().unwrap(), "far", SpanKind::Server);
        for span in [far, child, root] {
            drop(span);
        }
        let records = received.0.lock().unwrap();
        let [far, child, root] = &records[..] else {
            panic!("{records:?}")
        };
        assert_eq!((root.parent, root.has_remote_parent), (None, false));
        assert_eq!(child.parent, Some(root.context.span_id()));
        assert_eq!(
            (far.parent, far.has_remote_parent),
            (Some(child.context.span_id()), true)
        );
        let traces = [far, child, root].map(|record| record.context.trace_id());
        assert!(traces.iter().all(|trace| *trace == traces[0]), "{records:?}");
        assert!(
            records
                .iter()
                .all(|record| record.ended_at >= Some(record.began_at))
        );
    }

    #[test]
    fn nothing_is_recorded_without_a_receiver_or_of_a_trace_that_is_not_recorded() {
        let off = Spans::default().root("root", SpanKind::Server);
        assert!(!off.is_recorded() && !off.child("child", SpanKind::Internal).is_recorded());
        assert_eq!(size_of::<Span>(), size_of::<usize>(), "an empty pointer");
        let received = Arc::new(Received::default());
        let spans = Spans::to(Arc::clone(&received) as Arc<dyn SpanReceiver>);
        let context = TraceContext::new(1, 2, 0).unwrap();
        let parent = TraceParent { context, state: None };
        drop(spans.continued(&parent, "unsampled", SpanKind::Server));
        assert_eq!(received.0.lock().unwrap().len(), 0);
    }

    #[test]
    fn links_beyond_the_bound_are_counted() {
        let received = Arc::new(Received::default());
        let span =
            Spans::to(Arc::clone(&received) as Arc<dyn SpanReceiver>).root("batch", SpanKind::Internal);
        for _ in 0..LINKS_MAX + 3 {
            span.edit(|record| record.link(TraceContext::root()));
        }
        drop(span);
        let record = &received.0.lock().unwrap()[0];
        assert_eq!((record.links.len(), record.links_dropped), (LINKS_MAX, 3));
    }
}
