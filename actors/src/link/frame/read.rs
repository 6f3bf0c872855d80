//! Bytes to values, every one of them checked: what a peer sends is believed as little as what a client
//! sends.

use std::time::Duration;

use prost::Message;
use prost::bytes::Bytes;

use super::wire;
use super::{
    Answer, Asked, FRAME_BYTES_MAX, Frame, Header, INVALID_MAX, ITEM_BYTES_MAX, ITEMS_MAX, Item,
    NOTICE_BYTES_MAX, Notice, PRELOAD_MAX, REMAINING_MAX, RemoteRequest, TEXT_BYTES_MAX, VERSION_OF_HELLO,
    VERSIONS_MAX,
};
use crate::coupon::offer::{
    Coupon, Discount, DiscountKind, DiscountPatch, InvalidField, Issuance, Offer, OfferPatch, Status,
};
use crate::ids::{
    CouponId, Epoch, ID_MAX, Incarnation, IssuanceId, NodeId, RequestKey, Sequence, ShardId, UserId,
};
use crate::link::hello::{Hello, VERSIONS};
use crate::owning::message::{
    Change, ChangeAnswer, ChangeDone, ChangeOutcome, ChangeRefusal, IssueAnswer, IssueOutcome, Refusal,
    Setback,
};
use crate::time::Timestamp;

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// More than [`FRAME_BYTES_MAX`].
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    /// More items than [`ITEMS_MAX`], or one that is too long.
    #[error("a frame of {0} items has too many, or one too long")]
    TooMany(usize),
    /// No protocol buffers of that shape.
    #[error("a frame is malformed: {0}")]
    Malformed(String),
    /// A version that this release does not speak.
    #[error("a frame is of version {0}, which this release does not speak")]
    Version(u32),
    /// A field holds what it may not.
    #[error("a frame has a wrong {0}")]
    Wrong(&'static str),
}

type Result<T> = std::result::Result<T, Unreadable>;

impl From<prost::DecodeError> for Unreadable {
    fn from(error: prost::DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// What must be there, by the name of where it should be.
trait Must<T> {
    fn must(self, name: &'static str) -> Result<T>;
}

impl<T> Must<T> for Option<T> {
    fn must(self, name: &'static str) -> Result<T> {
        self.ok_or(Unreadable::Wrong(name))
    }
}

impl<T, E> Must<T> for std::result::Result<T, E> {
    fn must(self, name: &'static str) -> Result<T> {
        self.map_err(|_| Unreadable::Wrong(name))
    }
}

pub(super) fn frame(bytes: Vec<u8>) -> Result<Frame> {
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(Unreadable::TooLong(bytes.len()));
    }
    // Items are slices of the frame's own bytes: 32 bytes of memory each, and the shortest takes two.
    let envelope = wire::Envelope::decode(Bytes::from(bytes))?;
    if envelope.version != VERSION_OF_HELLO && !VERSIONS.contains(&envelope.version) {
        return Err(Unreadable::Version(envelope.version));
    }
    if envelope.items.len() > ITEMS_MAX || envelope.items.iter().any(|item| item.len() > ITEM_BYTES_MAX) {
        return Err(Unreadable::TooMany(envelope.items.len()));
    }
    let header = Header {
        version: envelope.version,
        from: Incarnation::new(envelope.from).must("sender")?,
        to: Incarnation::new(envelope.to).must("receiver")?,
        generation: envelope.generation,
        number: envelope.number,
    };
    let items = envelope
        .items
        .into_iter()
        .map(|bytes| item(wire::Item::decode(bytes)?))
        .collect::<Result<_>>()?;
    Ok(Frame { header, items })
}

fn item(item: wire::Item) -> Result<Item> {
    Ok(match item.kind.must("item")? {
        wire::Kind::Hello(hello) => Item::Hello(greeting(hello)?),
        wire::Kind::Refusal(refusal) => Item::Refusal(text(refusal.reason, "refusal")?),
        wire::Kind::Issue(issue) => Item::Request(self::issue(issue)?),
        wire::Kind::Change(change) => Item::Request(self::change(change)?),
        wire::Kind::IssueAnswer(answer) => Item::Answer(answer.id, Answer::Issue(issue_answer(answer)?)),
        wire::Kind::ChangeAnswer(answer) => Item::Answer(answer.id, Answer::Change(change_answer(answer)?)),
        wire::Kind::Heartbeat(notice) => Item::Heartbeat(self::notice(notice)?),
        wire::Kind::HeartbeatAnswer(notice) => Item::HeartbeatAnswer(self::notice(notice)?),
        wire::Kind::News(notice) => Item::News(self::notice(notice)?),
        wire::Kind::Heard(notice) => Item::Heard(notice.id),
        wire::Kind::Preload(preload) => self::preload(preload)?,
    })
}

fn greeting(hello: wire::Hello) -> Result<Hello> {
    let few = hello.versions.len() <= VERSIONS_MAX;
    Ok(Hello {
        versions: few.then_some(hello.versions).must("list of versions")?,
        cluster: text(hello.cluster, "cluster")?,
        node: NodeId::parse(&hello.node).must("node")?,
        incarnation: Incarnation::new(hello.incarnation).must("incarnation")?,
        shards: hello.shards,
        hash: text(hello.hash, "shard hash")?,
    })
}

fn notice(notice: wire::Notice) -> Result<Notice> {
    let fits = notice.content.len() <= NOTICE_BYTES_MAX;
    fits.then_some(Notice {
        id: notice.id,
        content: notice.content,
    })
    .must("length of a notice")
}

fn preload(preload: wire::Preload) -> Result<Item> {
    let shard = u16::try_from(preload.shard)
        .ok()
        .and_then(ShardId::new)
        .must("shard")?;
    let few = preload.coupons.len() <= PRELOAD_MAX;
    let coupons = few.then_some(preload.coupons).must("list of coupons")?;
    Ok(Item::Preload(
        shard,
        coupons.into_iter().map(coupon_id).collect::<Result<_>>()?,
    ))
}

fn coupon_id(number: u64) -> Result<CouponId> {
    CouponId::new(number).must("coupon id")
}

fn text(text: String, name: &'static str) -> Result<String> {
    (text.len() <= TEXT_BYTES_MAX).then_some(text).must(name)
}

fn timestamp(micros: i64) -> Result<Timestamp> {
    Timestamp::from_micros(micros).must("time")
}

fn maybe_timestamp(micros: Option<i64>) -> Result<Option<Timestamp>> {
    micros.map(timestamp).transpose()
}

/// As the store keeps them: below 2^53.
fn number(number: u64) -> Result<u64> {
    (number <= ID_MAX).then_some(number).must("number")
}

fn remaining(micros: u64) -> Result<Duration> {
    let remaining = Duration::from_micros(micros);
    (remaining <= REMAINING_MAX)
        .then_some(remaining)
        .must("remaining time")
}

fn issue(issue: wire::Issue) -> Result<RemoteRequest> {
    let user = UserId::parse(&issue.user).must("user")?;
    let key = RequestKey::parse(&issue.key).must("request key")?;
    Ok(RemoteRequest {
        id: issue.id,
        coupon: coupon_id(issue.coupon)?,
        epoch: Epoch::new(number(issue.epoch)?),
        remaining: remaining(issue.remaining_micros)?,
        what: Asked::Issue { user, key },
    })
}

fn change(change: wire::Change) -> Result<RemoteRequest> {
    let wanted = match (change.kind(), change.patch) {
        (wire::ChangeKind::Patch, Some(patch)) => Change::Patch(Box::new(self::patch(patch)?)),
        (wire::ChangeKind::Pause, None) => Change::Pause,
        (wire::ChangeKind::Resume, None) => Change::Resume,
        (wire::ChangeKind::Close, None) => Change::Close,
        _ => return Err(Unreadable::Wrong("change")),
    };
    Ok(RemoteRequest {
        id: change.id,
        coupon: coupon_id(change.coupon)?,
        epoch: Epoch::new(number(change.epoch)?),
        remaining: remaining(change.remaining_micros)?,
        what: Asked::Change {
            change: wanted,
            if_version: change.if_version,
        },
    })
}

fn patch(patch: wire::Patch) -> Result<OfferPatch> {
    let mut unused = patch.cleared;
    macro_rules! part {
        ($part:expr, $tag:literal) => {{
            let cleared = patch.cleared & (1 << $tag) != 0;
            unused &= !(1 << $tag);
            match ($part, cleared) {
                (Some(_), true) => return Err(Unreadable::Wrong("patch")),
                (None, true) => Some(None),
                (None, false) => None,
                (Some(value), false) => Some(Some(value)),
            }
        }};
    }
    let use_within_days = patch
        .use_within_days
        .map(u16::try_from)
        .transpose()
        .must("number of days")?;
    let patch = OfferPatch {
        title: patch.title.map(|title| text(title, "title")).transpose()?,
        discount: part!(patch.discount.map(discount_patch).transpose()?, 3),
        min_order_amount: part!(patch.min_order_amount, 4),
        total_quantity: part!(patch.total_quantity, 5),
        starts_at: part!(maybe_timestamp(patch.starts_at)?, 6),
        ends_at: part!(maybe_timestamp(patch.ends_at)?, 7),
        use_within_days: part!(use_within_days, 8),
    };
    (unused == 0).then_some(patch).must("patch")
}

fn discount_patch(patch: wire::DiscountPatch) -> Result<DiscountPatch> {
    let kind = patch
        .kind
        .map(|kind| discount_kind(kind)?.must("discount"))
        .transpose()?;
    Ok(DiscountPatch {
        kind,
        value: patch.value,
    })
}

fn discount_kind(code: i32) -> Result<Option<DiscountKind>> {
    Ok(match wire::DiscountKind::try_from(code).must("discount")? {
        wire::DiscountKind::None => None,
        wire::DiscountKind::Amount => Some(DiscountKind::Amount),
        wire::DiscountKind::Rate => Some(DiscountKind::Rate),
    })
}

fn setback(code: i32) -> Result<Option<Setback>> {
    Ok(match wire::Setback::try_from(code).must("setback")? {
        wire::Setback::None => None,
        wire::Setback::Overloaded => Some(Setback::Overloaded),
        wire::Setback::Moved => Some(Setback::Moved),
        wire::Setback::StoreUnavailable => Some(Setback::StoreUnavailable),
        wire::Setback::Expired => Some(Setback::Expired),
        wire::Setback::Unknown => Some(Setback::Unknown),
    })
}

fn issue_answer(answer: wire::IssueAnswer) -> Result<IssueAnswer> {
    if let Some(setback) = setback(answer.setback)? {
        return Ok(Err(setback));
    }
    let verdict = wire::IssueVerdict::try_from(answer.verdict).must("verdict")?;
    let issuance = answer.issuance.map(issuance).transpose()?;
    let window = || -> Result<_> { Ok((timestamp(answer.edge)?, timestamp(answer.server_time)?)) };
    Ok(Ok(match verdict {
        wire::IssueVerdict::Issued => IssueOutcome::Issued(issuance.must("issuance")?),
        wire::IssueVerdict::Replayed => IssueOutcome::Replayed(issuance.must("issuance")?),
        wire::IssueVerdict::UnknownCoupon => IssueOutcome::Refused(Refusal::UnknownCoupon),
        wire::IssueVerdict::AlreadyIssued => {
            IssueOutcome::Refused(Refusal::AlreadyIssued(Box::new(issuance.must("issuance")?)))
        }
        wire::IssueVerdict::Closed => IssueOutcome::Refused(Refusal::Closed),
        wire::IssueVerdict::Paused => IssueOutcome::Refused(Refusal::Paused),
        wire::IssueVerdict::NotStarted => {
            let (starts_at, server_time) = window()?;
            IssueOutcome::Refused(Refusal::NotStarted {
                starts_at,
                server_time,
            })
        }
        wire::IssueVerdict::Ended => {
            let (ends_at, server_time) = window()?;
            IssueOutcome::Refused(Refusal::Ended { ends_at, server_time })
        }
        wire::IssueVerdict::SoldOut => IssueOutcome::Refused(Refusal::SoldOut {
            total_quantity: number(answer.total_quantity)?,
        }),
        wire::IssueVerdict::None => return Err(Unreadable::Wrong("verdict")),
    }))
}

fn issuance(issuance: wire::Issuance) -> Result<Issuance> {
    let sequence = (1..=ID_MAX)
        .contains(&issuance.sequence)
        .then_some(issuance.sequence)
        .must("sequence")?;
    Ok(Issuance {
        id: IssuanceId {
            coupon: coupon_id(issuance.coupon)?,
            sequence: Sequence::new(sequence),
        },
        user: UserId::parse(&issuance.user).must("user")?,
        nth: u8::try_from(issuance.nth).must("place among a user's")?,
        key: RequestKey::parse(&issuance.key).must("request key")?,
        issued_at: timestamp(issuance.issued_at)?,
        expires_at: maybe_timestamp(issuance.expires_at)?,
    })
}

fn change_answer(answer: wire::ChangeAnswer) -> Result<ChangeAnswer> {
    if let Some(setback) = setback(answer.setback)? {
        return Ok(Err(setback));
    }
    let verdict = wire::ChangeVerdict::try_from(answer.verdict).must("verdict")?;
    let issued = number(answer.issued)?;
    Ok(Ok(ChangeOutcome::Refused(match verdict {
        wire::ChangeVerdict::Done => {
            let coupon = coupon(answer.coupon.must("coupon")?)?;
            return Ok(Ok(ChangeOutcome::Done(Box::new(ChangeDone {
                coupon,
                issued: Sequence::new(issued),
            }))));
        }
        wire::ChangeVerdict::UnknownCoupon => ChangeRefusal::UnknownCoupon,
        wire::ChangeVerdict::VersionMismatch => ChangeRefusal::VersionMismatch {
            version: answer.version,
        },
        wire::ChangeVerdict::Closed => ChangeRefusal::Closed,
        wire::ChangeVerdict::QuantityBelowIssued => ChangeRefusal::QuantityBelowIssued { issued },
        wire::ChangeVerdict::Invalid => {
            let few = answer.invalid.len() <= INVALID_MAX;
            let fields = few.then_some(answer.invalid).must("list of invalid fields")?;
            ChangeRefusal::Invalid(
                fields
                    .iter()
                    .map(|wrong| InvalidField::named(&wrong.field, &wrong.message))
                    .collect(),
            )
        }
        wire::ChangeVerdict::None => return Err(Unreadable::Wrong("verdict")),
    })))
}

pub(crate) fn coupon(coupon: wire::Coupon) -> Result<Coupon> {
    let discount =
        discount_kind(coupon.discount_kind)?.map(|kind| Discount::new(kind, coupon.discount_value));
    let offer = Offer {
        title: text(coupon.title, "title")?,
        discount,
        min_order_amount: coupon.min_order_amount,
        total_quantity: coupon.total_quantity,
        per_user_limit: u8::try_from(coupon.per_user_limit).must("limit of a user")?,
        starts_at: maybe_timestamp(coupon.starts_at)?,
        ends_at: maybe_timestamp(coupon.ends_at)?,
        use_within_days: coupon
            .use_within_days
            .map(u16::try_from)
            .transpose()
            .must("number of days")?,
    };
    let status = match wire::Status::try_from(coupon.status).must("status")? {
        wire::Status::Open => Status::Open,
        wire::Status::Paused => Status::Paused,
        wire::Status::Closed => Status::Closed,
        wire::Status::None => return Err(Unreadable::Wrong("status")),
    };
    Ok(Coupon {
        id: coupon_id(coupon.id)?,
        offer,
        status,
        version: coupon.version,
        created_at: timestamp(coupon.created_at)?,
        updated_at: timestamp(coupon.updated_at)?,
    })
}
