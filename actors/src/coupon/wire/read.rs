//! Conversion of bytes to values. Every value is checked: a peer is trusted as little as a client.

mod uses;

use prost::Message;

use super::messages;
use super::{INVALID_MAX, TEXT_BYTES_MAX, VERSIONS_MAX};
use crate::coupon::change::{Change, ChangeDone, ChangeOutcome, ChangeRefusal, ChangeRequest};
use crate::coupon::ids::{CouponId, IssuanceId, Sequence};
use crate::coupon::issue::{IssueOutcome, IssueRequest, Refusal};
use crate::coupon::offer::{
    Coupon, Discount, DiscountKind, DiscountPatch, InvalidField, Issuance, MetadataPatch, Offer, OfferPatch,
    Status,
};
use crate::coupon::record::{ASKED_BYTES_MAX, ChangeRecord};
use crate::coupon::uses::UsedIssuance;
use crate::coupon::{CouponAsk, CouponOutcome};
use crate::ids::{Author, ID_MAX, RequestKey, UserId};
use crate::owning::kind::DecodeError;
use crate::time::Timestamp;

type Result<T> = std::result::Result<T, DecodeError>;

/// Turns an absent or wrong value into an error that names the field.
trait Required<T> {
    fn required(self, name: &'static str) -> Result<T>;
}

impl<T> Required<T> for Option<T> {
    fn required(self, name: &'static str) -> Result<T> {
        self.ok_or(DecodeError::Wrong(name))
    }
}

impl<T, E> Required<T> for std::result::Result<T, E> {
    fn required(self, name: &'static str) -> Result<T> {
        self.map_err(|_| DecodeError::Wrong(name))
    }
}

/// Reads a request.
pub(crate) fn ask(bytes: &[u8]) -> Result<CouponAsk> {
    match messages::Ask::decode(bytes)?.kind.required("request")? {
        messages::AskKind::Issue(issue) => Ok(CouponAsk::Issue(IssueRequest {
            user: UserId::parse(&issue.user).required("user")?,
            key: RequestKey::parse(&issue.key).required("request key")?,
        })),
        messages::AskKind::Change(request) => Ok(CouponAsk::Change(change(request)?)),
        messages::AskKind::Use(request) => Ok(CouponAsk::Use(Box::new(uses::request(request)?))),
    }
}

/// Reads an outcome.
pub(crate) fn outcome(bytes: &[u8]) -> Result<CouponOutcome> {
    match messages::Outcome::decode(bytes)?.kind.required("outcome")? {
        messages::OutcomeKind::Issue(outcome) => Ok(CouponOutcome::Issue(issue_outcome(outcome)?)),
        messages::OutcomeKind::Change(outcome) => Ok(CouponOutcome::Change(change_outcome(outcome)?)),
        messages::OutcomeKind::Use(outcome) => Ok(CouponOutcome::Use(uses::outcome(outcome)?)),
    }
}

fn change(request: messages::Change) -> Result<ChangeRequest> {
    let (first, others) = (request.if_version, request.or_versions.clone());
    let is_list = (first.is_some() || others.is_empty()) && others.len() < VERSIONS_MAX;
    is_list.then_some(()).required("condition")?;
    let key = request.key.as_deref().map(RequestKey::parse);
    let key = key.transpose().required("request key")?;
    let record = match (request.author.as_deref(), request.asked.clone()) {
        (None, None) => None,
        (Some(author), Some(asked)) if asked.len() <= ASKED_BYTES_MAX => {
            let author = Author::parse(author).required("author")?;
            Some(ChangeRecord { author, asked })
        }
        _ => return Err(DecodeError::Wrong("record")),
    };
    let change = match (request.kind(), request.patch) {
        (messages::ChangeKind::Patch, Some(patch)) => Change::Patch(Box::new(self::patch(*patch)?)),
        (messages::ChangeKind::Pause, None) => Change::Pause,
        (messages::ChangeKind::Resume, None) => Change::Resume,
        (messages::ChangeKind::Close, None) => Change::Close,
        _ => return Err(DecodeError::Wrong("change")),
    };
    Ok(ChangeRequest {
        change,
        if_versions: first.into_iter().chain(others).collect(),
        key,
        record,
    })
}

fn coupon_id(number: u64) -> Result<CouponId> {
    CouponId::new(number).required("coupon id")
}

fn text(text: String, name: &'static str) -> Result<String> {
    (text.len() <= TEXT_BYTES_MAX).then_some(text).required(name)
}

fn maybe_text(text: Option<String>, name: &'static str) -> Result<Option<String>> {
    text.map(|text| self::text(text, name)).transpose()
}

fn timestamp(micros: i64) -> Result<Timestamp> {
    Timestamp::from_micros(micros).required("time")
}

fn maybe_timestamp(micros: Option<i64>) -> Result<Option<Timestamp>> {
    micros.map(timestamp).transpose()
}

/// Checks that a number which the store keeps is below 2^53.
fn number(number: u64) -> Result<u64> {
    (number <= ID_MAX).then_some(number).required("number")
}

fn patch(patch: messages::Patch) -> Result<OfferPatch> {
    let mut unused = patch.cleared;
    macro_rules! part {
        ($part:expr, $tag:literal) => {{
            let cleared = patch.cleared & (1 << $tag) != 0;
            unused &= !(1 << $tag);
            match ($part, cleared) {
                (Some(_), true) => return Err(DecodeError::Wrong("patch")),
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
        .required("number of days")?;
    let patch = OfferPatch {
        title: patch.title.map(|title| text(title, "title")).transpose()?,
        discount: part!(patch.discount.map(discount_patch).transpose()?, 3),
        min_order_amount: part!(patch.min_order_amount, 4),
        total_quantity: part!(patch.total_quantity, 5),
        starts_at: part!(maybe_timestamp(patch.starts_at)?, 6),
        ends_at: part!(maybe_timestamp(patch.ends_at)?, 7),
        use_within_days: part!(use_within_days, 8),
        description: part!(maybe_text(patch.description, "description")?, 9),
        metadata: part!(patch.metadata.map(metadata_patch).transpose()?, 10),
        max_discount: part!(patch.max_discount, 11),
        use_until: part!(maybe_timestamp(patch.use_until)?, 12),
        time_zone: part!(maybe_text(patch.time_zone, "time zone")?, 13),
    };
    (unused == 0).then_some(patch).required("patch")
}

fn metadata_patch(patch: messages::MetadataPatch) -> Result<MetadataPatch> {
    metadata_pairs(patch.pairs)
}

/// Reads pairs with different keys.
fn metadata_pairs(pairs: Vec<messages::MetadataPair>) -> Result<MetadataPatch> {
    let count = pairs.len();
    let pair = |messages::MetadataPair { key, value }| -> Result<_> {
        Ok((text(key, "metadata")?, maybe_text(value, "metadata")?))
    };
    let read = pairs.into_iter().map(pair).collect::<Result<MetadataPatch>>()?;
    (read.len() == count).then_some(read).required("metadata")
}

fn discount_patch(patch: messages::DiscountPatch) -> Result<DiscountPatch> {
    let kind = patch
        .kind
        .map(|kind| discount_kind(kind)?.required("discount"))
        .transpose()?;
    Ok(DiscountPatch {
        kind,
        value: patch.value,
    })
}

fn discount_kind(code: i32) -> Result<Option<DiscountKind>> {
    Ok(
        match messages::DiscountKind::try_from(code).required("discount")? {
            messages::DiscountKind::None => None,
            messages::DiscountKind::Amount => Some(DiscountKind::Amount),
            messages::DiscountKind::Rate => Some(DiscountKind::Rate),
        },
    )
}

fn issue_outcome(outcome: messages::IssueOutcome) -> Result<IssueOutcome> {
    let result = messages::IssueResult::try_from(outcome.result).required("result")?;
    let issuance = outcome.issuance.map(issuance).transpose()?;
    let latest = outcome.latest.map(uses::latest_use).transpose()?;
    let used = |issuance: Option<Issuance>| -> Result<_> {
        let issuance = issuance.required("issuance")?;
        Ok(Box::new(UsedIssuance { issuance, latest }))
    };
    let window = || -> Result<_> { Ok((timestamp(outcome.edge)?, timestamp(outcome.server_time)?)) };
    Ok(match result {
        messages::IssueResult::Issued => IssueOutcome::Issued(issuance.required("issuance")?),
        messages::IssueResult::Replayed => IssueOutcome::Replayed(used(issuance)?),
        messages::IssueResult::UnknownCoupon => IssueOutcome::Refused(Refusal::UnknownCoupon),
        messages::IssueResult::AlreadyIssued => {
            IssueOutcome::Refused(Refusal::AlreadyIssued(used(issuance)?))
        }
        messages::IssueResult::Closed => IssueOutcome::Refused(Refusal::Closed),
        messages::IssueResult::Paused => IssueOutcome::Refused(Refusal::Paused),
        messages::IssueResult::NotStarted => {
            let (starts_at, server_time) = window()?;
            IssueOutcome::Refused(Refusal::NotStarted {
                starts_at,
                server_time,
            })
        }
        messages::IssueResult::Ended => {
            let (ends_at, server_time) = window()?;
            IssueOutcome::Refused(Refusal::Ended { ends_at, server_time })
        }
        messages::IssueResult::SoldOut => IssueOutcome::Refused(Refusal::SoldOut {
            total_quantity: number(outcome.total_quantity)?,
        }),
        messages::IssueResult::None => return Err(DecodeError::Wrong("result")),
    })
}

fn sequence(number: u64) -> Result<Sequence> {
    let is_one = (1..=ID_MAX).contains(&number);
    is_one.then_some(Sequence::new(number)).required("sequence")
}

fn issuance(issuance: messages::Issuance) -> Result<Issuance> {
    Ok(Issuance {
        id: IssuanceId {
            coupon: coupon_id(issuance.coupon)?,
            sequence: sequence(issuance.sequence)?,
        },
        user: UserId::parse(&issuance.user).required("user")?,
        nth: issuance.nth,
        key: RequestKey::parse(&issuance.key).required("request key")?,
        issued_at: timestamp(issuance.issued_at)?,
        expires_at: maybe_timestamp(issuance.expires_at)?,
    })
}

fn change_outcome(outcome: messages::ChangeOutcome) -> Result<ChangeOutcome> {
    let result = messages::ChangeResult::try_from(outcome.result).required("result")?;
    let issued = number(outcome.issued)?;
    let from_version = outcome.from_version;
    let uses = uses::counts(&outcome.uses)?;
    let done = |coupon: Option<messages::Coupon>| -> Result<_> {
        Ok(Box::new(ChangeDone {
            coupon: self::coupon(coupon.required("coupon")?)?,
            issued: Sequence::new(issued),
            from_version,
            uses,
        }))
    };
    Ok(ChangeOutcome::Refused(match result {
        messages::ChangeResult::Done => return Ok(ChangeOutcome::Done(done(outcome.coupon)?)),
        messages::ChangeResult::Replayed => return Ok(ChangeOutcome::Replayed(done(outcome.coupon)?)),
        messages::ChangeResult::UnknownCoupon => ChangeRefusal::UnknownCoupon,
        messages::ChangeResult::VersionMismatch => ChangeRefusal::VersionMismatch {
            version: outcome.version,
        },
        messages::ChangeResult::Closed => ChangeRefusal::Closed,
        messages::ChangeResult::QuantityBelowIssued => ChangeRefusal::QuantityBelowIssued {
            issued,
            returned: number(outcome.returned)?,
        },
        messages::ChangeResult::KeyReused => ChangeRefusal::KeyReused,
        messages::ChangeResult::Invalid => {
            let few = outcome.invalid.len() <= INVALID_MAX;
            let fields = few
                .then_some(outcome.invalid)
                .required("list of invalid fields")?;
            ChangeRefusal::Invalid(
                fields
                    .iter()
                    .map(|wrong| InvalidField::named(&wrong.field, &wrong.message))
                    .collect(),
            )
        }
        messages::ChangeResult::None => return Err(DecodeError::Wrong("result")),
    }))
}

/// Reads a coupon.
pub(crate) fn coupon(coupon: messages::Coupon) -> Result<Coupon> {
    let discount =
        discount_kind(coupon.discount_kind)?.map(|kind| Discount::new(kind, coupon.discount_value));
    let per_user_limit = u8::try_from(coupon.per_user_limit).required("limit per user")?;
    let metadata = metadata_pairs(coupon.metadata)?.into_iter();
    let metadata = metadata.map(|(key, value)| Ok((key, value.required("metadata")?)));
    let offer = Offer {
        title: text(coupon.title, "title")?,
        description: maybe_text(coupon.description, "description")?,
        metadata: metadata.collect::<Result<_>>()?,
        discount,
        max_discount: coupon.max_discount,
        min_order_amount: coupon.min_order_amount,
        total_quantity: coupon.total_quantity,
        per_user_limit: (!coupon.no_user_limit).then_some(per_user_limit),
        starts_at: maybe_timestamp(coupon.starts_at)?,
        ends_at: maybe_timestamp(coupon.ends_at)?,
        use_within_days: coupon
            .use_within_days
            .map(u16::try_from)
            .transpose()
            .required("number of days")?,
        use_until: maybe_timestamp(coupon.use_until)?,
        time_zone: maybe_text(coupon.time_zone, "time zone")?,
    };
    let status = match messages::Status::try_from(coupon.status).required("status")? {
        messages::Status::Open => Status::Open,
        messages::Status::Paused => Status::Paused,
        messages::Status::Closed => Status::Closed,
        messages::Status::None => return Err(DecodeError::Wrong("status")),
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
