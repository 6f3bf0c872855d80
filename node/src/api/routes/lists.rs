//! The operations that read issuances of a user or of a coupon, and count them.

use super::shared::{CREDENTIALS, STORE, json};
use super::{Access, Operation, Verb};
use crate::api::{issuances, me, statistics};

/// Lists the issuances of a coupon.
pub(super) const OF_COUPON: Operation = Operation {
    method: Verb::Get,
    handler: |service, call| Box::pin(issuances::list(service, call)),
    name: "coupon_issuances",
    summary: "Lists the issuances of a coupon, by sequence",
    access: Access::Reader,
    parameters: &[
        "user_id",
        "state",
        "order_amount",
        "expand",
        "after_sequence",
        "limit",
        "cursor",
    ],
    body: None,
    success: json(200, "IssuancePage", &[]),
    problems: &[CREDENTIALS, &["UNKNOWN_COUPON", "INVALID", "RATE_LIMITED"], STORE],
};

/// Lists the issuances of the user who asks.
pub(super) const MINE: Operation = Operation {
    method: Verb::Get,
    handler: |service, call| Box::pin(me::issuances(service, call)),
    name: "my_issuances",
    summary: "Lists the user's issuances, newest first, with every issuance that was answered 201",
    access: Access::User,
    parameters: &["coupon_id", "state", "order_amount", "expand", "limit", "cursor"],
    body: None,
    success: json(200, "IssuancePage", &[]),
    problems: &[CREDENTIALS, &["INVALID", "RATE_LIMITED"], STORE],
};

/// Lists the issuances of any user.
pub(super) const OF_USER: Operation = Operation {
    handler: |service, call| Box::pin(issuances::list_of_user(service, call)),
    name: "user_issuances",
    summary: "Lists what a user has, over all coupons, newest first, with every issuance that was answered 201",
    access: Access::ReaderOrService,
    parameters: &["user_id", "state", "order_amount", "expand", "limit", "cursor"],
    ..MINE
};

/// Counts what happened to a coupon.
pub(super) const STATISTICS: Operation = Operation {
    method: Verb::Get,
    handler: |service, call| Box::pin(statistics::read(service, call)),
    name: "coupon_statistics",
    summary: "Counts issuances and uses of a coupon, in all and by time, at most 5 s old",
    access: Access::Reader,
    parameters: &["bucket", "from", "to"],
    body: None,
    success: json(200, "Statistics", &[]),
    problems: &[CREDENTIALS, &["UNKNOWN_COUPON", "INVALID", "RATE_LIMITED"], STORE],
};
