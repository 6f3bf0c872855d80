//! The lines of requests to use an issuance, and of quotes.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{AnswerJson, not_applied, not_applied_code, not_done, span};
use crate::history::{Quote, QuoteAnswer, Step, StepAnswer, StepCall, StepRefusal};
use crate::ids::{IssuanceId, OrderId};
use crate::rows::{ShownUse, UsedIssuance, time};
use crate::time::Timestamp;

/// How long an issuance is held if a request does not say so.
const HOLD_SECONDS_DEFAULT: u32 = 900;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StepLine {
    call_us: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer_us: Option<i64>,
    issuance: String,
    step: StepName,
    #[serde(default)]
    body: StepBody,
    #[serde(default)]
    answer: Option<AnswerJson<Value>>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StepName {
    Reserve,
    Redeem,
    Release,
    Refund,
    Revoke,
}

/// A body as it was sent. Fields that decide nothing are ignored.
#[derive(Debug, Default, Serialize, Deserialize)]
struct StepBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    order_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    order_amount: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    return_quantity: Option<bool>,
}

impl StepLine {
    pub(super) fn of(call: &StepCall) -> Self {
        let answer = match &call.answer {
            StepAnswer::Done { used, replayed } => Some(AnswerJson {
                status: 200,
                replayed: *replayed,
                body: Some(written(used)),
            }),
            StepAnswer::Refused(refusal) => Some(refused(refusal)),
            StepAnswer::NotApplied(code) => Some(not_applied(code)),
            StepAnswer::Unknown => None,
        };
        let (step, body) = parts(&call.step);
        Self {
            call_us: call.span.call.as_micros(),
            answer_us: call.span.answer.map(Timestamp::as_micros),
            issuance: call.issuance.to_string(),
            step,
            body,
            answer,
        }
    }

    pub(super) fn read(self) -> Result<StepCall, String> {
        let span = span(self.call_us, self.answer_us, self.answer.is_some())?;
        Ok(StepCall {
            span,
            issuance: issuance(&self.issuance)?,
            step: read_step(self.step, self.body)?,
            answer: self.answer.map_or(Ok(StepAnswer::Unknown), answer)?,
        })
    }
}

fn parts(step: &Step) -> (StepName, StepBody) {
    let body = StepBody {
        order_id: step.order().map(OrderId::to_string),
        order_amount: step.amount(),
        ..StepBody::default()
    };
    match step {
        Step::Reserve { hold_seconds, .. } => {
            let hold = Some(*hold_seconds);
            (StepName::Reserve, StepBody { hold, ..body })
        }
        Step::Redeem { .. } => (StepName::Redeem, body),
        Step::Release { .. } => (StepName::Release, body),
        Step::Refund { .. } => (StepName::Refund, body),
        Step::Revoke { returns } => {
            let return_quantity = Some(*returns);
            let body = StepBody {
                return_quantity,
                ..body
            };
            (StepName::Revoke, body)
        }
    }
}

fn read_step(name: StepName, body: StepBody) -> Result<Step, String> {
    let order = || {
        let text = body.order_id.as_deref().ok_or("a step lacks order_id")?;
        OrderId::parse(text).map_err(|error| error.to_string())
    };
    Ok(match name {
        StepName::Reserve => Step::Reserve {
            order: order()?,
            amount: body.order_amount.ok_or("a reservation lacks order_amount")?,
            hold_seconds: body.hold.unwrap_or(HOLD_SECONDS_DEFAULT),
        },
        StepName::Redeem => Step::Redeem {
            order: order()?,
            amount: body.order_amount,
        },
        StepName::Release => Step::Release { order: order()? },
        StepName::Refund => Step::Refund { order: order()? },
        StepName::Revoke => Step::Revoke {
            returns: body.return_quantity.unwrap_or(false),
        },
    })
}

fn answer(answer: AnswerJson<Value>) -> Result<StepAnswer, String> {
    let AnswerJson {
        status,
        replayed,
        body,
    } = answer;
    let body = body.unwrap_or_default();
    let code = body.get("code").and_then(Value::as_str).map(str::to_owned);
    match (status, code.as_deref()) {
        (200, _) => {
            let used: UsedIssuance = serde_json::from_value(body)
                .map_err(|error| format!("the issuance in the answer: {error}"))?;
            Ok(StepAnswer::Done {
                used: Box::new(used),
                replayed,
            })
        }
        (409, Some(code)) => refusal(code, &body).map(StepAnswer::Refused),
        (404, Some("UNKNOWN_ISSUANCE")) => Ok(StepAnswer::Refused(StepRefusal::UnknownIssuance)),
        (422, Some(code @ "ORDER_MISMATCH")) => refusal(code, &body).map(StepAnswer::Refused),
        _ => {
            let applied = body.get("applied").and_then(Value::as_bool);
            Ok(match not_applied_code(status, code, applied)? {
                Some(code) => StepAnswer::NotApplied(code),
                None => StepAnswer::Unknown,
            })
        }
    }
}

fn refusal(code: &str, body: &Value) -> Result<StepRefusal, String> {
    let field = |name: &'static str| body.get(name).ok_or_else(|| format!("{code} lacks {name}"));
    let read = |name: &'static str| {
        let text = field(name)?
            .as_str()
            .ok_or_else(|| format!("{name} is no text"))?;
        time(name, text)
    };
    let shown = || -> Result<Option<Box<ShownUse>>, String> {
        let Some(shown) = body.get("use") else {
            return Ok(None);
        };
        let shown =
            serde_json::from_value(shown.clone()).map_err(|error| format!("the use of {code}: {error}"))?;
        Ok(Some(Box::new(shown)))
    };
    Ok(match code {
        "ORDER_MISMATCH" => StepRefusal::OrderMismatch(shown()?),
        "REVOKED" => StepRefusal::Revoked,
        "REDEEMED" => StepRefusal::Redeemed(shown()?),
        "RESERVED" => StepRefusal::Reserved {
            hold_until: read("hold_until")?,
        },
        "EXPIRED" => StepRefusal::Expired {
            usable_until: read("usable_until")?,
        },
        "BELOW_MINIMUM" => StepRefusal::BelowMinimum {
            min_order_amount: field("min_order_amount")?
                .as_u64()
                .ok_or("min_order_amount is no whole number")?,
        },
        "NOT_RESERVED" => StepRefusal::NotReserved,
        "NOT_REDEEMED" => StepRefusal::NotRedeemed,
        _ => return Err(format!("{code:?} is no refusal of a step")),
    })
}

fn refused(refusal: &StepRefusal) -> AnswerJson<Value> {
    let mut body = json!({"code": refusal.code()});
    match refusal {
        StepRefusal::OrderMismatch(Some(shown)) | StepRefusal::Redeemed(Some(shown)) => {
            body["use"] = written(shown);
        }
        StepRefusal::Reserved { hold_until } => body["hold_until"] = hold_until.to_string().into(),
        StepRefusal::Expired { usable_until } => body["usable_until"] = usable_until.to_string().into(),
        StepRefusal::BelowMinimum { min_order_amount } => {
            body["min_order_amount"] = (*min_order_amount).into();
        }
        StepRefusal::UnknownIssuance
        | StepRefusal::OrderMismatch(None)
        | StepRefusal::Revoked
        | StepRefusal::Redeemed(None)
        | StepRefusal::NotReserved
        | StepRefusal::NotRedeemed => {}
    }
    let status = match refusal {
        StepRefusal::UnknownIssuance => 404,
        StepRefusal::OrderMismatch(_) => 422,
        _ => 409,
    };
    AnswerJson {
        status,
        replayed: false,
        body: Some(body),
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QuoteLine {
    call_us: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer_us: Option<i64>,
    issuance: String,
    order_amount: u64,
    #[serde(default)]
    answer: Option<AnswerJson<Value>>,
}

/// The answer to a quote.
#[derive(Debug, Serialize, Deserialize)]
struct QuoteBody {
    order_amount: u64,
    discount: u64,
    payable: u64,
    usable: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

impl QuoteLine {
    pub(super) fn of(quote: &Quote) -> Self {
        let answer = match &quote.answer {
            QuoteAnswer::Told {
                amount,
                discount,
                payable,
                refused,
            } => {
                let body = QuoteBody {
                    order_amount: *amount,
                    discount: *discount,
                    payable: *payable,
                    usable: refused.is_none(),
                    code: refused.clone(),
                };
                Some(AnswerJson {
                    status: 200,
                    replayed: false,
                    body: Some(written(&body)),
                })
            }
            QuoteAnswer::Failed(code) if code == "unknown" => None,
            QuoteAnswer::Failed(code) => Some(not_applied(code)),
        };
        Self {
            call_us: quote.span.call.as_micros(),
            answer_us: quote.span.answer.map(Timestamp::as_micros),
            issuance: quote.issuance.to_string(),
            order_amount: quote.amount,
            answer,
        }
    }

    pub(super) fn read(self) -> Result<Quote, String> {
        let span = span(self.call_us, self.answer_us, self.answer.is_some())?;
        let answer = match self.answer {
            Some(AnswerJson {
                status: 200,
                body: Some(body),
                ..
            }) => {
                let body: QuoteBody = serde_json::from_value(body)
                    .map_err(|error| format!("the quote in the answer: {error}"))?;
                if body.usable == body.code.is_some() {
                    return Err("a quote has a code if, and only if, it is not usable".to_owned());
                }
                QuoteAnswer::Told {
                    amount: body.order_amount,
                    discount: body.discount,
                    payable: body.payable,
                    refused: body.code,
                }
            }
            other => QuoteAnswer::Failed(not_done(other)?.unwrap_or_else(|| "unknown".to_owned())),
        };
        Ok(Quote {
            span,
            issuance: issuance(&self.issuance)?,
            amount: self.order_amount,
            answer,
        })
    }
}

fn issuance(text: &str) -> Result<IssuanceId, String> {
    IssuanceId::parse(text).map_err(|error| error.to_string())
}

/// Returns a value as JSON. Its fields are numbers and texts, so writing them cannot fail.
fn written(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}
