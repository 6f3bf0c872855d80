//! Issues coupons, and reads issuances.

use actors::coupon::code::{Code, TypedCode};
use actors::coupon::ids::{CouponId, IssuanceId, Sequence};
use actors::coupon::uses::{UseState, UsedIssuance};
use actors::ids::{RequestKey, USER_ID_BYTES_MAX, UserId};
use actors::time::{self, Timestamp};
use http::StatusCode;
use http::header::LOCATION;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use warp::reply::Response;

use super::coupons::{CouponBody, coupon_id};
use super::error::Error;
use super::list::{self, WHOLE_NUMBER, cursor, limit};
use super::uses::{QuoteBody, UseBody};
use super::{Answer, principal, request_key, set_header, set_replayed};
use crate::http::call::Call;
use crate::http::json::{self, Checked, Text};
use crate::http::problem::{FieldError, RequestError};
use crate::http::query::Query;
use crate::service::auth::Principal;
use crate::service::codes::Codes;
use crate::service::engine::{Issuance, IssueResponse};
use crate::service::issuance_lists::{IssuanceList, IssuanceListOptions, Requester};
use crate::service::list::{Cursor, Row, whole_number};
use crate::service::{self, Service};

/// An issuance as the API writes it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Issuance)]
pub(super) struct IssuanceBody<'a> {
    #[schema(value_type = String, pattern = "^[1-9][0-9]{0,15}-[1-9][0-9]{0,15}$")]
    pub(super) id: Text<IssuanceId>,
    /// A name of the issuance for people. Every path takes it in place of the id. It is read without regard
    /// to case and dashes, with `O` as 0, and `I` and `L` as 1.
    #[schema(value_type = String, pattern = "^([0-9A-HJKMNP-TV-Z]{4}){5,9}$")]
    pub(super) code: Text<Code>,
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_usize)]
    pub(super) coupon_id: u64,
    #[schema(pattern = "^[!-~]{1,128}$")]
    pub(super) user_id: &'a str,
    #[schema(minimum = 1)]
    pub(super) sequence: u64,
    /// Like `state`, but `issued` where that is `expired`.
    #[schema(pattern = "^(issued|reserved|redeemed|revoked)$")]
    pub(super) status: &'static str,
    #[schema(pattern = "^(issued|reserved|redeemed|revoked|expired)$")]
    pub(super) state: &'static str,
    #[schema(value_type = String, format = DateTime)]
    pub(super) issued_at: Text<Timestamp>,
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub(super) expires_at: Option<Text<Timestamp>>,
    /// The same as `expires_at`.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub(super) usable_until: Option<Text<Timestamp>>,
    /// The latest use, if there is one.
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = UseBody)]
    pub(super) latest_use: Option<UseBody<'a>>,
    /// What an order of the amount in the request would get, in lists that ask for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = QuoteBody)]
    pub(super) quote: Option<QuoteBody>,
    /// The coupon, in lists that ask for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = CouponBody)]
    pub(super) coupon: Option<CouponBody<'a>>,
}

impl<'a> IssuanceBody<'a> {
    /// The issuance as it is at `now`.
    pub(super) fn new(used: &'a UsedIssuance, codes: &Codes, now: Timestamp) -> Self {
        let state = used.state(now);
        let status = match state {
            UseState::Expired => UseState::Issued,
            state => state,
        };
        Self {
            status: status.as_str(),
            state: state.as_str(),
            latest_use: used.latest.as_ref().map(UseBody::from),
            ..Self::issued(&used.issuance, codes)
        }
    }

    /// An issuance that was never used and has not expired.
    pub(super) fn issued(issuance: &'a Issuance, codes: &Codes) -> Self {
        Self {
            id: Text(issuance.id),
            code: Text(codes.of(issuance.id)),
            coupon_id: issuance.id.coupon.get(),
            user_id: issuance.user.as_str(),
            sequence: issuance.id.sequence.get(),
            status: UseState::Issued.as_str(),
            state: UseState::Issued.as_str(),
            usable_until: issuance.expires_at.map(Text),
            latest_use: None,
            quote: None,
            coupon: None,
            issued_at: Text(issuance.issued_at),
            expires_at: issuance.expires_at.map(Text),
        }
    }
}

/// What a request asks of a list of issuances.
pub(super) fn list_options(query: &mut Query) -> IssuanceListOptions {
    let state = query.get(
        "state",
        "must be issued, reserved, redeemed, revoked, expired or usable",
        |text| match text {
            // An issuance that has expired is not issued any more.
            "usable" => Some(UseState::Issued),
            text => UseState::parse(text),
        },
    );
    let order_amount = query.get("order_amount", WHOLE_NUMBER, whole_number);
    let expand = query.get("expand", "must be coupon", |text| {
        (text == "coupon").then_some(())
    });
    IssuanceListOptions {
        state,
        order_amount,
        with_coupons: expand.is_some(),
    }
}

/// Returns the response with a page of issuances.
pub(super) fn page<C: Cursor>(list: &IssuanceList<C>, codes: &Codes) -> Response
where
    UsedIssuance: Row<C>,
{
    let item = |used| IssuanceBody {
        quote: list.quote(used).map(QuoteBody::from),
        coupon: list.coupon(used).map(|view| CouponBody::new(view, list.now)),
        ..IssuanceBody::new(used, codes, list.now)
    };
    list::response(&list.page, item)
}

/// The optional body of an issue request. If the principal is no user, the body must name one.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct IssueBody<const NAMES_USER: bool> {
    /// The user that gets the coupon, if a service sends the request. Of another principal the field is
    /// refused whatever it is, so that only the request of a service is checked.
    #[serde(default, deserialize_with = "json::present")]
    user_id: Option<Value>,
}

/// Becomes the user that the body names.
impl<const NAMES_USER: bool> Checked for IssueBody<NAMES_USER> {
    type Value = Option<UserId>;

    fn check(self, errors: &mut Vec<FieldError>) -> Option<UserId> {
        let user = match self.user_id {
            Some(user) => user_id(&user).map(Some),
            None if NAMES_USER => Err("is required, because a key is not a user"),
            None => Ok(None),
        };
        user.unwrap_or_else(|message| {
            errors.push(FieldError::new("user_id", message));
            None
        })
    }
}

/// Returns the user that gets the coupon.
fn receiver(call: &Call, principal: &Principal) -> Result<UserId, Error> {
    if let Err(not_a_service) = principal.require_service() {
        return match call.json_or_default::<IssueBody<false>>()?.user_id {
            Some(_) => Err(not_a_service.into()),
            None => Ok(principal.require_user()?.clone()),
        };
    }
    let named = match principal.user() {
        Some(user) => {
            let named = call.json_checked_or_default::<IssueBody<false>>()?;
            Some(named.unwrap_or_else(|| user.clone()))
        }
        // A service that is a key.
        None => call.json_checked_or_default::<IssueBody<true>>()?,
    };
    // A body that must name a user and does not was refused above.
    Ok(named.ok_or(service::Error::Internal { applied: Some(false) })?)
}

/// `POST /v1/coupons/{id}/issuances`
pub(super) async fn issue(service: &Service, call: &Call) -> Answer {
    let principal = principal(service, call)?;
    principal.require_issuer()?;
    let coupon = coupon_id(call.parameter())?;
    let key = request_key(&call.head)?;
    let user = receiver(call, &principal)?;
    let key = key.unwrap_or_else(RequestKey::random);
    let IssueResponse { used, replayed } = service.issue(coupon, user, key, &call.head.span).await?;
    // A coupon may be issued after its end of use, so that a new issuance is expired.
    let now = if replayed {
        time::timestamp()
    } else {
        used.issuance.issued_at
    };
    let body = IssuanceBody::new(&used, service.codes(), now);
    let mut response = json::response(StatusCode::CREATED, &body);
    let id = used.issuance.id;
    set_header(&mut response, LOCATION, format_args!("/v1/issuances/{id}"));
    set_replayed(&mut response, replayed);
    Ok(response)
}

/// What a user's id must be.
const USER_ID: &str = "must be 1 to 128 visible ASCII characters";
const _: () = assert!(USER_ID_BYTES_MAX == 128);

/// Parses the id of a user in a body. The error says what it must be.
pub(super) fn user_id(value: &Value) -> Result<UserId, &'static str> {
    let text = value.as_str().ok_or("must be a string")?;
    UserId::parse(text).map_err(|_| USER_ID)
}

/// `GET /v1/coupons/{id}/issuances`
pub(super) async fn list(service: &Service, call: &Call) -> Answer {
    let principal = principal(service, call)?;
    principal.require_reader()?;
    let coupon = coupon_id(call.parameter())?;
    let (user, options, after, limit) = call.query(|query| {
        let user = query.get("user_id", USER_ID, |text| UserId::parse(text).ok());
        let after = query.get("after_sequence", WHOLE_NUMBER, whole_number);
        let after = cursor(query).or(after.map(Sequence::new));
        let after = after.unwrap_or(Sequence::NONE);
        (user, list_options(query), after, limit(query))
    })?;
    let requester = requester(&principal, call)?;
    let list = service.issuances_of_coupon(requester, (coupon, user), options, after, limit);
    Ok(page(&list.await?, service.codes()))
}

/// `GET /v1/issuances`
pub(super) async fn list_of_user(service: &Service, call: &Call) -> Answer {
    let principal = principal(service, call)?;
    principal.require_reader_or_service()?;
    let (user, options, after, limit) = call.query(|query| {
        let user = query.required("user_id", USER_ID, |text| UserId::parse(text).ok());
        (user, list_options(query), cursor(query), limit(query))
    })?;
    // A missing user id is an error of the query.
    let user = user.ok_or_else(|| RequestError::invalid("user_id", json::REQUIRED))?;
    let requester = requester(&principal, call)?;
    let list = service.issuances_of_user(requester, (user, None), options, after, limit);
    Ok(page(&list.await?, service.codes()))
}

/// Returns the principal that asks for a list of issuances.
pub(super) fn requester(principal: &Principal, call: &Call) -> Result<Requester, Error> {
    Ok(Requester {
        address: call.head.client,
        author: principal.author()?,
    })
}

/// The coupon to which a list of issuances is limited.
pub(super) fn of_coupon(query: &mut Query) -> Option<CouponId> {
    query.get("coupon_id", "must be a coupon id", |text| {
        CouponId::parse(text).ok()
    })
}

/// `GET /v1/issuances/{id}`
pub(super) async fn read(service: &Service, call: &Call) -> Answer {
    let principal = principal(service, call)?;
    principal.require_known()?;
    let id = IssuanceName::read(call)?.find(service.codes())?;
    let used = service.issuance(id, &principal).await?;
    Ok(json::response(
        StatusCode::OK,
        &IssuanceBody::new(&used, service.codes(), time::timestamp()),
    ))
}

/// How a path names an issuance.
#[derive(Debug)]
pub(super) enum IssuanceName {
    /// By its id.
    Id(IssuanceId),
    /// By its code, or by a long id: such an id looks like a code with one dash.
    Code(TypedCode, Option<IssuanceId>),
}

impl IssuanceName {
    /// Reads the name in the path of a request. Fails if it can be neither an id nor a code.
    pub(super) fn read(call: &Call) -> Result<Self, RequestError> {
        let text = percent_decode_str(call.parameter()).decode_utf8_lossy();
        match (TypedCode::read(&text), IssuanceId::parse(&text).ok()) {
            (Some(code), id) => Ok(Self::Code(code, id)),
            (None, Some(id)) => Ok(Self::Id(id)),
            (None, None) => Err(RequestError::Malformed(
                "an issuance is named by its id, like 42-17, or by its code of 20 letters and digits"
                    .to_owned(),
            )),
        }
    }

    /// Returns the issuance with this name, whether or not it exists. A wrong code is refused like an unknown
    /// issuance, without a read of the database.
    pub(super) fn find(self, codes: &Codes) -> Result<IssuanceId, service::Error> {
        match self {
            Self::Id(id) => Ok(id),
            Self::Code(code, id) => codes.find(&code).or_else(|wrong| id.ok_or(wrong)),
        }
    }
}
