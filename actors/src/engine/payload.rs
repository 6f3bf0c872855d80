//! The payload of the engine's links: requests to owners, and their answers.

use std::marker::PhantomData;

use prost::Message;

use crate::ids::{Epoch, ID_MAX};
use crate::link::frame::FrameError;
use crate::link::payload::{Payload, Undelivered};
use crate::owning::kind::{self, Kind};
use crate::owning::request::{Answer, Reply, Setback};
use crate::trace::{STATE_BYTES_MAX, TraceContext, TraceParent};

/// The payload of an engine of this kind.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct OwnerPayload<K>(PhantomData<K>);

/// A request for an owner on another node.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteAsk<K: Kind> {
    /// The owner's id.
    pub id: K::Id,
    /// The epoch in which the peer owns the shard, as far as the sender knows.
    pub epoch: Epoch,
    /// The request itself.
    pub ask: K::Ask,
    /// The span that forwards it, if the request is traced.
    pub trace: Option<Box<TraceParent>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireAsk {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    #[prost(bytes = "vec", tag = "3")]
    ask: Vec<u8>,
    /// Absent unless the request is traced. Former builds do not know this field, and skip it.
    #[prost(message, optional, tag = "4")]
    trace: Option<WireTrace>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireTrace {
    #[prost(bytes = "vec", tag = "1")]
    context: Vec<u8>,
    #[prost(string, tag = "2")]
    state: String,
}

impl WireTrace {
    fn of(trace: &TraceParent) -> Self {
        Self {
            context: trace.context.to_bytes().to_vec(),
            state: trace.state.as_deref().unwrap_or_default().to_owned(),
        }
    }

    fn read(self) -> Result<Box<TraceParent>, FrameError> {
        let context = TraceContext::from_bytes(&self.context).ok_or(FrameError::Wrong("trace"))?;
        if self.state.len() > STATE_BYTES_MAX {
            return Err(FrameError::Wrong("trace state"));
        }
        let state = (!self.state.is_empty()).then(|| self.state.into());
        Ok(Box::new(TraceParent { context, state }))
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireAnswer {
    #[prost(enumeration = "WireSetback", tag = "1")]
    setback: i32,
    #[prost(bytes = "vec", tag = "2")]
    outcome: Vec<u8>,
}

/// Reasons for the lack of a decision. The numbers never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum WireSetback {
    None = 0,
    Overloaded = 1,
    Moved = 2,
    StoreUnavailable = 3,
    Expired = 4,
    Unknown = 5,
}

impl From<kind::DecodeError> for FrameError {
    fn from(error: kind::DecodeError) -> Self {
        Self::Payload(error.to_string())
    }
}

impl From<Undelivered> for Setback {
    fn from(why: Undelivered) -> Self {
        match why {
            Undelivered::NotSent => Self::Moved,
            Undelivered::NoRoom => Self::Overloaded,
            Undelivered::Expired => Self::Expired,
            Undelivered::Unanswered => Self::Unknown,
        }
    }
}

impl<K: Kind> Payload for OwnerPayload<K> {
    type Ask = RemoteAsk<K>;
    type Answer = Answer<K>;
    type Reply = Reply<K>;

    fn version_of(ask: &RemoteAsk<K>) -> u32 {
        K::link_version(&ask.ask)
    }

    fn encode_ask(ask: RemoteAsk<K>) -> Vec<u8> {
        let mut id = Vec::with_capacity(8);
        K::encode_id(ask.id, &mut id);
        let ask = WireAsk {
            id,
            epoch: ask.epoch.get(),
            ask: K::encode_ask(ask.ask),
            trace: ask.trace.as_deref().map(WireTrace::of),
        };
        ask.encode_to_vec()
    }

    fn decode_ask(bytes: &[u8]) -> Result<RemoteAsk<K>, FrameError> {
        let WireAsk {
            id,
            epoch,
            ask,
            trace,
        } = WireAsk::decode(bytes)?;
        Ok(RemoteAsk {
            id: K::decode_id(&id)?,
            epoch: Epoch::new(
                (epoch <= ID_MAX)
                    .then_some(epoch)
                    .ok_or(FrameError::Wrong("epoch"))?,
            ),
            ask: K::decode_ask(&ask)?,
            trace: trace.map(WireTrace::read).transpose()?,
        })
    }

    fn encode_answer(answer: Answer<K>) -> Vec<u8> {
        let (setback, outcome) = match answer {
            Ok(outcome) => (WireSetback::None, K::encode_outcome(outcome)),
            Err(Setback::Overloaded) => (WireSetback::Overloaded, Vec::new()),
            Err(Setback::Moved) => (WireSetback::Moved, Vec::new()),
            Err(Setback::StoreUnavailable) => (WireSetback::StoreUnavailable, Vec::new()),
            Err(Setback::Expired) => (WireSetback::Expired, Vec::new()),
            Err(Setback::Unknown) => (WireSetback::Unknown, Vec::new()),
        };
        let setback = setback.into();
        WireAnswer { setback, outcome }.encode_to_vec()
    }

    fn decode_answer(bytes: &[u8]) -> Result<Answer<K>, FrameError> {
        let WireAnswer { setback, outcome } = WireAnswer::decode(bytes)?;
        let setback = WireSetback::try_from(setback).map_err(|_| FrameError::Wrong("setback"))?;
        Ok(match setback {
            WireSetback::None => Ok(K::decode_outcome(&outcome)?),
            WireSetback::Overloaded => Err(Setback::Overloaded),
            WireSetback::Moved => Err(Setback::Moved),
            WireSetback::StoreUnavailable => Err(Setback::StoreUnavailable),
            WireSetback::Expired => Err(Setback::Expired),
            WireSetback::Unknown => Err(Setback::Unknown),
        })
    }

    fn is_waited_for(reply: &Reply<K>) -> bool {
        reply.is_waited_for()
    }

    fn reply(reply: Reply<K>, answer: Result<Answer<K>, Undelivered>) {
        reply.send(answer.unwrap_or_else(|why| Err(why.into())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coupon::CouponKind;
    use crate::coupon::change::Change;
    use crate::coupon::ids::CouponId;

    type Owners = OwnerPayload<CouponKind>;

    /// The message as builds have it that know no traces.
    #[derive(Clone, PartialEq, prost::Message)]
    struct FormerAsk {
        #[prost(bytes = "vec", tag = "1")]
        id: Vec<u8>,
        #[prost(uint64, tag = "2")]
        epoch: u64,
        #[prost(bytes = "vec", tag = "3")]
        ask: Vec<u8>,
    }

    fn ask(trace: Option<Box<TraceParent>>) -> RemoteAsk<CouponKind> {
        RemoteAsk {
            id: CouponId::new(7).unwrap(),
            epoch: Epoch::new(3),
            ask: crate::coupon::change::ChangeRequest::from(Change::Pause).into(),
            trace,
        }
    }

    fn trace() -> Option<Box<TraceParent>> {
        Some(Box::new(TraceParent {
            context: TraceContext::root(),
            state: Some("vendor=a".into()),
        }))
    }

    #[test]
    fn a_request_is_read_with_its_trace() {
        for ask in [ask(trace()), ask(None)] {
            assert_eq!(Owners::decode_ask(&Owners::encode_ask(ask.clone())), Ok(ask));
        }
    }

    #[test]
    fn a_former_build_reads_a_traced_request_and_is_read() {
        let former = FormerAsk::decode(Owners::encode_ask(ask(trace())).as_slice()).unwrap();
        let untraced = Owners::encode_ask(ask(None));
        assert_eq!(former.encode_to_vec(), untraced);
        assert_eq!(Owners::decode_ask(&untraced), Ok(ask(None)));
    }

    #[test]
    fn a_trace_that_no_node_writes_is_refused() {
        let context = TraceContext::root().to_bytes().to_vec();
        let long = "x".repeat(STATE_BYTES_MAX + 1);
        for (context, state) in [(vec![0; 25], ""), (context[..24].to_vec(), ""), (context, &long)] {
            let state = state.to_owned();
            let wire = WireAsk {
                trace: Some(WireTrace { context, state }),
                ..WireAsk::decode(Owners::encode_ask(ask(None)).as_slice()).unwrap()
            };
            assert!(Owners::decode_ask(&wire.encode_to_vec()).is_err(), "{wire:?}");
        }
    }
}
