//! One line of a history: its JSON, and what it means.

mod issue;
mod step;

use std::io::Write;

use crate::time::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use smol_str::SmolStr;

use super::{Change, ChangeAnswer, ChangeCall, Create, CreateAnswer, Operation, Patch, Span};
use crate::rows::{CouponRow, Discount, coupon_id, time};
use issue::IssueLine;
use step::{QuoteLine, StepLine};

/// Reads a line.
pub(super) fn parse(text: &str) -> Result<Operation, String> {
    match serde_json::from_str(text).map_err(|error| error.to_string())? {
        Line::Create(line) => line.read().map(Operation::Create),
        Line::Change(line) => line.read().map(|call| Operation::Change(Box::new(call))),
        Line::Issue(line) => line.read().map(Operation::Issue),
        Line::Step(line) => line.read().map(Operation::Step),
        Line::Quote(line) => line.read().map(Operation::Quote),
    }
}

/// Writes a line without the line break.
pub(super) fn write(output: impl Write, operation: &Operation) -> std::io::Result<()> {
    let line = match operation {
        Operation::Create(create) => Line::Create(CreateLine::of(create)),
        Operation::Change(change) => Line::Change(ChangeLine::of(change)),
        Operation::Issue(issue) => Line::Issue(IssueLine::of(issue)),
        Operation::Step(step) => Line::Step(StepLine::of(step)),
        Operation::Quote(quote) => Line::Quote(QuoteLine::of(quote)),
    };
    Ok(serde_json::to_writer(output, &line)?)
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    Create(CreateLine),
    Change(ChangeLine),
    #[serde(borrow)]
    Issue(IssueLine<'a>),
    Step(StepLine),
    Quote(QuoteLine),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateLine {
    call_us: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer_us: Option<i64>,
    #[serde(default)]
    answer: Option<AnswerJson<serde_json::Value>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeLine {
    call_us: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer_us: Option<i64>,
    coupon: u64,
    change: ChangeJson,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    if_match: Option<u64>,
    #[serde(default)]
    answer: Option<AnswerJson<serde_json::Value>>,
}

/// An HTTP answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[serde(bound(deserialize = "B: DeserializeOwned"))]
struct AnswerJson<B> {
    status: u16,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    replayed: bool,
    body: Option<B>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ChangeJson {
    Patch(PatchJson),
    Pause,
    Resume,
    Close,
}

/// A patch as it was sent. Fields that affect neither issuing nor use are ignored.
#[derive(Debug, Default, Serialize, Deserialize)]
struct PatchJson {
    #[serde(
        default,
        deserialize_with = "clearable",
        skip_serializing_if = "Option::is_none"
    )]
    total_quantity: Option<Option<u64>>,
    #[serde(
        default,
        deserialize_with = "clearable",
        skip_serializing_if = "Option::is_none"
    )]
    starts_at: Option<Option<String>>,
    #[serde(
        default,
        deserialize_with = "clearable",
        skip_serializing_if = "Option::is_none"
    )]
    ends_at: Option<Option<String>>,
    #[serde(
        default,
        deserialize_with = "clearable",
        skip_serializing_if = "Option::is_none"
    )]
    use_within_days: Option<Option<u16>>,
    #[serde(
        default,
        deserialize_with = "clearable",
        skip_serializing_if = "Option::is_none"
    )]
    use_until: Option<Option<String>>,
    #[serde(
        default,
        deserialize_with = "clearable",
        skip_serializing_if = "Option::is_none"
    )]
    time_zone: Option<Option<String>>,
    #[serde(
        default,
        deserialize_with = "clearable",
        skip_serializing_if = "Option::is_none"
    )]
    discount: Option<Option<DiscountPatchJson>>,
    #[serde(
        default,
        deserialize_with = "clearable",
        skip_serializing_if = "Option::is_none"
    )]
    max_discount: Option<Option<u64>>,
    #[serde(
        default,
        deserialize_with = "clearable",
        skip_serializing_if = "Option::is_none"
    )]
    min_order_amount: Option<Option<u64>>,
}

/// A patch of a discount, which is merged into the present one.
#[derive(Debug, Default, Serialize, Deserialize)]
struct DiscountPatchJson {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<u64>,
}

impl DiscountPatchJson {
    fn of(discount: Option<Discount>) -> Self {
        let (kind, value) = match discount {
            Some(Discount::Amount(value)) => ("amount", value),
            Some(Discount::Rate(value)) => ("rate", value),
            None => return Self::default(),
        };
        Self {
            kind: Some(kind.to_owned()),
            value: Some(value),
        }
    }

    /// Returns the discount; `None` if a part of it stays as it is.
    fn read(self) -> Option<Discount> {
        match (self.kind?.as_str(), self.value?) {
            ("amount", value) => Some(Discount::Amount(value)),
            ("rate", value) => Some(Discount::Rate(value)),
            _ => None,
        }
    }
}

/// Reads a field that is present. Returns `Some(None)` for null, which clears the field. Fields that are
/// absent stay unchanged.
fn clearable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl CreateLine {
    fn of(create: &Create) -> Self {
        let answer = match &create.answer {
            CreateAnswer::Created { coupon, replayed } => Some(AnswerJson {
                status: 201,
                replayed: *replayed,
                body: Some(json(coupon)),
            }),
            CreateAnswer::NotApplied(code) => Some(not_applied(code)),
            CreateAnswer::Unknown => None,
        };
        Self {
            call_us: create.span.call.as_micros(),
            answer_us: create.span.answer.map(Timestamp::as_micros),
            answer,
        }
    }

    fn read(self) -> Result<Create, String> {
        let span = span(self.call_us, self.answer_us, self.answer.is_some())?;
        let answer = match self.answer {
            Some(AnswerJson {
                status: 201,
                replayed,
                body,
            }) => CreateAnswer::Created {
                coupon: Box::new(coupon(body)?),
                replayed,
            },
            other => match not_done(other)? {
                Some(code) => CreateAnswer::NotApplied(code),
                None => CreateAnswer::Unknown,
            },
        };
        Ok(Create { span, answer })
    }
}

impl ChangeLine {
    fn of(call: &ChangeCall) -> Self {
        let answer = match &call.answer {
            ChangeAnswer::Done(coupon) => Some(AnswerJson {
                status: 200,
                replayed: false,
                body: Some(json(coupon)),
            }),
            ChangeAnswer::NotApplied(code) => Some(not_applied(code)),
            ChangeAnswer::Unknown => None,
        };
        Self {
            call_us: call.span.call.as_micros(),
            answer_us: call.span.answer.map(Timestamp::as_micros),
            coupon: call.coupon.get(),
            change: ChangeJson::of(&call.change),
            if_match: call.if_match,
            answer,
        }
    }

    fn read(self) -> Result<ChangeCall, String> {
        let span = span(self.call_us, self.answer_us, self.answer.is_some())?;
        let answer = match self.answer {
            Some(AnswerJson {
                status: 200, body, ..
            }) => ChangeAnswer::Done(Box::new(coupon(body)?)),
            other => match not_done(other)? {
                Some(code) => ChangeAnswer::NotApplied(code),
                None => ChangeAnswer::Unknown,
            },
        };
        if matches!(&answer, ChangeAnswer::Done(coupon) if coupon.id.get() != self.coupon) {
            return Err("the answer shows another coupon than the one to be changed".to_owned());
        }
        Ok(ChangeCall {
            span,
            coupon: coupon_id(self.coupon)?,
            change: self.change.read()?,
            if_match: self.if_match,
            answer,
        })
    }
}

impl ChangeJson {
    fn of(change: &Change) -> Self {
        let text = |time: Option<Option<Timestamp>>| time.map(|time| time.map(|time| time.to_string()));
        match change {
            Change::Patch(patch) => Self::Patch(PatchJson {
                total_quantity: patch.total_quantity,
                starts_at: text(patch.starts_at),
                ends_at: text(patch.ends_at),
                use_within_days: patch.use_within_days,
                use_until: text(patch.use_until),
                time_zone: patch
                    .time_zone
                    .as_ref()
                    .map(|zone| zone.as_ref().map(SmolStr::to_string)),
                discount: patch.discount.map(|discount| discount.map(DiscountPatchJson::of)),
                max_discount: patch.max_discount,
                min_order_amount: patch.min_order_amount,
            }),
            Change::Pause => Self::Pause,
            Change::Resume => Self::Resume,
            Change::Close => Self::Close,
        }
    }

    fn read(self) -> Result<Change, String> {
        let read = |field, text: Option<Option<String>>| {
            text.map(|text| text.map(|text| time(field, &text)).transpose())
                .transpose()
        };
        Ok(match self {
            Self::Patch(patch) => Change::Patch(Patch {
                total_quantity: patch.total_quantity,
                starts_at: read("starts_at", patch.starts_at)?,
                ends_at: read("ends_at", patch.ends_at)?,
                use_within_days: patch.use_within_days,
                use_until: read("use_until", patch.use_until)?,
                time_zone: patch.time_zone.map(|zone| zone.map(SmolStr::new)),
                discount: patch
                    .discount
                    .map(|discount| discount.map(DiscountPatchJson::read)),
                max_discount: patch.max_discount,
                min_order_amount: patch.min_order_amount,
            }),
            Self::Pause => Change::Pause,
            Self::Resume => Change::Resume,
            Self::Close => Change::Close,
        })
    }
}

/// Returns the code of an answer according to which nothing was done; `None` if the answer leaves that open.
fn not_applied_code(
    status: u16,
    code: Option<String>,
    applied: Option<bool>,
) -> Result<Option<String>, String> {
    match (status, applied) {
        (400..=499, _) | (500..=599, Some(false)) => Ok(Some(code.unwrap_or_else(|| status.to_string()))),
        (500..=599, _) => Ok(None),
        _ => Err(format!("status {status} is no answer to this operation")),
    }
}

/// Does what [`not_applied_code`] does, for an administrator's operation, whose answer may be missing.
fn not_done(answer: Option<AnswerJson<serde_json::Value>>) -> Result<Option<String>, String> {
    let Some(AnswerJson { status, body, .. }) = answer else {
        return Ok(None);
    };
    let body = body.unwrap_or_default();
    let code = body
        .get("code")
        .and_then(serde_json::Value::as_str)
        .map(str::to_owned);
    not_applied_code(
        status,
        code,
        body.get("applied").and_then(serde_json::Value::as_bool),
    )
}

fn not_applied(code: &str) -> AnswerJson<serde_json::Value> {
    AnswerJson {
        status: 503,
        replayed: false,
        body: Some(serde_json::json!({"code": code, "applied": false})),
    }
}

fn coupon(body: Option<serde_json::Value>) -> Result<CouponRow, String> {
    let body = body.ok_or("an answer that shows a coupon has no body")?;
    serde_json::from_value(body).map_err(|error| format!("the coupon in the answer: {error}"))
}

/// Returns a coupon as JSON. Its fields are numbers and texts, so writing them cannot fail.
fn json(coupon: &CouponRow) -> serde_json::Value {
    serde_json::to_value(coupon).unwrap_or_default()
}

fn span(call_us: i64, answer_us: Option<i64>, answered: bool) -> Result<Span, String> {
    let read = |micros: i64| {
        Timestamp::from_micros(micros).ok_or_else(|| format!("{micros} us is outside the years 1000 to 9999"))
    };
    let span = Span {
        call: read(call_us)?,
        answer: answer_us.map(read).transpose()?,
    };
    match span.answer {
        Some(answer) if answer < span.call => Err("answer_us is before call_us".to_owned()),
        None if answered => Err("an answer lacks answer_us".to_owned()),
        Some(_) | None => Ok(span),
    }
}
