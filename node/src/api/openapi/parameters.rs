//! Parameters and headers of the OpenAPI document.

use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Header, Ref, RefOr, Required, Schema};

use actors::coupon::offer::TITLE_CHARS_MAX;

use super::{examples, schemas};
use crate::service::list::{LIMIT_DEFAULT, LIMIT_MAX};

/// The states by which issuances are listed.
const LISTED_STATES: [&str; 6] = ["issued", "reserved", "redeemed", "revoked", "expired", "usable"];

/// Returns the description of a response header.
pub(super) fn header(name: &str) -> Header {
    let text = ObjectBuilder::new().schema_type(Type::String);
    let (schema, description) = match name {
        "X-Request-Id" => (
            text.pattern(Some("^[!-~]{1,64}$")),
            "the id of the request if it is valid, otherwise a new id",
        ),
        "Location" => (text.pattern(Some("^/v1/")), "the path of what was created"),
        "ETag" => (
            text.pattern(Some("^W/\"[0-9]+\"$")),
            "the coupon's version, for If-Match",
        ),
        "Idempotent-Replayed" => (
            text.enum_values(Some(["true"])),
            "present if an earlier request with the same key, or the same step before, was served",
        ),
        "Retry-After" => (text.pattern(Some("^[0-9]+$")), "seconds to wait before a retry"),
        "Content-Disposition" => (text, "the name of the file"),
        "Allow" => (text, "the methods that the path accepts"),
        _ => (text, "the credentials that are needed"),
    };
    HeaderBuilder::new()
        .schema(Some(schema))
        .description(Some(description))
        .build()
}

/// Returns the description of `Location` in a redirect.
pub(super) fn redirect_target() -> Header {
    let path = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^/[^/]"));
    HeaderBuilder::new()
        .schema(Some(path))
        .description(Some("the path, with the query of the request"))
        .build()
}

/// Returns the parameter of a path, if its template has one.
pub(super) fn path_parameter(template: &str) -> Option<Parameter> {
    let (name, schema) = match template {
        _ if template.starts_with("/v1/issuances/{id}") => (
            "id",
            ObjectBuilder::new().schema_type(Type::String).pattern(Some(
                "^([1-9][0-9]{0,15}-[1-9][0-9]{0,15}|(-*[0-9A-Za-z]-*){20,36})$",
            )),
        ),
        "/docs/{file}" => ("file", ObjectBuilder::new().schema_type(Type::String)),
        _ if template.contains("{id}") => ("id", schemas::whole_number(1, actors::ids::ID_MAX)),
        _ => return None,
    };
    let parameter = ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True);
    let example = examples::path_parameter(template);
    Some(parameter.schema(Some(schema)).example(Some(example)).build())
}

/// Returns an operation's parameter with this name, which is in the query or in a header.
pub(super) fn parameter(operation: &str, name: &str) -> Parameter {
    let (place, schema, description) = parts(name);
    let parameter = ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .schema(Some(schema))
        .description(Some(description));
    match (operation, name) {
        // Only this operation needs a parameter that others may leave out.
        ("user_issuances", "user_id") => parameter
            .required(Required::True)
            .example(Some(examples::USER.into())),
        ("quote_issuance", "order_amount") => parameter
            .required(Required::True)
            .description(Some("the amount of the order, in the currency's smallest unit"))
            .example(Some(examples::ORDER_AMOUNT.into())),
        _ => parameter.required(Required::False),
    }
    .build()
}

/// Returns where the parameter with this name is, its schema, and what it means.
fn parts(name: &str) -> (ParameterIn, RefOr<Schema>, &'static str) {
    let text = ObjectBuilder::new().schema_type(Type::String);
    match name {
        "If-Match" => (
            ParameterIn::Header,
            text.pattern(Some("^([*]|(W/)?\"[^\"]*\"(, *(W/)?\"[^\"]*\")*)$"))
                .into(),
            "only if the coupon has this version: an ETag like W/\"3\" (or strong), a list of ETags, or *",
        ),
        "Idempotency-Key" => (
            ParameterIn::Header,
            text.pattern(Some("^[!-~]{1,255}$")).into(),
            "identifies the request: a retry with the same key is not executed twice",
        ),
        name => {
            let (schema, description) = of_query(name);
            (ParameterIn::Query, schema, description)
        }
    }
}

/// Returns the schema of this parameter of a query, and what it means.
fn of_query(name: &str) -> (RefOr<Schema>, &'static str) {
    let text = ObjectBuilder::new().schema_type(Type::String);
    match name {
        "limit" => (
            schemas::whole_number(1, LIMIT_MAX.into())
                .default(Some(LIMIT_DEFAULT.into()))
                .into(),
            "items on the page",
        ),
        "cursor" => (
            text.pattern(Some("^[A-Za-z0-9_-]+$")).into(),
            "a next_cursor of this list",
        ),
        "phase" => (
            Ref::from_schema_name("Phase").into(),
            "only coupons in this phase",
        ),
        "title" => (
            text.min_length(Some(1)).max_length(Some(TITLE_CHARS_MAX)).into(),
            "only coupons whose title contains this text; A to Z match in either case",
        ),
        "bucket" => (
            text.pattern(Some("^[0-9]{1,5}[smhd]$"))
                .default(Some("1d".into()))
                .into(),
            "the length of a bucket, from 1s to 1d, like 30s, 5m or 1h",
        ),
        "from" => (schemas::time().into(), "only what happened then or later"),
        "to" => (schemas::time().into(), "only what happened before"),
        name => of_issuances(name),
    }
}

/// Returns the schema of this parameter of lists of issuances, and what it means.
fn of_issuances(name: &str) -> (RefOr<Schema>, &'static str) {
    let text = ObjectBuilder::new().schema_type(Type::String);
    match name {
        "user_id" => (
            schemas::user_id().into(),
            "only issuances to this user; percent-encoded, + as %2B",
        ),
        "coupon_id" => (
            schemas::whole_number(1, actors::ids::ID_MAX).into(),
            "only issuances of this coupon",
        ),
        "order_amount" => (
            schemas::whole_number(0, actors::ids::ID_MAX).into(),
            "the amount of an order, in the currency's smallest unit; a list adds a quote to each issuance",
        ),
        "state" => (
            text.enum_values(Some(LISTED_STATES)).into(),
            "only issuances whose field state says this; usable is the same as issued",
        ),
        "expand" => (
            text.enum_values(Some(["coupon"])).into(),
            "adds the coupon to each issuance",
        ),
        _ => (
            schemas::whole_number(0, actors::ids::ID_MAX).into(),
            "only issuances after this sequence; in a list, a cursor takes precedence",
        ),
    }
}
