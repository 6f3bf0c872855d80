//! Tallies on a link.

use actors::ids::RequestKey;
use actors::owning::door::filter::Filter;
use actors::owning::kind::DecodeError;
use prost::Message;

use super::{Add, AddOutcome, Addition, TallyHead, TallyId};

#[derive(Clone, PartialEq, prost::Message)]
struct WireAdd {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(uint64, tag = "2")]
    amount: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireOutcome {
    #[prost(uint32, tag = "1")]
    result: u32,
    #[prost(uint64, tag = "2")]
    tally: u64,
    #[prost(uint64, tag = "3")]
    number: u64,
    #[prost(uint64, tag = "4")]
    amount: u64,
    #[prost(uint64, tag = "5")]
    total: u64,
    #[prost(string, tag = "6")]
    key: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireNotice {
    #[prost(uint64, tag = "1")]
    tally: u64,
    #[prost(uint64, tag = "2")]
    bound: u64,
    #[prost(uint32, tag = "3")]
    bits: u32,
    #[prost(bytes = "vec", tag = "4")]
    keys: Vec<u8>,
}

const ADDED: u32 = 1;
const REPLAYED: u32 = 2;
const BEYOND_BOUND: u32 = 3;
const UNKNOWN_TALLY: u32 = 4;

fn request_key(text: &str) -> Result<RequestKey, DecodeError> {
    RequestKey::parse(text).map_err(|_| DecodeError::Wrong("request key"))
}

pub(super) fn ask(ask: &Add) -> Vec<u8> {
    let (key, amount) = (ask.key.as_str().to_owned(), ask.amount);
    WireAdd { key, amount }.encode_to_vec()
}

pub(super) fn read_ask(bytes: &[u8]) -> Result<Add, DecodeError> {
    let WireAdd { key, amount } = WireAdd::decode(bytes)?;
    let key = request_key(&key)?;
    Ok(Add { key, amount })
}

pub(super) fn outcome(outcome: AddOutcome) -> Vec<u8> {
    let of = |result, addition: Addition| WireOutcome {
        result,
        tally: addition.tally.0,
        number: addition.number,
        amount: addition.amount,
        total: addition.total,
        key: addition.key.as_str().to_owned(),
    };
    let outcome = match outcome {
        AddOutcome::Added(addition) => of(ADDED, addition),
        AddOutcome::Replayed(addition) => of(REPLAYED, addition),
        AddOutcome::BeyondBound { bound } => WireOutcome {
            result: BEYOND_BOUND,
            total: bound,
            ..WireOutcome::default()
        },
        AddOutcome::UnknownTally => WireOutcome {
            result: UNKNOWN_TALLY,
            ..WireOutcome::default()
        },
    };
    outcome.encode_to_vec()
}

pub(super) fn read_outcome(bytes: &[u8]) -> Result<AddOutcome, DecodeError> {
    let wire = WireOutcome::decode(bytes)?;
    let addition = || -> Result<Addition, DecodeError> {
        Ok(Addition {
            tally: TallyId(wire.tally),
            number: wire.number,
            amount: wire.amount,
            total: wire.total,
            key: request_key(&wire.key)?,
        })
    };
    match wire.result {
        ADDED => addition().map(AddOutcome::Added),
        REPLAYED => addition().map(AddOutcome::Replayed),
        BEYOND_BOUND => Ok(AddOutcome::BeyondBound { bound: wire.total }),
        UNKNOWN_TALLY => Ok(AddOutcome::UnknownTally),
        _ => Err(DecodeError::Wrong("result")),
    }
}

pub(super) fn notice(head: TallyHead, keys: &Filter) -> Vec<u8> {
    let (bits, keys) = keys.encode();
    let notice = WireNotice {
        tally: head.id.0,
        bound: head.bound,
        bits: u32::from(bits),
        keys,
    };
    notice.encode_to_vec()
}

pub(super) fn read_notice(bytes: &[u8]) -> Result<(TallyHead, Filter), DecodeError> {
    let WireNotice {
        tally,
        bound,
        bits,
        keys,
    } = WireNotice::decode(bytes)?;
    let id = TallyId(tally);
    Ok((TallyHead { id, bound }, Filter::decode(bits, &keys)?))
}
