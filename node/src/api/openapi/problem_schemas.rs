//! Every problem by its code: its status, what it says about having been applied, and the extras that go with
//! it.

use serde_json::Value;
use utoipa::openapi::schema::{Array, KnownFormat, Object, ObjectBuilder, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr, Schema};

/// One code.
pub(super) struct Kind {
    /// The stable name.
    pub(super) code: &'static str,
    /// Its status.
    pub(super) status: u16,
    /// When it is said.
    pub(super) meaning: &'static str,
    applied: Applied,
    extras: &'static [Extra],
}

/// What a problem says about whether anything was changed.
#[derive(Clone, Copy)]
enum Applied {
    /// Nothing was.
    No,
    /// It is not known.
    Unknown,
    /// One of the two.
    NoOrUnknown,
}

/// What goes with a problem.
#[derive(Clone, Copy)]
enum Extra {
    Errors,
    Issuance,
    StartsAt,
    EndsAt,
    ServerTime,
    TotalQuantity,
    Issued,
    Version,
}

const fn kind(code: &'static str, status: u16, meaning: &'static str, extras: &'static [Extra]) -> Kind {
    Kind {
        code,
        status,
        meaning,
        applied: Applied::No,
        extras,
    }
}

/// All of them.
pub(super) const KINDS: &[Kind] = &[
    kind(
        "MALFORMED",
        400,
        "not JSON, not an object, a header or an id that is none",
        &[],
    ),
    kind("UNAUTHENTICATED", 401, "nobody is recognised", &[]),
    kind("FORBIDDEN", 403, "whoever is recognised may not", &[]),
    kind("NOT_FOUND", 404, "no such page", &[]),
    kind("UNKNOWN_COUPON", 404, "no such coupon", &[]),
    kind(
        "UNKNOWN_ISSUANCE",
        404,
        "no such issuance, or it is none of the asker's business",
        &[],
    ),
    kind(
        "METHOD_NOT_ALLOWED",
        405,
        "the page does not take this method; Allow names those that it takes",
        &[],
    ),
    kind(
        "REQUEST_TIMEOUT",
        408,
        "the request did not come to its end in time",
        &[],
    ),
    kind(
        "ALREADY_ISSUED",
        409,
        "the user has as many as allowed; this is the latest",
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
    kind("SOLD_OUT", 409, "all are given out", &[Extra::TotalQuantity]),
    kind(
        "QUANTITY_BELOW_ISSUED",
        409,
        "more are decided than there would be",
        &[Extra::Issued],
    ),
    kind(
        "VERSION_MISMATCH",
        412,
        "the coupon has another version than If-Match demands",
        &[Extra::Version],
    ),
    kind("TOO_LARGE", 413, "the body is above 16 KiB", &[]),
    kind(
        "UNSUPPORTED_MEDIA_TYPE",
        415,
        "the body is not said to be JSON",
        &[],
    ),
    kind(
        "INVALID",
        422,
        "fields that make no sense, each by name",
        &[Extra::Errors],
    ),
    kind("RATE_LIMITED", 429, "too many requests from this user", &[]),
    kind(
        "HEADER_TOO_LARGE",
        431,
        "the head of the request is above 16 KiB, or has more than 100 headers",
        &[],
    ),
    Kind {
        applied: Applied::NoOrUnknown,
        ..kind("INTERNAL", 500, "something is wrong on our side", &[])
    },
    kind("OVERLOADED", 503, "a queue is full", &[]),
    kind(
        "OWNER_MOVING",
        503,
        "ownership is moving, longer than we wait",
        &[],
    ),
    kind(
        "STORE_UNAVAILABLE",
        503,
        "the database does not answer, nothing was decided",
        &[],
    ),
    Kind {
        applied: Applied::Unknown,
        ..kind(
            "OUTCOME_UNKNOWN",
            503,
            "the deadline passed, and it may have been decided: asking again with the same key tells",
            &[],
        )
    },
];

/// The kind with this code.
pub(super) fn of(code: &str) -> &'static Kind {
    // Codes come from the table of operations, which a test holds against this one.
    KINDS.iter().find(|kind| kind.code == code).unwrap_or(&KINDS[0])
}

impl Kind {
    /// The name of its schema: `ProblemSoldOut`.
    pub(super) fn schema_name(&self) -> String {
        let word = |word: &str| {
            let (first, rest) = word.split_at(1);
            format!("{first}{}", rest.to_ascii_lowercase())
        };
        format!("Problem{}", self.code.split('_').map(word).collect::<String>())
    }

    /// What its body looks like.
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
            .chain(self.extras.iter().map(|extra| extra.name()))
        {
            object = object.required(field);
        }
        object.into()
    }

    fn applied_schema(&self) -> Object {
        match self.applied {
            Applied::No => constant(Type::Boolean, false),
            Applied::Unknown => ObjectBuilder::new().schema_type(Type::Null).build(),
            Applied::NoOrUnknown => ObjectBuilder::new()
                .schema_type(SchemaType::from_iter([Type::Boolean, Type::Null]))
                .enum_values(Some([Value::Bool(false), Value::Null]))
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
            Self::Version => "version",
        }
    }

    fn schema(self) -> RefOr<Schema> {
        match self {
            Self::Errors => Array::new(Ref::from_schema_name("FieldError")).into(),
            Self::Issuance => Ref::from_schema_name("Issuance").into(),
            Self::StartsAt | Self::EndsAt | Self::ServerTime => ObjectBuilder::new()
                .schema_type(Type::String)
                .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
                .into(),
            Self::TotalQuantity | Self::Issued | Self::Version => ObjectBuilder::new()
                .schema_type(Type::Integer)
                .minimum(Some(0))
                .into(),
        }
    }
}

/// A value that is always the same.
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
    fn every_code_that_is_ever_said_is_here() {
        let source = include_str!("../../http/problem.rs");
        let said = source.split("#[cfg(test)]").next().unwrap();
        let is_code = |text: &&str| {
            text.len() > 3 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
        };
        // Every second piece between quotes is a literal.
        let said: BTreeSet<&str> = said.split('"').skip(1).step_by(2).filter(is_code).collect();
        let here: BTreeSet<&str> = KINDS.iter().map(|kind| kind.code).collect();
        assert!(said.len() > 20 && here.len() == KINDS.len());
        assert_eq!(said.difference(&here).collect::<Vec<_>>(), Vec::<&&str>::new());
    }
}
