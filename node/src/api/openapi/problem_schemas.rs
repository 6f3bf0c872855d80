//! The problems by code: status, the value of `applied`, and extra members.

use serde_json::{Value, json};
use utoipa::openapi::schema::{Array, KnownFormat, Object, ObjectBuilder, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr, Schema};

use super::examples;

/// A kind of problem.
pub(super) struct ProblemKind {
    /// The stable name.
    pub(super) code: &'static str,
    /// Its status.
    pub(super) status: u16,
    /// When the API responds with this problem.
    pub(super) meaning: &'static str,
    applied: Applied,
    extras: &'static [Extra],
}

/// The value of `applied`.
#[derive(Clone, Copy)]
enum Applied {
    /// `false`.
    No,
    /// `null`.
    Unknown,
    /// `false` or `null`.
    NoOrUnknown,
}

/// An extra member.
#[derive(Clone, Copy)]
enum Extra {
    Errors,
    Issuance,
    StartsAt,
    EndsAt,
    ServerTime,
    TotalQuantity,
    Issued,
    Returned,
    Version,
    Use,
    /// A use that only administrators and services see.
    UseIfAny,
    HoldUntil,
    UsableUntil,
    MinOrderAmount,
}

const fn kind(
    code: &'static str,
    status: u16,
    meaning: &'static str,
    extras: &'static [Extra],
) -> ProblemKind {
    ProblemKind {
        code,
        status,
        meaning,
        applied: Applied::No,
        extras,
    }
}

/// All kinds.
pub(super) const KINDS: &[ProblemKind] = &[
    kind(
        "MALFORMED",
        400,
        "not JSON, not an object, or a header or an id that is not valid",
        &[],
    ),
    kind("UNAUTHENTICATED", 401, "no valid credentials", &[]),
    kind("FORBIDDEN", 403, "the principal lacks the right", &[]),
    kind("NOT_FOUND", 404, "the path does not exist", &[]),
    kind("UNKNOWN_COUPON", 404, "the coupon does not exist", &[]),
    kind(
        "UNKNOWN_ISSUANCE",
        404,
        "the issuance does not exist, or the principal may not see it",
        &[],
    ),
    kind(
        "METHOD_NOT_ALLOWED",
        405,
        "the path does not accept this method; Allow names the methods that the path accepts",
        &[],
    ),
    kind("REQUEST_TIMEOUT", 408, "the request was not sent in time", &[]),
    kind(
        "ALREADY_ISSUED",
        409,
        "the user has as many as allowed; issuance is the latest of them",
        &[Extra::Issuance],
    ),
    kind("CLOSED", 409, "the coupon is closed", &[]),
    kind("PAUSED", 409, "the coupon is paused", &[]),
    kind(
        "NOT_STARTED",
        409,
        "before the window",
        &[Extra::StartsAt, Extra::ServerTime],
    ),
    kind(
        "ENDED",
        409,
        "after the window",
        &[Extra::EndsAt, Extra::ServerTime],
    ),
    kind(
        "SOLD_OUT",
        409,
        "the total quantity is issued",
        &[Extra::TotalQuantity],
    ),
    kind(
        "QUANTITY_BELOW_ISSUED",
        409,
        "total_quantity is below the number already decided, without those that were given back",
        &[Extra::Issued, Extra::Returned],
    ),
    kind("REVOKED", 409, "the issuance was revoked", &[]),
    kind(
        "REDEEMED",
        409,
        "the issuance was redeemed, by another order or by this one; administrators and services see the use",
        &[Extra::UseIfAny],
    ),
    kind(
        "RESERVED",
        409,
        "another order holds the issuance",
        &[Extra::HoldUntil],
    ),
    kind("EXPIRED", 409, "past the end of use", &[Extra::UsableUntil]),
    kind(
        "BELOW_MINIMUM",
        409,
        "the order is below the smallest order of the coupon",
        &[Extra::MinOrderAmount],
    ),
    kind("NOT_RESERVED", 409, "the order does not hold the issuance", &[]),
    kind("NOT_REDEEMED", 409, "the order did not redeem the issuance", &[]),
    kind(
        "VERSION_MISMATCH",
        412,
        "the coupon has another version than If-Match demands",
        &[Extra::Version],
    ),
    kind(
        "TOO_LARGE",
        413,
        "the body is above 16 KiB, in a bulk call above 256 KiB",
        &[],
    ),
    kind(
        "UNSUPPORTED_MEDIA_TYPE",
        415,
        "the media type of the body is not JSON, or the body is compressed",
        &[],
    ),
    kind(
        "ORDER_MISMATCH",
        422,
        "the same was done before for this order, with other figures",
        &[Extra::Use],
    ),
    kind(
        "INVALID",
        422,
        "fields are not valid; errors names each of them",
        &[Extra::Errors],
    ),
    kind(
        "RATE_LIMITED",
        429,
        "too many requests from this user, or too many lists of coupons at once from this client",
        &[],
    ),
    kind(
        "HEADER_TOO_LARGE",
        431,
        "the head of the request is above 16 KiB, or has more than 100 headers",
        &[],
    ),
    ProblemKind {
        applied: Applied::NoOrUnknown,
        ..kind("INTERNAL", 500, "a fault of the server", &[])
    },
    kind(
        "NOT_IMPLEMENTED",
        501,
        "the body is sent in a transfer coding other than chunked",
        &[],
    ),
    kind("OVERLOADED", 503, "a queue is full", &[]),
    kind(
        "KEYS_UNAVAILABLE",
        503,
        "the node has not been able to fetch the keys of tokens yet, and does not know whether the token is valid",
        &[],
    ),
    kind(
        "OWNER_MOVING",
        503,
        "the coupon is moving to another owner, for longer than a request waits",
        &[],
    ),
    kind(
        "STORE_UNAVAILABLE",
        503,
        "the database does not respond; nothing was decided",
        &[],
    ),
    ProblemKind {
        applied: Applied::Unknown,
        ..kind(
            "OUTCOME_UNKNOWN",
            503,
            "the outcome is not known in time; a retry with the same key returns the outcome, and without a \
             key the coupon's version tells whether a change was made; of a use, the same step for the same \
             order tells",
            &[],
        )
    },
];

/// Returns the kind with this code.
pub(super) fn of(code: &str) -> &'static ProblemKind {
    // Every code comes from `ROUTES`, and a test checks that `KINDS` has all of them, so the fallback is
    // never used.
    KINDS.iter().find(|kind| kind.code == code).unwrap_or(&KINDS[0])
}

impl ProblemKind {
    /// Returns the name of its schema, like `ProblemSoldOut`.
    pub(super) fn schema_name(&self) -> String {
        let word = |word: &str| {
            let (first, rest) = word.split_at(1);
            format!("{first}{}", rest.to_ascii_lowercase())
        };
        format!("Problem{}", self.code.split('_').map(word).collect::<String>())
    }

    /// Returns the schema of its body.
    pub(super) fn schema(&self) -> Schema {
        let required = ["type", "title", "status", "code", "applied"];
        let mut object = ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some(self.meaning))
            .property(
                "type",
                constant(Type::String, format!("urn:firstcome:problem:{}", self.code)),
            )
            .property("title", ObjectBuilder::new().schema_type(Type::String))
            .property("status", constant(Type::Integer, self.status))
            .property("code", constant(Type::String, self.code))
            .property("applied", self.applied_schema())
            .property("detail", ObjectBuilder::new().schema_type(Type::String));
        for extra in self.extras {
            object = object.property(extra.name(), extra.schema());
        }
        for field in required
            .into_iter()
            .chain(self.extras.iter().filter_map(|extra| extra.required_name()))
        {
            object = object.required(field);
        }
        object.into()
    }

    /// Returns a body of this kind.
    pub(super) fn example(&self) -> Value {
        let mut body = json!({
            "type": format!("urn:firstcome:problem:{}", self.code),
            "title": self.meaning,
            "status": self.status,
            "code": self.code,
            "applied": match self.applied {
                Applied::No => Value::Bool(false),
                Applied::Unknown | Applied::NoOrUnknown => Value::Null,
            }
        });
        for extra in self.extras {
            body[extra.name()] = extra.example();
        }
        body
    }

    fn applied_schema(&self) -> Object {
        match self.applied {
            Applied::No => constant(Type::Boolean, false),
            Applied::Unknown => ObjectBuilder::new().schema_type(Type::Null).build(),
            // Never true. In many languages, an enum of both values has no type, so their generators drop it.
            Applied::NoOrUnknown => ObjectBuilder::new()
                .schema_type(SchemaType::from_iter([Type::Boolean, Type::Null]))
                .description(Some("false, or null where it is not known"))
                .build(),
        }
    }
}

impl Extra {
    const fn name(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Issuance => "issuance",
            Self::StartsAt => "starts_at",
            Self::EndsAt => "ends_at",
            Self::ServerTime => "server_time",
            Self::TotalQuantity => "total_quantity",
            Self::Issued => "issued",
            Self::Returned => "returned",
            Self::Version => "version",
            Self::Use | Self::UseIfAny => "use",
            Self::HoldUntil => "hold_until",
            Self::UsableUntil => "usable_until",
            Self::MinOrderAmount => "min_order_amount",
        }
    }

    fn required_name(self) -> Option<&'static str> {
        (!matches!(self, Self::UseIfAny)).then(|| self.name())
    }

    fn example(self) -> Value {
        match self {
            Self::Errors => json!([{"field": "total_quantity", "message": "must be from 1 to 1000000000"}]),
            Self::Issuance => examples::issuance(),
            Self::StartsAt | Self::EndsAt => json!("2026-11-27T00:00:00.000000Z"),
            Self::ServerTime => json!("2026-11-26T23:59:59.000000Z"),
            Self::TotalQuantity => json!(500),
            Self::Issued => json!(17),
            Self::Returned => json!(1),
            Self::Version => json!(2),
            Self::Use | Self::UseIfAny => examples::latest_use(),
            Self::HoldUntil => json!("2026-11-28T12:15:00.000000Z"),
            Self::UsableUntil => json!("2026-12-27T00:00:00.012345Z"),
            Self::MinOrderAmount => json!(30_000),
        }
    }

    fn schema(self) -> RefOr<Schema> {
        match self {
            Self::Errors => Array::new(Ref::from_schema_name("FieldError")).into(),
            Self::Issuance => Ref::from_schema_name("Issuance").into(),
            Self::Use | Self::UseIfAny => Ref::from_schema_name("Use").into(),
            Self::StartsAt | Self::EndsAt | Self::ServerTime | Self::HoldUntil | Self::UsableUntil => {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
                    .into()
            }
            Self::TotalQuantity | Self::Issued | Self::Returned | Self::Version | Self::MinOrderAmount => {
                ObjectBuilder::new()
                    .schema_type(Type::Integer)
                    .minimum(Some(0))
                    .into()
            }
        }
    }
}

/// Returns the schema of a constant.
fn constant(schema_type: Type, value: impl Into<Value>) -> Object {
    ObjectBuilder::new()
        .schema_type(schema_type)
        .enum_values(Some([value.into()]))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_has_exactly_the_problem_codes_in_the_source() {
        let sources = [include_str!("../../http/problem.rs"), include_str!("../error.rs")];
        let is_code = |text: &&str| {
            text.len() > 3 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
        };
        let mut written = BTreeSet::new();
        for source in sources {
            let source = source.split("#[cfg(test)]").next().unwrap();
            written.extend(source.split('"').filter(is_code));
        }
        let known: BTreeSet<&str> = KINDS.iter().map(|kind| kind.code).collect();
        assert_eq!(known.len(), KINDS.len());
        assert_eq!(written, known);
    }
}
