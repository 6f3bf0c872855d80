//! Schemas of bodies, by name. The schemas of coupons, issuances and the cluster come from the types that are
//! serialized and parsed.

use actors::coupon::offer::{
    AMOUNT_MAX, METADATA_KEY_CHARS_MAX, METADATA_PAIRS_MAX, METADATA_VALUE_CHARS_MAX, Phase, Status,
};
use actors::ids::ID_MAX;
use serde_json::Value;
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::one_of;
use crate::api::bulk::{BulkBody, BulkResponseBody, BulkResultBody};
use crate::api::changes::{ChangeBody, WhatBody, WhoBody};
use crate::api::cluster::{ClusterBody, NodeBody, PlaceBody, ShardBody};
use crate::api::coupons::{CouponBody, CreateBody, EmptyBody, PatchBody};
use crate::api::issuances::IssuanceBody;
use crate::api::me::MeBody;
use crate::api::statistics::{StatisticsBody, TallyBody};
use crate::api::uses::{OrderBody, PastUseBody, QuoteBody, RedeemBody, ReserveBody, RevokeBody, UseBody};
use crate::http::problem::FieldError;
use crate::service::bulk::USERS_MAX;
use crate::service::list::LIMIT_MAX;

/// All schemas.
pub(super) fn all() -> Vec<(&'static str, RefOr<Schema>)> {
    vec![
        ("Coupon", CouponBody::schema()),
        ("CouponPage", page("Coupon")),
        ("CreateCoupon", CreateBody::schema()),
        ("PatchCoupon", PatchBody::schema()),
        ("Discount", DiscountSchema::schema()),
        (
            "DiscountAmount",
            discount("amount", AMOUNT_MAX, "in the currency's smallest unit").into(),
        ),
        ("DiscountRate", discount("rate", 100, "in percent").into()),
        ("DiscountPatch", DiscountPatchSchema::schema()),
        ("Metadata", MetadataSchema::schema()),
        ("MetadataPatch", MetadataPatchSchema::schema()),
        ("Phase", PhaseSchema::schema()),
        ("Status", StatusSchema::schema()),
        ("Nothing", EmptyBody::schema()),
        ("Issuance", IssuanceBody::schema()),
        ("IssuancePage", page("Issuance")),
        ("IssueRequest", issue_request()),
        ("BulkIssueRequest", BulkBody::schema()),
        ("BulkIssueResponse", BulkResponseBody::schema()),
        ("BulkResult", BulkResultBody::schema()),
        ("Change", ChangeBody::schema()),
        ("ChangePage", page("Change")),
        ("Author", WhoBody::schema()),
        ("Asked", WhatBody::schema()),
        ("Me", MeBody::schema()),
        ("Use", UseBody::schema()),
        ("PastUse", PastUseBody::schema()),
        ("UsePage", page("PastUse")),
        ("Quote", QuoteBody::schema()),
        ("Reserve", ReserveBody::schema()),
        ("Redeem", RedeemBody::schema()),
        ("Order", OrderBody::schema()),
        ("Revoke", RevokeBody::schema()),
        ("Statistics", StatisticsBody::schema()),
        ("Tally", TallyBody::schema()),
        ("Cluster", ClusterBody::schema()),
        ("Node", NodeBody::schema()),
        ("Shard", ShardBody::schema()),
        ("Place", PlaceBody::schema()),
        ("Alive", flag("live", true).into()),
        ("Ready", flag("ready", true).into()),
        ("NotReady", not_ready()),
        ("FieldError", FieldError::schema()),
        ("Anything", ObjectBuilder::new().schema_type(Type::Object).into()),
    ]
}

/// Returns the schema of a whole number within these bounds.
pub(super) fn whole_number(least: u64, most: u64) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(number(least)))
        .maximum(Some(number(most)))
}

fn number(value: u64) -> utoipa::Number {
    utoipa::Number::UInt(usize::try_from(value).unwrap_or(usize::MAX))
}

/// Returns the schema of a time.
pub(super) fn time() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
}

/// Returns the schema of a user's id.
pub(super) fn user_id() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^[!-~]{1,128}$"))
}

/// Returns the schema of the users of a bulk request.
pub(in crate::api) fn user_ids() -> ArrayBuilder {
    ArrayBuilder::new()
        .items(user_id())
        .min_items(Some(1))
        .max_items(Some(USERS_MAX))
        .description(Some(
            "the users, in the order in which they get issuances; a user who is in the list twice gets the same \
             result twice",
        ))
}

fn page(item: &str) -> RefOr<Schema> {
    let items = ArrayBuilder::new()
        .items(Ref::from_schema_name(item))
        .max_items(Some(LIMIT_MAX as usize));
    let cursor = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Null]));
    let object = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("items", items)
        .property("next_cursor", cursor);
    object.required("items").required("next_cursor").into()
}

fn issue_request() -> RefOr<Schema> {
    let user = user_id().description(Some("the user to issue for; only services may send it"));
    let object = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("user_id", user);
    object
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
        .into()
}

fn flag(name: &str, value: bool) -> ObjectBuilder {
    let constant = ObjectBuilder::new()
        .schema_type(Type::Boolean)
        .enum_values(Some([Value::Bool(value)]));
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .property(name, constant)
        .required(name)
}

fn not_ready() -> RefOr<Schema> {
    let reason = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(["starting", "draining", "no_lease", "no_group", "no_store"]));
    let reasons = ArrayBuilder::new().items(reason).min_items(Some(1));
    flag("ready", false)
        .property("reasons", reasons)
        .required("reasons")
        .into()
}

/// Declares a schema for a type of another crate.
macro_rules! named_schema {
    ($(#[$doc:meta])* $type:ident, $name:literal, $schema:expr) => {
        $(#[$doc])*
        pub(crate) struct $type;

        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                $schema
            }
        }

        impl ToSchema for $type {
            fn name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
        }
    };
}

named_schema! {
    /// The state of a coupon now, for an issue request.
    PhaseSchema, "Phase",
    names(Phase::ALL.map(Phase::as_str), "the state of the coupon now, for an issue request")
}

named_schema! {
    /// What administrators set.
    StatusSchema, "Status",
    names([Status::Open, Status::Paused, Status::Closed].map(Status::as_str), "what administrators set")
}

named_schema! {
    /// A discount.
    DiscountSchema, "Discount",
    one_of("kind", [("amount", "DiscountAmount".to_owned()), ("rate", "DiscountRate".to_owned())].into_iter())
}

named_schema! {
    /// A change of a discount.
    DiscountPatchSchema, "DiscountPatch", {
        let kind = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(["amount", "rate"]));
        let value = whole_number(1, AMOUNT_MAX).description(Some("from 1 to 100 for a rate"));
        let object = ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some("what is absent stays as it is"))
            .property("kind", kind)
            .property("value", value);
        object.additional_properties(Some(AdditionalProperties::FreeForm(false))).into()
    }
}

named_schema! {
    /// Pairs of texts.
    MetadataSchema, "Metadata", pairs(SchemaType::new(Type::String), "for programs of clients")
}

named_schema! {
    /// A change of pairs of texts.
    MetadataPatchSchema, "MetadataPatch",
    pairs(SchemaType::from_iter([Type::String, Type::Null]), "null removes a pair")
}

fn pairs(value: SchemaType, description: &str) -> RefOr<Schema> {
    let text = |most: usize| {
        ObjectBuilder::new()
            .max_length(Some(most))
            .pattern(Some("^[^\\u0000]*$"))
    };
    let key = text(METADATA_KEY_CHARS_MAX).schema_type(Type::String);
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some(description))
        .max_properties(Some(METADATA_PAIRS_MAX))
        .property_names(Some(key))
        .additional_properties(Some(text(METADATA_VALUE_CHARS_MAX).schema_type(value)))
        .into()
}

fn names<const N: usize>(names: [&str; N], description: &str) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(names))
        .description(Some(description))
        .into()
}

fn discount(kind: &str, most: u64, unit: &str) -> ObjectBuilder {
    let kind = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some([kind]));
    let object = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("kind", kind)
        .property("value", whole_number(1, most).description(Some(unit)));
    object
        .required("kind")
        .required("value")
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
}

// The bounds in the attributes of the types are literals, and must equal these constants.
const _: () = assert!(ID_MAX == 9_007_199_254_740_991 && AMOUNT_MAX == ID_MAX);
const _: () = assert!(
    actors::coupon::offer::TITLE_CHARS_MAX == 200
        && actors::coupon::offer::DESCRIPTION_CHARS_MAX == 2_000
        && actors::coupon::offer::TOTAL_QUANTITY_MAX == 1_000_000_000
);
const _: () = assert!(
    actors::coupon::offer::PER_USER_LIMIT_MAX == 100 && actors::coupon::offer::USE_WITHIN_DAYS_MAX == 3650
);
