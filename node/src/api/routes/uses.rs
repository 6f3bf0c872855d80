//! The operations by which issuances are used for orders.

use super::shared::{BODY, CREDENTIALS, RECOGNISED, STORE, json};
use super::{Access, Body, Operation, Verb};
use crate::api::uses;

/// Problems of every use of an issuance.
const USE: &[&str] = &["UNKNOWN_ISSUANCE", "OWNER_MOVING", "OUTCOME_UNKNOWN"];
/// Problems of a step that an earlier use causes.
const HELD: &[&str] = &["ORDER_MISMATCH", "REVOKED", "REDEEMED", "RESERVED"];
/// Problems of a step by a new order.
const USABLE: &[&str] = &["EXPIRED", "BELOW_MINIMUM"];

/// Tells what an order would get.
pub(super) const QUOTE: Operation = Operation {
    method: Verb::Get,
    handler: |service, call| Box::pin(uses::quote(service, call)),
    name: "quote_issuance",
    summary: "Tells what a reservation for an order of this amount would take off now; stores nothing",
    access: Access::Known,
    parameters: &["order_amount"],
    body: None,
    success: json(200, "Quote", &[]),
    problems: &[RECOGNISED, &["UNKNOWN_ISSUANCE", "INVALID"], STORE],
};

/// Holds an issuance for an order.
pub(super) const RESERVE: Operation = Operation {
    handler: |service, call| Box::pin(uses::reserve(service, call)),
    name: "reserve_issuance",
    access: Access::Reserver,
    summary: "Holds an issuance for an order, and fixes the discount",
    body: Some(Body {
        schema: "Reserve",
        required: true,
    }),
    problems: &[CREDENTIALS, USE, HELD, USABLE, BODY, STORE],
    ..USE_OF_ISSUANCE
};

/// Uses an issuance for an order that is paid.
pub(super) const REDEEM: Operation = Operation {
    handler: |service, call| Box::pin(uses::redeem(service, call)),
    name: "redeem_issuance",
    summary: "Uses an issuance for an order that is paid; without a reservation it does both at once",
    body: Some(Body {
        schema: "Redeem",
        required: true,
    }),
    problems: &[CREDENTIALS, USE, HELD, USABLE, &["NOT_RESERVED"], BODY, STORE],
    ..USE_OF_ISSUANCE
};

/// Gives an issuance back that was reserved.
pub(super) const RELEASE: Operation = Operation {
    handler: |service, call| Box::pin(uses::release(service, call)),
    name: "release_issuance",
    access: Access::Reserver,
    summary: "Gives an issuance back that the order holds",
    problems: &[CREDENTIALS, USE, HELD, &["EXPIRED", "NOT_RESERVED"], BODY, STORE],
    ..USE_OF_ISSUANCE
};

/// Gives an issuance back that was redeemed.
pub(super) const REFUND: Operation = Operation {
    handler: |service, call| Box::pin(uses::refund(service, call)),
    name: "refund_issuance",
    summary: "Makes an issuance usable again that the order has redeemed",
    problems: &[CREDENTIALS, USE, HELD, &["EXPIRED", "NOT_REDEEMED"], BODY, STORE],
    ..USE_OF_ISSUANCE
};

/// Takes an issuance away.
pub(super) const REVOKE: Operation = Operation {
    handler: |service, call| Box::pin(uses::revoke(service, call)),
    name: "revoke_issuance",
    summary: "Takes an issuance away for ever, and may give it back to the quantity",
    access: Access::Admin,
    body: Some(Body {
        schema: "Revoke",
        required: false,
    }),
    problems: &[CREDENTIALS, USE, HELD, &["EXPIRED"], BODY, STORE],
    ..USE_OF_ISSUANCE
};

/// Lists what became of an issuance.
pub(super) const LIST: Operation = Operation {
    method: Verb::Get,
    handler: |service, call| Box::pin(uses::list(service, call)),
    name: "issuance_uses",
    summary: "Lists what became of an issuance, oldest first",
    access: Access::ReaderOrService,
    parameters: &["limit", "cursor"],
    body: None,
    success: json(200, "UsePage", &[]),
    problems: &[CREDENTIALS, &["UNKNOWN_ISSUANCE", "INVALID"], STORE],
};

/// Common fields of all uses of an issuance.
const USE_OF_ISSUANCE: Operation = Operation {
    method: Verb::Post,
    handler: |service, call| Box::pin(uses::release(service, call)),
    name: "",
    summary: "",
    access: Access::AdminOrService,
    parameters: &[],
    body: Some(Body {
        schema: "Order",
        required: true,
    }),
    success: json(200, "Issuance", &["Idempotent-Replayed"]),
    problems: &[],
};
