//! The audit log: what administrators changed about a coupon, and who did it.

use actors::coupon::record::{ChangeRecord, ChangeRow};
use actors::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::coupons::coupon_id;
use super::error::Error;
use super::list::{self, cursor, limit};
use super::{Answer, principal};
use crate::http::call::Call;
use crate::http::json::Text;
use crate::service::Service;
use crate::service::auth::Principal;
use crate::service::list::ChangeCursor;

/// A change as the API writes it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChangeBody {
    /// The version of the coupon after the change; 1 is its creation.
    #[schema(minimum = 1)]
    version: u64,
    /// Null if a node of the former build received the change.
    #[schema(required)]
    who: Option<WhoBody>,
    #[schema(value_type = String, format = DateTime)]
    when: Text<Timestamp>,
    /// Null if a node of the former build received the change.
    #[schema(required)]
    what: Option<WhatBody>,
}

/// Who made a change.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Author)]
pub(super) struct WhoBody {
    #[schema(pattern = "^(user|key)$")]
    kind: &'static str,
    #[schema(pattern = "^[!-~]{1,128}$")]
    name: String,
}

/// What a change asked for. It is stored in this form.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Asked)]
pub(super) struct WhatBody {
    #[schema(pattern = "^(create|patch|pause|resume|close)$")]
    change: String,
    /// The body of the request.
    #[schema(value_type = Object)]
    fields: Map<String, Value>,
}

impl From<&ChangeRow> for ChangeBody {
    fn from(row: &ChangeRow) -> Self {
        let record = row.record.as_ref();
        Self {
            version: row.version,
            who: record.map(|ChangeRecord { author, .. }| WhoBody {
                kind: author.kind().as_str(),
                name: author.name().to_owned(),
            }),
            when: Text(row.changed_at),
            what: record.and_then(|record| serde_json::from_str(&record.asked).ok()),
        }
    }
}

/// Returns what the audit log keeps of a change that the principal asks for, with the body of this request.
pub(super) fn record(
    principal: &Principal,
    change: &str,
    body: Option<&Call>,
) -> Result<ChangeRecord, Error> {
    let asked = WhatBody {
        change: change.to_owned(),
        fields: body.map(Call::json).transpose()?.unwrap_or_default(),
    };
    // Texts and values that were JSON always have a JSON form.
    let asked = serde_json::to_string(&asked).unwrap_or_default();
    let author = principal.author()?;
    Ok(ChangeRecord { author, asked })
}

/// `GET /v1/coupons/{id}/changes`
pub(super) async fn list(service: &Service, call: &Call) -> Answer {
    principal(service, call)?.require_reader()?;
    let coupon = coupon_id(call.parameter())?;
    let (after, limit) = call.query(|query| (cursor::<ChangeCursor>(query), limit(query)))?;
    let page = service.changes(coupon, after, limit).await?;
    Ok(list::response(&page, ChangeBody::from))
}
