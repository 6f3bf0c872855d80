//! Values to bytes.

use std::time::Duration;

use prost::Message;
use prost::encoding::{encoded_len_varint, key_len};

use super::wire;
use super::{
    Answer, Asked, FRAME_BYTES_TARGET, Header, ITEM_BYTES_MAX, ITEMS_MAX, Item, Notice, REMAINING_MAX,
    RemoteRequest,
};
use crate::coupon::offer::{Coupon, Discount, DiscountKind, Issuance, OfferPatch, Status};
use crate::link::hello::Hello;
use crate::owning::message::{
    Change, ChangeAnswer, ChangeOutcome, ChangeRefusal, IssueAnswer, IssueOutcome, Refusal, Setback,
};

/// Gathers items into one frame.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    items: usize,
}

/// An item as it goes into a frame, with its length known.
#[derive(Debug)]
pub struct Written(wire::Item);

impl Written {
    /// The item; `None` if it is longer than any frame carries.
    pub fn new(item: Item) -> Option<Self> {
        let item = wire::Item {
            kind: Some(kind(item)),
        };
        (item.encoded_len() <= ITEM_BYTES_MAX).then_some(Self(item))
    }
}

impl Writer {
    /// A frame without items.
    pub fn new(header: Header) -> Self {
        let Header {
            version,
            from,
            to,
            generation,
            number,
        } = header;
        let envelope = wire::Envelope {
            version,
            from: from.get(),
            to: to.get(),
            generation,
            number,
            items: Vec::new(),
        };
        Self {
            bytes: envelope.encode_to_vec(),
            items: 0,
        }
    }

    /// Whether it is to be sent before anything else goes in.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FRAME_BYTES_TARGET || self.items >= ITEMS_MAX
    }

    /// Adds an item. Not to a full frame.
    pub fn add(&mut self, Written(item): &Written) {
        debug_assert!(!self.is_full());
        let length = item.encoded_len();
        self.bytes
            .reserve(key_len(wire::ITEM_TAG) + encoded_len_varint(length as u64) + length);
        prost::encoding::message::encode(wire::ITEM_TAG, item, &mut self.bytes);
        self.items += 1;
    }

    /// The frame's bytes.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

fn kind(item: Item) -> wire::Kind {
    match item {
        Item::Hello(hello) => wire::Kind::Hello(greeting(hello)),
        Item::Refusal(reason) => wire::Kind::Refusal(wire::Refusal { reason }),
        Item::Request(request) => self::request(request),
        Item::Answer(id, Answer::Issue(answer)) => wire::Kind::IssueAnswer(issue_answer(id, answer)),
        Item::Answer(id, Answer::Change(answer)) => wire::Kind::ChangeAnswer(change_answer(id, answer)),
        Item::Heartbeat(notice) => wire::Kind::Heartbeat(self::notice(notice)),
        Item::HeartbeatAnswer(notice) => wire::Kind::HeartbeatAnswer(self::notice(notice)),
        Item::News(notice) => wire::Kind::News(self::notice(notice)),
        Item::Heard(id) => wire::Kind::Heard(wire::Notice {
            id,
            content: Vec::new(),
        }),
        Item::Preload(shard, coupons) => wire::Kind::Preload(wire::Preload {
            shard: u32::from(shard.get()),
            coupons: coupons.into_iter().map(crate::ids::CouponId::get).collect(),
        }),
    }
}

fn greeting(hello: Hello) -> wire::Hello {
    wire::Hello {
        versions: hello.versions,
        cluster: hello.cluster,
        node: hello.node.to_string(),
        incarnation: hello.incarnation.get(),
        shards: hello.shards,
        hash: hello.hash,
    }
}

fn notice(notice: Notice) -> wire::Notice {
    wire::Notice {
        id: notice.id,
        content: notice.content,
    }
}

fn request(request: RemoteRequest) -> wire::Kind {
    let RemoteRequest {
        id,
        coupon,
        epoch,
        remaining,
        what,
    } = request;
    let (coupon, epoch, remaining_micros) = (coupon.get(), epoch.get(), micros(remaining));
    match what {
        Asked::Issue { user, key } => wire::Kind::Issue(wire::Issue {
            id,
            coupon,
            epoch,
            remaining_micros,
            user: user.as_str().to_owned(),
            key: key.as_str().to_owned(),
        }),
        Asked::Change { change, if_version } => {
            let (kind, patch) = match change {
                Change::Patch(patch) => (wire::ChangeKind::Patch, Some(self::patch(*patch))),
                Change::Pause => (wire::ChangeKind::Pause, None),
                Change::Resume => (wire::ChangeKind::Resume, None),
                Change::Close => (wire::ChangeKind::Close, None),
            };
            wire::Kind::Change(wire::Change {
                id,
                coupon,
                epoch,
                remaining_micros,
                if_version,
                kind: kind.into(),
                patch,
            })
        }
    }
}

/// Rounded down: a request never has more time there than here.
fn micros(remaining: Duration) -> u64 {
    u64::try_from(remaining.min(REMAINING_MAX).as_micros()).unwrap_or(u64::MAX)
}

fn patch(patch: OfferPatch) -> wire::Patch {
    let mut cleared = 0;
    macro_rules! part {
        ($part:expr, $tag:literal) => {
            $part.and_then(|value| {
                if value.is_none() {
                    cleared |= 1 << $tag;
                }
                value
            })
        };
    }
    let discount = part!(patch.discount, 3).map(|discount| wire::DiscountPatch {
        kind: discount.kind.map(|kind| discount_kind(kind).into()),
        value: discount.value,
    });
    let (min_order_amount, total_quantity) =
        (part!(patch.min_order_amount, 4), part!(patch.total_quantity, 5));
    let (starts_at, ends_at) = (part!(patch.starts_at, 6), part!(patch.ends_at, 7));
    let use_within_days = part!(patch.use_within_days, 8);
    wire::Patch {
        cleared,
        title: patch.title,
        discount,
        min_order_amount,
        total_quantity,
        starts_at: starts_at.map(|at| at.as_micros()),
        ends_at: ends_at.map(|at| at.as_micros()),
        use_within_days: use_within_days.map(u32::from),
    }
}

fn discount_kind(kind: DiscountKind) -> wire::DiscountKind {
    match kind {
        DiscountKind::Amount => wire::DiscountKind::Amount,
        DiscountKind::Rate => wire::DiscountKind::Rate,
    }
}

fn setback(setback: Setback) -> i32 {
    match setback {
        Setback::Overloaded => wire::Setback::Overloaded,
        Setback::Moved => wire::Setback::Moved,
        Setback::StoreUnavailable => wire::Setback::StoreUnavailable,
        Setback::Expired => wire::Setback::Expired,
        Setback::Unknown => wire::Setback::Unknown,
    }
    .into()
}

fn issue_answer(id: u64, answer: IssueAnswer) -> wire::IssueAnswer {
    let mut wire = wire::IssueAnswer {
        id,
        ..wire::IssueAnswer::default()
    };
    let verdict = match answer {
        Err(setback) => {
            wire.setback = self::setback(setback);
            wire::IssueVerdict::None
        }
        Ok(IssueOutcome::Issued(issuance)) => {
            wire.issuance = Some(self::issuance(issuance));
            wire::IssueVerdict::Issued
        }
        Ok(IssueOutcome::Replayed(issuance)) => {
            wire.issuance = Some(self::issuance(issuance));
            wire::IssueVerdict::Replayed
        }
        Ok(IssueOutcome::Refused(refusal)) => match refusal {
            Refusal::UnknownCoupon => wire::IssueVerdict::UnknownCoupon,
            Refusal::AlreadyIssued(issuance) => {
                wire.issuance = Some(self::issuance(*issuance));
                wire::IssueVerdict::AlreadyIssued
            }
            Refusal::Closed => wire::IssueVerdict::Closed,
            Refusal::Paused => wire::IssueVerdict::Paused,
            Refusal::NotStarted {
                starts_at,
                server_time,
            } => {
                (wire.edge, wire.server_time) = (starts_at.as_micros(), server_time.as_micros());
                wire::IssueVerdict::NotStarted
            }
            Refusal::Ended { ends_at, server_time } => {
                (wire.edge, wire.server_time) = (ends_at.as_micros(), server_time.as_micros());
                wire::IssueVerdict::Ended
            }
            Refusal::SoldOut { total_quantity } => {
                wire.total_quantity = total_quantity;
                wire::IssueVerdict::SoldOut
            }
        },
    };
    wire.verdict = verdict.into();
    wire
}

fn issuance(issuance: Issuance) -> wire::Issuance {
    wire::Issuance {
        coupon: issuance.id.coupon.get(),
        sequence: issuance.id.sequence.get(),
        user: issuance.user.as_str().to_owned(),
        nth: u32::from(issuance.nth),
        key: issuance.key.as_str().to_owned(),
        issued_at: issuance.issued_at.as_micros(),
        expires_at: issuance.expires_at.map(|at| at.as_micros()),
    }
}

fn change_answer(id: u64, answer: ChangeAnswer) -> wire::ChangeAnswer {
    let mut wire = wire::ChangeAnswer {
        id,
        ..wire::ChangeAnswer::default()
    };
    let verdict = match answer {
        Err(setback) => {
            wire.setback = self::setback(setback);
            wire::ChangeVerdict::None
        }
        Ok(ChangeOutcome::Done(done)) => {
            wire.coupon = Some(coupon(done.coupon));
            wire.issued = done.issued.get();
            wire::ChangeVerdict::Done
        }
        Ok(ChangeOutcome::Refused(refusal)) => match refusal {
            ChangeRefusal::UnknownCoupon => wire::ChangeVerdict::UnknownCoupon,
            ChangeRefusal::VersionMismatch { version } => {
                wire.version = version;
                wire::ChangeVerdict::VersionMismatch
            }
            ChangeRefusal::Closed => wire::ChangeVerdict::Closed,
            ChangeRefusal::QuantityBelowIssued { issued } => {
                wire.issued = issued;
                wire::ChangeVerdict::QuantityBelowIssued
            }
            ChangeRefusal::Invalid(fields) => {
                let text = |field: crate::coupon::offer::InvalidField| wire::InvalidField {
                    field: field.field.to_owned(),
                    message: field.message.to_owned(),
                };
                wire.invalid = fields.into_iter().map(text).collect();
                wire::ChangeVerdict::Invalid
            }
        },
    };
    wire.verdict = verdict.into();
    wire
}

pub(crate) fn coupon(coupon: Coupon) -> wire::Coupon {
    let (discount_kind, discount_value) = match coupon.offer.discount.map(Discount::parts) {
        None => (wire::DiscountKind::None, 0),
        Some((kind, value)) => (discount_kind(kind), value),
    };
    let status = match coupon.status {
        Status::Open => wire::Status::Open,
        Status::Paused => wire::Status::Paused,
        Status::Closed => wire::Status::Closed,
    };
    wire::Coupon {
        id: coupon.id.get(),
        title: coupon.offer.title,
        discount_kind: discount_kind.into(),
        discount_value,
        min_order_amount: coupon.offer.min_order_amount,
        total_quantity: coupon.offer.total_quantity,
        per_user_limit: u32::from(coupon.offer.per_user_limit),
        starts_at: coupon.offer.starts_at.map(|at| at.as_micros()),
        ends_at: coupon.offer.ends_at.map(|at| at.as_micros()),
        use_within_days: coupon.offer.use_within_days.map(u32::from),
        status: status.into(),
        version: coupon.version,
        created_at: coupon.created_at.as_micros(),
        updated_at: coupon.updated_at.as_micros(),
    }
}
