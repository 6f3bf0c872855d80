//! `/v1/issuances/{id}/…`: uses an issuance for an order.

use actors::coupon::offer::AMOUNT_MAX;
use actors::coupon::uses::decide::{HOLD_SECONDS_MAX, HOLD_SECONDS_MIN, Quote, Step, UseRefusal};
use actors::coupon::uses::{LatestUse, REASON_CHARS_MAX, Use, UseNumber};
use actors::ids::{OrderId, UserId};
use actors::time::{self, Timestamp};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::issuances::{IssuanceBody, IssuanceName};
use super::list::{self, WHOLE_NUMBER, cursor, limit};
use super::{Answer, principal, set_replayed};
use crate::http::call::Call;
use crate::http::json::{self, Checked, Text, numbers};
use crate::http::problem::{FieldError, RequestError};
use crate::service::auth::Principal;
use crate::service::list::whole_number;
use crate::service::{self, Service};

/// How long an issuance is held if a request does not say so.
const HOLD_SECONDS_DEFAULT: u32 = 900;

/// A use in a response.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Use)]
pub(super) struct UseBody<'a> {
    #[schema(pattern = "^(reserved|redeemed|released|refunded|revoked)$")]
    pub(super) kind: &'static str,
    #[schema(required, pattern = "^[!-~]{1,64}$")]
    pub(super) order_id: Option<&'a str>,
    #[schema(required, minimum = 0, maximum = 9_007_199_254_740_991_usize)]
    pub(super) order_amount: Option<u64>,
    #[schema(required, minimum = 0, maximum = 9_007_199_254_740_991_usize)]
    pub(super) discount: Option<u64>,
    /// When the hold lapses; null unless it is a reservation.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub(super) hold_until: Option<Text<Timestamp>>,
    #[schema(value_type = String, format = DateTime)]
    pub(super) at: Text<Timestamp>,
}

impl<'a> From<&'a LatestUse> for UseBody<'a> {
    fn from(shown: &'a LatestUse) -> Self {
        Self {
            kind: shown.kind.as_str(),
            order_id: shown.order.as_ref().map(OrderId::as_str),
            order_amount: shown.figures.map(|figures| figures.amount),
            discount: shown.figures.map(|figures| figures.discount),
            hold_until: shown.hold_until.map(Text),
            at: Text(shown.at),
        }
    }
}

/// A use in the history of an issuance.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PastUseBody<'a> {
    /// Its number among the uses of the coupon: 1, 2, 3 … in the order in which they were decided.
    #[schema(minimum = 1)]
    number: u64,
    #[schema(pattern = "^(reserved|redeemed|released|refunded|revoked)$")]
    kind: &'static str,
    #[schema(required, pattern = "^[!-~]{1,64}$")]
    order_id: Option<&'a str>,
    #[schema(required, minimum = 0, maximum = 9_007_199_254_740_991_usize)]
    order_amount: Option<u64>,
    #[schema(required, minimum = 0, maximum = 9_007_199_254_740_991_usize)]
    discount: Option<u64>,
    /// When the hold lapses; null unless it is a reservation.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    hold_until: Option<Text<Timestamp>>,
    #[schema(value_type = String, format = DateTime)]
    at: Text<Timestamp>,
    /// Why it was revoked, if that was said.
    #[schema(required)]
    reason: Option<&'a str>,
    /// True if it was revoked and given back to the quantity.
    return_quantity: bool,
    /// Who asked for it.
    by: &'a str,
}

impl<'a> From<&'a Use> for PastUseBody<'a> {
    fn from(past: &'a Use) -> Self {
        let shown = UseBody::from(&past.shown);
        Self {
            number: past.number.get(),
            kind: shown.kind,
            order_id: shown.order_id,
            order_amount: shown.order_amount,
            discount: shown.discount,
            hold_until: shown.hold_until,
            at: shown.at,
            reason: past.reason.as_deref(),
            return_quantity: past.shown.returns,
            by: past.author.as_str(),
        }
    }
}

/// What an order would get.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Quote)]
pub(super) struct QuoteBody {
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_usize)]
    order_amount: u64,
    /// What a reservation now would take off.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_usize)]
    discount: u64,
    /// What would be left to pay.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_usize)]
    payable: u64,
    usable: bool,
    /// The code of the refusal, if it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, pattern = "^[A-Z_]+$")]
    code: Option<&'static str>,
}

impl From<Quote> for QuoteBody {
    fn from(Quote { figures, refusal }: Quote) -> Self {
        Self {
            order_amount: figures.amount,
            discount: figures.discount,
            payable: figures.amount.saturating_sub(figures.discount),
            usable: refusal.is_none(),
            code: refusal.as_ref().map(code),
        }
    }
}

/// Returns the code of a refusal.
pub(super) fn code(refusal: &UseRefusal) -> &'static str {
    super::error::use_problem(refusal).0
}

/// Holds an issuance for an order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReserveBody {
    #[schema(required, value_type = String, pattern = "^[!-~]{1,64}$")]
    order_id: Option<String>,
    #[serde(default, deserialize_with = "numbers::optional")]
    #[schema(required, value_type = u64, minimum = 0, maximum = 9_007_199_254_740_991_usize)]
    order_amount: Option<u64>,
    /// In seconds.
    #[serde(default, deserialize_with = "numbers::optional")]
    #[schema(minimum = 1, maximum = 86_400, default = 900)]
    hold: Option<u64>,
}

impl Checked for ReserveBody {
    type Value = Option<Step>;

    fn check(self, errors: &mut Vec<FieldError>) -> Option<Step> {
        let order = order(self.order_id, errors);
        if self.order_amount.is_none() {
            errors.push(FieldError::new("order_amount", json::REQUIRED));
        }
        let amount = amount(self.order_amount, errors);
        let hold_seconds = u32::try_from(self.hold.unwrap_or(HOLD_SECONDS_DEFAULT.into())).ok();
        let hold_seconds =
            hold_seconds.filter(|seconds| (HOLD_SECONDS_MIN..=HOLD_SECONDS_MAX).contains(seconds));
        if hold_seconds.is_none() {
            errors.push(FieldError::new("hold", "must be from 1 to 86400 seconds"));
        }
        Some(Step::Reserve {
            order: order?,
            amount: amount?,
            hold_seconds: hold_seconds?,
        })
    }
}

/// Uses an issuance for an order that is paid.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RedeemBody {
    #[schema(required, value_type = String, pattern = "^[!-~]{1,64}$")]
    order_id: Option<String>,
    /// May be absent if the order holds the issuance.
    #[serde(default, deserialize_with = "numbers::optional")]
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_usize)]
    order_amount: Option<u64>,
}

impl Checked for RedeemBody {
    type Value = Option<Step>;

    fn check(self, errors: &mut Vec<FieldError>) -> Option<Step> {
        let (order, amount) = (order(self.order_id, errors), amount(self.order_amount, errors));
        Some(Step::Redeem {
            order: order?,
            amount,
        })
    }
}

/// Names an order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderBody {
    #[schema(required, value_type = String, pattern = "^[!-~]{1,64}$")]
    order_id: Option<String>,
}

impl Checked for OrderBody {
    type Value = Option<OrderId>;

    fn check(self, errors: &mut Vec<FieldError>) -> Option<OrderId> {
        order(self.order_id, errors)
    }
}

/// Takes an issuance away.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RevokeBody {
    #[schema(max_length = 500, pattern = "^[^\\u0000]*$")]
    reason: Option<String>,
    /// True if another one may be issued instead.
    #[schema(default = false)]
    return_quantity: Option<bool>,
}

impl Checked for RevokeBody {
    type Value = Option<Step>;

    fn check(self, errors: &mut Vec<FieldError>) -> Option<Step> {
        let fits = |reason: &String| reason.chars().count() <= REASON_CHARS_MAX && !reason.contains('\0');
        if !self.reason.as_ref().is_none_or(fits) {
            let message = "must have at most 500 characters and no U+0000";
            errors.push(FieldError::new("reason", message));
        }
        Some(Step::Revoke {
            reason: self.reason,
            returns: self.return_quantity.unwrap_or(false),
        })
    }
}

fn order(text: Option<String>, errors: &mut Vec<FieldError>) -> Option<OrderId> {
    let order = text.as_deref().map(OrderId::parse);
    match order {
        Some(Ok(order)) => return Some(order),
        Some(Err(_)) => errors.push(FieldError::new(
            "order_id",
            "must be 1 to 64 visible ASCII characters",
        )),
        None => errors.push(FieldError::new("order_id", json::REQUIRED)),
    }
    None
}

fn amount(amount: Option<u64>, errors: &mut Vec<FieldError>) -> Option<u64> {
    if amount.is_some_and(|amount| amount > AMOUNT_MAX) {
        errors.push(FieldError::new("order_amount", "must be from 0 to 2^53 - 1"));
        return None;
    }
    amount
}

/// `POST /v1/issuances/{id}/reserve`
pub(super) async fn reserve(service: &Service, call: &Call) -> Answer {
    take(
        service,
        call,
        Service::may_reserve,
        Call::json_checked::<ReserveBody>,
    )
    .await
}

/// `POST /v1/issuances/{id}/redeem`
pub(super) async fn redeem(service: &Service, call: &Call) -> Answer {
    take(service, call, may_use, Call::json_checked::<RedeemBody>).await
}

/// `POST /v1/issuances/{id}/release`
pub(super) async fn release(service: &Service, call: &Call) -> Answer {
    let step = |call: &Call| Ok(order_of(call)?.map(|order| Step::Release { order }));
    take(service, call, Service::may_reserve, step).await
}

/// `POST /v1/issuances/{id}/refund`
pub(super) async fn refund(service: &Service, call: &Call) -> Answer {
    let step = |call: &Call| Ok(order_of(call)?.map(|order| Step::Refund { order }));
    take(service, call, may_use, step).await
}

/// `POST /v1/issuances/{id}/revoke`
pub(super) async fn revoke(service: &Service, call: &Call) -> Answer {
    let may_revoke = |_: &Service, principal: &Principal| principal.require_admin().map(|()| None);
    take(
        service,
        call,
        may_revoke,
        Call::json_checked_or_default::<RevokeBody>,
    )
    .await
}

fn may_use(_: &Service, principal: &Principal) -> Result<Option<UserId>, service::Error> {
    principal.require_use().map(|()| None)
}

fn order_of(call: &Call) -> Result<Option<OrderId>, RequestError> {
    call.json_checked::<OrderBody>()
}

/// Takes a step. A missing right is reported first, then a path that is neither an id nor a code, then a
/// wrong body, then a wrong code or an unknown issuance. `allow` checks the right, and returns the user if
/// the principal may use only this user's issuances.
async fn take(
    service: &Service,
    call: &Call,
    allow: impl FnOnce(&Service, &Principal) -> Result<Option<UserId>, service::Error>,
    step: impl FnOnce(&Call) -> Result<Option<Step>, RequestError>,
) -> Answer {
    let principal = principal(service, call)?;
    let of_user = allow(service, &principal)?;
    let name = IssuanceName::read(call)?;
    // There is no step only if the body was refused, which has returned above.
    let step = step(call)?.ok_or(service::Error::Internal { applied: Some(false) })?;
    let id = name.find(service.codes())?;
    let (used, replayed) = service
        .use_issuance(id, of_user, &principal, step, &call.head.span)
        .await?;
    let body = IssuanceBody::new(&used, service.codes(), time::timestamp());
    let mut response = json::response(StatusCode::OK, &body);
    set_replayed(&mut response, replayed);
    Ok(response)
}

/// `GET /v1/issuances/{id}/quote`
pub(super) async fn quote(service: &Service, call: &Call) -> Answer {
    let principal = principal(service, call)?;
    principal.require_known()?;
    let name = IssuanceName::read(call)?;
    let amount = call.query(|query| query.required("order_amount", WHOLE_NUMBER, whole_number))?;
    // A missing amount is an error of the query.
    let amount = amount.ok_or_else(|| RequestError::invalid("order_amount", json::REQUIRED))?;
    let id = name.find(service.codes())?;
    let quote = service.quote(id, &principal, amount).await?;
    Ok(json::response(StatusCode::OK, &QuoteBody::from(quote)))
}

/// `GET /v1/issuances/{id}/uses`
pub(super) async fn list(service: &Service, call: &Call) -> Answer {
    principal(service, call)?.require_reader_or_service()?;
    let name = IssuanceName::read(call)?;
    let (after, limit) = call.query(|query| (cursor(query), limit(query)))?;
    let id = name.find(service.codes())?;
    let page = service
        .uses_of(id, after.unwrap_or(UseNumber::NONE), limit)
        .await?;
    Ok(list::response(&page, PastUseBody::from))
}
