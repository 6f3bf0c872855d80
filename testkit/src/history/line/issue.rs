//! The line of a user's request for a coupon.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{AnswerJson, not_applied_code, span};
use crate::history::{Issue, IssueAnswer, Refusal};
use crate::ids::{RequestKey, UserId};
use crate::rows::{IssuanceRow, coupon_id, time};
use crate::time::Timestamp;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IssueLine<'a> {
    call_us: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer_us: Option<i64>,
    coupon: u64,
    #[serde(borrow)]
    user: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    #[serde(default)]
    answer: Option<AnswerJson<IssueBody>>,
}

/// The fields of an issuance and of a problem in one type. If there were two types, each line would have to
/// be parsed twice.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct IssueBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    coupon_id: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issued_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    applied: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuance: Option<Box<IssuanceRow>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    starts_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ends_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server_time: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    total_quantity: Option<u64>,
}

impl<'a> IssueLine<'a> {
    pub(super) fn of(issue: &'a Issue) -> Self {
        let answer = match &issue.answer {
            IssueAnswer::Issued { issuance, replayed } => Some(AnswerJson {
                status: 201,
                replayed: *replayed,
                body: Some(IssueBody::issued(issuance)),
            }),
            IssueAnswer::Refused(refusal) => Some(IssueBody::refused(refusal)),
            IssueAnswer::NotApplied(code) => {
                let body = IssueBody {
                    code: Some(code.clone()),
                    applied: Some(false),
                    ..IssueBody::default()
                };
                Some(AnswerJson {
                    status: 503,
                    replayed: false,
                    body: Some(body),
                })
            }
            IssueAnswer::Unknown => None,
        };
        Self {
            call_us: issue.span.call.as_micros(),
            answer_us: issue.span.answer.map(Timestamp::as_micros),
            coupon: issue.coupon.get(),
            user: issue.user.as_str().into(),
            key: issue.key.as_ref().map(|key| key.as_str().into()),
            answer,
        }
    }

    pub(super) fn read(self) -> Result<Issue, String> {
        let span = span(self.call_us, self.answer_us, self.answer.is_some())?;
        let answer = self.answer.map_or(Ok(IssueAnswer::Unknown), issue_answer)?;
        Ok(Issue {
            span,
            coupon: coupon_id(self.coupon)?,
            user: UserId::parse(&self.user).map_err(|error| error.to_string())?,
            key: self
                .key
                .map(|key| RequestKey::parse(&key))
                .transpose()
                .map_err(|error| error.to_string())?,
            answer,
        })
    }
}

impl IssueBody {
    fn issued(row: &IssuanceRow) -> Self {
        Self {
            id: Some(row.id.to_string()),
            coupon_id: Some(row.id.coupon.get()),
            user_id: Some(row.user.to_string()),
            sequence: Some(row.id.sequence.get()),
            issued_at: Some(row.issued_at.to_string()),
            expires_at: row.expires_at.map(|time| time.to_string()),
            ..Self::default()
        }
    }

    fn refused(refusal: &Refusal) -> AnswerJson<Self> {
        let mut body = Self {
            code: Some(refusal.code().to_owned()),
            ..Self::default()
        };
        match refusal {
            Refusal::AlreadyIssued(row) => body.issuance = Some(row.clone()),
            Refusal::NotStarted {
                starts_at,
                server_time,
            } => {
                body.starts_at = Some(starts_at.to_string());
                body.server_time = Some(server_time.to_string());
            }
            Refusal::Ended { ends_at, server_time } => {
                body.ends_at = Some(ends_at.to_string());
                body.server_time = Some(server_time.to_string());
            }
            Refusal::SoldOut { total_quantity } => body.total_quantity = Some(*total_quantity),
            Refusal::UnknownCoupon | Refusal::Closed | Refusal::Paused => {}
        }
        let status = if *refusal == Refusal::UnknownCoupon {
            404
        } else {
            409
        };
        AnswerJson {
            status,
            replayed: false,
            body: Some(body),
        }
    }

    fn issuance(self) -> Result<IssuanceRow, String> {
        let lacks = |field| move || format!("a 201 lacks {field}");
        IssuanceRow::try_from(crate::rows::IssuanceJson {
            id: self.id.ok_or_else(lacks("id"))?,
            coupon_id: self.coupon_id.ok_or_else(lacks("coupon_id"))?,
            user_id: self.user_id.ok_or_else(lacks("user_id"))?,
            sequence: self.sequence.ok_or_else(lacks("sequence"))?,
            issued_at: self.issued_at.ok_or_else(lacks("issued_at"))?,
            expires_at: self.expires_at,
        })
    }

    fn refusal(self, code: &str) -> Result<Refusal, String> {
        let lacks = |field| move || format!("{code} lacks {field}");
        let read = |field: &'static str, text: Option<String>| time(field, &text.ok_or_else(lacks(field))?);
        Ok(match code {
            "UNKNOWN_COUPON" => Refusal::UnknownCoupon,
            "ALREADY_ISSUED" => Refusal::AlreadyIssued(self.issuance.ok_or_else(lacks("issuance"))?),
            "CLOSED" => Refusal::Closed,
            "PAUSED" => Refusal::Paused,
            "NOT_STARTED" => Refusal::NotStarted {
                starts_at: read("starts_at", self.starts_at)?,
                server_time: read("server_time", self.server_time)?,
            },
            "ENDED" => Refusal::Ended {
                ends_at: read("ends_at", self.ends_at)?,
                server_time: read("server_time", self.server_time)?,
            },
            "SOLD_OUT" => Refusal::SoldOut {
                total_quantity: self.total_quantity.ok_or_else(lacks("total_quantity"))?,
            },
            _ => return Err(format!("{code:?} is no refusal of a request for a coupon")),
        })
    }
}

fn issue_answer(answer: AnswerJson<IssueBody>) -> Result<IssueAnswer, String> {
    let AnswerJson {
        status,
        replayed,
        body,
    } = answer;
    let mut body = body.unwrap_or_default();
    let code = body.code.take();
    match (status, code) {
        (201, _) => Ok(IssueAnswer::Issued {
            issuance: body.issuance()?,
            replayed,
        }),
        (409, Some(code)) => body.refusal(&code).map(IssueAnswer::Refused),
        (404, Some(code)) if code == "UNKNOWN_COUPON" => Ok(IssueAnswer::Refused(Refusal::UnknownCoupon)),
        (status, code) => Ok(match not_applied_code(status, code, body.applied)? {
            Some(code) => IssueAnswer::NotApplied(code),
            None => IssueAnswer::Unknown,
        }),
    }
}
