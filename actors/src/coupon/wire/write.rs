//! Conversion of values to bytes.

mod uses;

use prost::Message;

use super::messages;
use crate::coupon::change::{Change, ChangeOutcome, ChangeRefusal, ChangeRequest};
use crate::coupon::issue::{IssueOutcome, IssueRequest, Refusal};
use crate::coupon::offer::{
    Coupon, Discount, DiscountKind, InvalidField, Issuance, OfferPatch, PER_USER_LIMIT_MAX, Status,
};
use crate::coupon::{CouponAsk, CouponOutcome};

/// Writes a request.
pub(crate) fn ask(ask: CouponAsk) -> Vec<u8> {
    let kind = match ask {
        CouponAsk::Issue(IssueRequest { user, key }) => messages::AskKind::Issue(messages::Issue {
            user: user.as_str().to_owned(),
            key: key.as_str().to_owned(),
        }),
        CouponAsk::Change(request) => messages::AskKind::Change(change(request)),
        CouponAsk::Use(request) => messages::AskKind::Use(uses::request(*request)),
    };
    messages::Ask { kind: Some(kind) }.encode_to_vec()
}

/// Writes an outcome.
pub(crate) fn outcome(outcome: CouponOutcome) -> Vec<u8> {
    let kind = match outcome {
        CouponOutcome::Issue(outcome) => messages::OutcomeKind::Issue(issue_outcome(outcome)),
        CouponOutcome::Change(outcome) => messages::OutcomeKind::Change(change_outcome(outcome)),
        CouponOutcome::Use(outcome) => messages::OutcomeKind::Use(uses::outcome(outcome)),
    };
    messages::Outcome { kind: Some(kind) }.encode_to_vec()
}

/// Writes what a change asks for, without a condition and a key.
pub(crate) fn change_bytes(change: Change) -> Vec<u8> {
    self::change(change.into()).encode_to_vec()
}

fn change(request: ChangeRequest) -> messages::Change {
    let mut if_versions = request.if_versions.into_iter();
    let record = request
        .record
        .map(|record| (record.author.as_str().to_owned(), record.asked));
    let (author, asked) = record.unzip();
    let (kind, patch) = match request.change {
        Change::Patch(patch) => (messages::ChangeKind::Patch, Some(Box::new(self::patch(*patch)))),
        Change::Pause => (messages::ChangeKind::Pause, None),
        Change::Resume => (messages::ChangeKind::Resume, None),
        Change::Close => (messages::ChangeKind::Close, None),
    };
    messages::Change {
        if_version: if_versions.next(),
        kind: kind.into(),
        patch,
        key: request.key.map(|key| key.as_str().to_owned()),
        or_versions: if_versions.collect(),
        author,
        asked,
    }
}

fn patch(patch: OfferPatch) -> messages::Patch {
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
    let discount = part!(patch.discount, 3).map(|discount| messages::DiscountPatch {
        kind: discount.kind.map(|kind| discount_kind(kind).into()),
        value: discount.value,
    });
    let (min_order_amount, total_quantity) =
        (part!(patch.min_order_amount, 4), part!(patch.total_quantity, 5));
    let (starts_at, ends_at) = (part!(patch.starts_at, 6), part!(patch.ends_at, 7));
    let use_within_days = part!(patch.use_within_days, 8);
    let description = part!(patch.description, 9);
    let metadata = part!(patch.metadata, 10).map(|pairs| messages::MetadataPatch {
        pairs: pairs
            .into_iter()
            .map(|(key, value)| messages::MetadataPair { key, value })
            .collect(),
    });
    let (max_discount, use_until) = (part!(patch.max_discount, 11), part!(patch.use_until, 12));
    let time_zone = part!(patch.time_zone, 13);
    messages::Patch {
        cleared,
        title: patch.title,
        discount,
        min_order_amount,
        total_quantity,
        starts_at: starts_at.map(|at| at.as_micros()),
        ends_at: ends_at.map(|at| at.as_micros()),
        use_within_days: use_within_days.map(u32::from),
        description,
        metadata,
        max_discount,
        use_until: use_until.map(|at| at.as_micros()),
        time_zone,
    }
}

fn discount_kind(kind: DiscountKind) -> messages::DiscountKind {
    match kind {
        DiscountKind::Amount => messages::DiscountKind::Amount,
        DiscountKind::Rate => messages::DiscountKind::Rate,
    }
}

fn issue_outcome(outcome: IssueOutcome) -> messages::IssueOutcome {
    let mut wire = messages::IssueOutcome::default();
    let result = match outcome {
        IssueOutcome::Issued(issuance) => {
            wire.issuance = Some(self::issuance(issuance));
            messages::IssueResult::Issued
        }
        IssueOutcome::Replayed(used) => {
            wire.issuance = Some(issuance(used.issuance));
            wire.latest = used.latest.map(uses::latest_use);
            messages::IssueResult::Replayed
        }
        IssueOutcome::Refused(refusal) => match refusal {
            Refusal::UnknownCoupon => messages::IssueResult::UnknownCoupon,
            Refusal::AlreadyIssued(used) => {
                wire.issuance = Some(issuance(used.issuance));
                wire.latest = used.latest.map(uses::latest_use);
                messages::IssueResult::AlreadyIssued
            }
            Refusal::Closed => messages::IssueResult::Closed,
            Refusal::Paused => messages::IssueResult::Paused,
            Refusal::NotStarted {
                starts_at,
                server_time,
            } => {
                (wire.edge, wire.server_time) = (starts_at.as_micros(), server_time.as_micros());
                messages::IssueResult::NotStarted
            }
            Refusal::Ended { ends_at, server_time } => {
                (wire.edge, wire.server_time) = (ends_at.as_micros(), server_time.as_micros());
                messages::IssueResult::Ended
            }
            Refusal::SoldOut { total_quantity } => {
                wire.total_quantity = total_quantity;
                messages::IssueResult::SoldOut
            }
        },
    };
    wire.result = result.into();
    wire
}

fn issuance(issuance: Issuance) -> messages::Issuance {
    messages::Issuance {
        coupon: issuance.id.coupon.get(),
        sequence: issuance.id.sequence.get(),
        user: issuance.user.as_str().to_owned(),
        nth: issuance.nth,
        key: issuance.key.as_str().to_owned(),
        issued_at: issuance.issued_at.as_micros(),
        expires_at: issuance.expires_at.map(|at| at.as_micros()),
    }
}

fn change_outcome(outcome: ChangeOutcome) -> messages::ChangeOutcome {
    let mut wire = messages::ChangeOutcome::default();
    let result = match outcome {
        ChangeOutcome::Done(done) => {
            wire.coupon = Some(coupon(done.coupon));
            wire.issued = done.issued.get();
            wire.from_version = done.from_version;
            wire.uses = done.uses.map(uses::counts).unwrap_or_default();
            messages::ChangeResult::Done
        }
        ChangeOutcome::Replayed(done) => {
            wire.coupon = Some(coupon(done.coupon));
            wire.issued = done.issued.get();
            wire.from_version = done.from_version;
            wire.uses = done.uses.map(uses::counts).unwrap_or_default();
            messages::ChangeResult::Replayed
        }
        ChangeOutcome::Refused(refusal) => match refusal {
            ChangeRefusal::UnknownCoupon => messages::ChangeResult::UnknownCoupon,
            ChangeRefusal::VersionMismatch { version } => {
                wire.version = version;
                messages::ChangeResult::VersionMismatch
            }
            ChangeRefusal::Closed => messages::ChangeResult::Closed,
            ChangeRefusal::QuantityBelowIssued { issued, returned } => {
                (wire.issued, wire.returned) = (issued, returned);
                messages::ChangeResult::QuantityBelowIssued
            }
            ChangeRefusal::Invalid(fields) => {
                let text = |field: InvalidField| messages::InvalidField {
                    field: field.field.to_owned(),
                    message: field.message.to_owned(),
                };
                wire.invalid = fields.into_iter().map(text).collect();
                messages::ChangeResult::Invalid
            }
            ChangeRefusal::KeyReused => messages::ChangeResult::KeyReused,
        },
    };
    wire.result = result.into();
    wire
}

/// Writes a coupon.
pub(crate) fn coupon(coupon: Coupon) -> messages::Coupon {
    let (discount_kind, discount_value) = match coupon.offer.discount.map(Discount::parts) {
        None => (messages::DiscountKind::None, 0),
        Some((kind, value)) => (discount_kind(kind), value),
    };
    let status = match coupon.status {
        Status::Open => messages::Status::Open,
        Status::Paused => messages::Status::Paused,
        Status::Closed => messages::Status::Closed,
    };
    let pairs = coupon.offer.metadata.into_iter();
    let pairs = pairs.map(|(key, value)| messages::MetadataPair {
        key,
        value: Some(value),
    });
    messages::Coupon {
        id: coupon.id.get(),
        title: coupon.offer.title,
        discount_kind: discount_kind.into(),
        discount_value,
        min_order_amount: coupon.offer.min_order_amount,
        total_quantity: coupon.offer.total_quantity,
        per_user_limit: u32::from(coupon.offer.per_user_limit.unwrap_or(PER_USER_LIMIT_MAX)),
        starts_at: coupon.offer.starts_at.map(|at| at.as_micros()),
        ends_at: coupon.offer.ends_at.map(|at| at.as_micros()),
        use_within_days: coupon.offer.use_within_days.map(u32::from),
        status: status.into(),
        version: coupon.version,
        created_at: coupon.created_at.as_micros(),
        updated_at: coupon.updated_at.as_micros(),
        description: coupon.offer.description,
        metadata: pairs.collect(),
        max_discount: coupon.offer.max_discount,
        use_until: coupon.offer.use_until.map(|at| at.as_micros()),
        time_zone: coupon.offer.time_zone,
        no_user_limit: coupon.offer.per_user_limit.is_none(),
    }
}
