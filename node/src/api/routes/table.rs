//! The table of routes. The hot route is first, because paths are compared in this order.

use super::{Access, Body, Operation, Route, Success, Verb, bulk, lists};
use crate::api::{changes, cluster, coupons, docs, issuances, me, openapi, operations, uses};
use crate::http::route_metrics::RouteMetrics;
use crate::service::engine::Change;

/// Problems of every operation that needs credentials.
pub(super) const CREDENTIALS: &[&str] = &["MALFORMED", "UNAUTHENTICATED", "KEYS_UNAVAILABLE", "FORBIDDEN"];
/// Problems of every operation that any authenticated client may call.
const RECOGNISED: &[&str] = &["MALFORMED", "UNAUTHENTICATED", "KEYS_UNAVAILABLE"];
/// Problems of every operation that reads the store.
pub(super) const STORE: &[&str] = &["INTERNAL", "OVERLOADED", "STORE_UNAVAILABLE"];
/// Problems of every operation with a body.
pub(super) const BODY: &[&str] = &[
    "REQUEST_TIMEOUT",
    "TOO_LARGE",
    "UNSUPPORTED_MEDIA_TYPE",
    "INVALID",
];
/// Problems of every operation that an owner decides.
pub(super) const OWNER: &[&str] = &["UNKNOWN_COUPON", "OWNER_MOVING", "OUTCOME_UNKNOWN"];

/// Problems of every use of an issuance.
const USE: &[&str] = &["UNKNOWN_ISSUANCE", "OWNER_MOVING", "OUTCOME_UNKNOWN"];
/// Problems of a step that an earlier use causes.
const HELD: &[&str] = &["ORDER_MISMATCH", "REVOKED", "REDEEMED", "RESERVED"];
/// Problems of a step by a new order.
const USABLE: &[&str] = &["EXPIRED", "BELOW_MINIMUM"];

pub(super) const fn json(status: u16, schema: &'static str, headers: &'static [&'static str]) -> Success {
    Success {
        status,
        media_type: "application/json",
        schema: Some(schema),
        headers,
    }
}

pub(super) const fn text(media_type: &'static str) -> Success {
    Success {
        status: 200,
        media_type,
        schema: None,
        headers: &[],
    }
}

/// All routes.
pub(in crate::api) static ROUTES: [Route; 30] = [
    Route {
        metrics: RouteMetrics::new("/v1/coupons/{id}/issuances"),
        operations: &[
            lists::OF_COUPON,
            Operation {
                method: Verb::Post,
                handler: |service, call| Box::pin(issuances::issue(service, call)),
                name: "issue",
                summary: "Issues the coupon to the user; the first refusal that applies is the response",
                access: Access::Issuer,
                parameters: &["Idempotency-Key"],
                body: Some(Body {
                    schema: "IssueRequest",
                    required: false,
                }),
                success: json(201, "Issuance", &["Location", "Idempotent-Replayed"]),
                problems: &[
                    CREDENTIALS,
                    OWNER,
                    &[
                        "ALREADY_ISSUED",
                        "CLOSED",
                        "PAUSED",
                        "NOT_STARTED",
                        "ENDED",
                        "SOLD_OUT",
                        "RATE_LIMITED",
                    ],
                    BODY,
                    STORE,
                ],
            },
        ],
    },
    Route {
        metrics: RouteMetrics::new("/v1/coupons/{id}"),
        operations: &[
            Operation {
                method: Verb::Get,
                handler: |service, call| Box::pin(coupons::read(service, call)),
                name: "coupon",
                summary: "Reads a coupon, up to 1 s old, but not older than a change that this node answered",
                access: Access::Anyone,
                parameters: &[],
                body: None,
                success: json(200, "Coupon", &["ETag"]),
                problems: &[&["MALFORMED", "UNKNOWN_COUPON"], STORE],
            },
            Operation {
                method: Verb::Patch,
                handler: |service, call| Box::pin(coupons::patch(service, call)),
                name: "patch_coupon",
                summary: "Changes a coupon by a merge patch: null clears a field",
                access: Access::Admin,
                parameters: &["If-Match", "Idempotency-Key"],
                body: Some(Body {
                    schema: "PatchCoupon",
                    required: true,
                }),
                success: json(200, "Coupon", &["ETag", "Idempotent-Replayed"]),
                problems: &[
                    CREDENTIALS,
                    OWNER,
                    &["QUANTITY_BELOW_ISSUED", "VERSION_MISMATCH"],
                    BODY,
                    STORE,
                ],
            },
        ],
    },
    Route {
        metrics: RouteMetrics::new("/v1/coupons"),
        operations: &[
            Operation {
                method: Verb::Get,
                handler: |service, call| Box::pin(coupons::list(service, call)),
                name: "coupons",
                summary: "Lists coupons, newest first, up to 1 s old",
                access: Access::Anyone,
                parameters: &["phase", "title", "limit", "cursor"],
                body: None,
                success: json(200, "CouponPage", &[]),
                problems: &[&["MALFORMED", "INVALID", "RATE_LIMITED"], STORE],
            },
            Operation {
                method: Verb::Post,
                handler: |service, call| Box::pin(coupons::create(service, call)),
                name: "create_coupon",
                summary: "Creates a coupon; a retry with the same key returns it, or 422 if the body differs",
                access: Access::Admin,
                parameters: &["Idempotency-Key"],
                body: Some(Body {
                    schema: "CreateCoupon",
                    required: true,
                }),
                success: json(201, "Coupon", &["Location", "ETag", "Idempotent-Replayed"]),
                problems: &[CREDENTIALS, &["OUTCOME_UNKNOWN"], BODY, STORE],
            },
        ],
    },
    Route {
        metrics: RouteMetrics::new("/v1/me/issuances"),
        operations: &[lists::MINE],
    },
    Route {
        metrics: RouteMetrics::new("/v1/me"),
        operations: &[Operation {
            method: Verb::Get,
            handler: |service, call| Box::pin(async move { me::read(service, call) }),
            name: "me",
            summary: "Tells who asks: a user or a named key, with its role",
            access: Access::Known,
            parameters: &[],
            body: None,
            success: json(200, "Me", &[]),
            problems: &[RECOGNISED],
        }],
    },
    Route {
        metrics: RouteMetrics::new("/v1/issuances"),
        operations: &[lists::OF_USER],
    },
    Route {
        metrics: RouteMetrics::new("/v1/issuances/{id}"),
        operations: &[Operation {
            method: Verb::Get,
            handler: |service, call| Box::pin(issuances::read(service, call)),
            name: "issuance",
            summary: "Reads an issuance, as its user or a reader",
            access: Access::UserOrReader,
            parameters: &[],
            body: None,
            success: json(200, "Issuance", &[]),
            problems: &[RECOGNISED, &["UNKNOWN_ISSUANCE"], STORE],
        }],
    },
    Route {
        metrics: RouteMetrics::new("/v1/issuances/{id}/quote"),
        operations: &[Operation {
            method: Verb::Get,
            handler: |service, call| Box::pin(uses::quote(service, call)),
            name: "quote_issuance",
            summary: "Tells what a reservation for an order of this amount would take off now; stores nothing",
            access: Access::Known,
            parameters: &["order_amount"],
            body: None,
            success: json(200, "Quote", &[]),
            problems: &[RECOGNISED, &["UNKNOWN_ISSUANCE", "INVALID"], STORE],
        }],
    },
    Route {
        metrics: RouteMetrics::new("/v1/issuances/{id}/reserve"),
        operations: &[Operation {
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
        }],
    },
    Route {
        metrics: RouteMetrics::new("/v1/issuances/{id}/redeem"),
        operations: &[Operation {
            handler: |service, call| Box::pin(uses::redeem(service, call)),
            name: "redeem_issuance",
            summary: "Uses an issuance for an order that is paid; without a reservation it does both at once",
            body: Some(Body {
                schema: "Redeem",
                required: true,
            }),
            problems: &[CREDENTIALS, USE, HELD, USABLE, &["NOT_RESERVED"], BODY, STORE],
            ..USE_OF_ISSUANCE
        }],
    },
    Route {
        metrics: RouteMetrics::new("/v1/issuances/{id}/release"),
        operations: &[Operation {
            handler: |service, call| Box::pin(uses::release(service, call)),
            name: "release_issuance",
            access: Access::Reserver,
            summary: "Gives an issuance back that the order holds",
            problems: &[CREDENTIALS, USE, HELD, &["EXPIRED", "NOT_RESERVED"], BODY, STORE],
            ..USE_OF_ISSUANCE
        }],
    },
    Route {
        metrics: RouteMetrics::new("/v1/issuances/{id}/refund"),
        operations: &[Operation {
            handler: |service, call| Box::pin(uses::refund(service, call)),
            name: "refund_issuance",
            summary: "Makes an issuance usable again that the order has redeemed",
            problems: &[CREDENTIALS, USE, HELD, &["EXPIRED", "NOT_REDEEMED"], BODY, STORE],
            ..USE_OF_ISSUANCE
        }],
    },
    Route {
        metrics: RouteMetrics::new("/v1/issuances/{id}/revoke"),
        operations: &[Operation {
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
        }],
    },
    Route {
        metrics: RouteMetrics::new("/v1/issuances/{id}/uses"),
        operations: &[Operation {
            method: Verb::Get,
            handler: |service, call| Box::pin(uses::list(service, call)),
            name: "issuance_uses",
            summary: "Lists what became of an issuance, oldest first",
            access: Access::ReaderOrService,
            parameters: &["limit", "cursor"],
            body: None,
            success: json(200, "UsePage", &[]),
            problems: &[CREDENTIALS, &["UNKNOWN_ISSUANCE", "INVALID"], STORE],
        }],
    },
    Route {
        metrics: RouteMetrics::new("/v1/coupons/{id}/changes"),
        operations: &[Operation {
            method: Verb::Get,
            handler: |service, call| Box::pin(changes::list(service, call)),
            name: "coupon_changes",
            summary: "Lists what administrators changed about a coupon, by version, with who did it",
            access: Access::Reader,
            parameters: &["limit", "cursor"],
            body: None,
            success: json(200, "ChangePage", &[]),
            problems: &[CREDENTIALS, &["UNKNOWN_COUPON", "INVALID"], STORE],
        }],
    },
    Route {
        metrics: RouteMetrics::new("/v1/coupons/{id}/issuances/bulk"),
        operations: &[bulk::ISSUE],
    },
    Route {
        metrics: RouteMetrics::new("/v1/coupons/{id}/issuances.csv"),
        operations: &[bulk::CSV],
    },
    Route {
        metrics: RouteMetrics::new("/v1/coupons/{id}/issuances.ndjson"),
        operations: &[bulk::NDJSON],
    },
    Route {
        metrics: RouteMetrics::new("/v1/coupons/{id}/statistics"),
        operations: &[lists::STATISTICS],
    },
    Route {
        metrics: RouteMetrics::new("/v1/coupons/{id}/pause"),
        operations: &[Operation {
            handler: |service, call| Box::pin(coupons::change_status(service, call, Change::Pause)),
            name: "pause_coupon",
            summary: "Stops issuing until the coupon is resumed",
            ..STATUS_CHANGE
        }],
    },
    Route {
        metrics: RouteMetrics::new("/v1/coupons/{id}/resume"),
        operations: &[Operation {
            handler: |service, call| Box::pin(coupons::change_status(service, call, Change::Resume)),
            name: "resume_coupon",
            summary: "Resumes issuing a paused coupon",
            ..STATUS_CHANGE
        }],
    },
    Route {
        metrics: RouteMetrics::new("/v1/coupons/{id}/close"),
        operations: &[Operation {
            handler: |service, call| Box::pin(coupons::change_status(service, call, Change::Close)),
            name: "close_coupon",
            summary: "Stops issuing for ever",
            ..STATUS_CHANGE
        }],
    },
    Route {
        metrics: RouteMetrics::new("/v1/cluster"),
        operations: &[Operation {
            method: Verb::Get,
            handler: |service, call| Box::pin(cluster::read(service, call)),
            name: "cluster",
            summary: "Lists nodes and shards",
            access: Access::Reader,
            parameters: &[],
            body: None,
            success: json(200, "Cluster", &[]),
            problems: &[CREDENTIALS, STORE],
        }],
    },
    Route {
        metrics: RouteMetrics::new("/v1/cluster/coupons/{id}"),
        operations: &[Operation {
            method: Verb::Get,
            handler: |service, call| Box::pin(cluster::place(service, call)),
            name: "cluster_coupon",
            summary: "Reads the shard of a coupon and the node that owns it",
            access: Access::Reader,
            parameters: &[],
            body: None,
            success: json(200, "Place", &[]),
            problems: &[CREDENTIALS, &["UNKNOWN_COUPON"], STORE],
        }],
    },
    Route {
        metrics: RouteMetrics::new("/livez"),
        operations: &[Operation {
            handler: |_, _| Box::pin(async move { Ok(operations::livez()) }),
            name: "livez",
            summary: "200 while the process works",
            success: json(200, "Alive", &[]),
            ..OPEN
        }],
    },
    Route {
        metrics: RouteMetrics::new("/readyz"),
        operations: &[Operation {
            handler: |service, _| Box::pin(async move { Ok(operations::readyz(service)) }),
            name: "readyz",
            summary: "200 if a balancer may send requests to this node",
            success: json(200, "Ready", &[]),
            ..OPEN
        }],
    },
    Route {
        metrics: RouteMetrics::new("/metrics"),
        operations: &[Operation {
            handler: |service, _| Box::pin(async move { Ok(operations::metrics(service)) }),
            name: "metrics",
            summary: "Metrics, in the text format of Prometheus",
            success: text("text/plain"),
            problems: &[&["OVERLOADED"]],
            ..OPEN
        }],
    },
    Route {
        metrics: RouteMetrics::new("/openapi.json"),
        operations: &[Operation {
            handler: |_, _| Box::pin(async move { Ok(openapi::document()) }),
            name: "openapi",
            summary: "This document",
            success: json(200, "Anything", &[]),
            ..OPEN
        }],
    },
    Route {
        metrics: RouteMetrics::new("/docs"),
        operations: &[Operation {
            handler: |_, _| Box::pin(async move { docs::page() }),
            name: "docs",
            summary: "This document as a page",
            success: text("text/html"),
            ..OPEN
        }],
    },
    Route {
        metrics: RouteMetrics::new("/docs/{file}"),
        operations: &[Operation {
            handler: |_, call| Box::pin(async move { docs::file(call.parameter()) }),
            name: "docs_file",
            summary: "A file of the page",
            success: text("*/*"),
            problems: &[&["NOT_FOUND"]],
            ..OPEN
        }],
    },
];

/// Common fields of all changes of status.
const STATUS_CHANGE: Operation = Operation {
    method: Verb::Post,
    handler: |service, call| Box::pin(coupons::change_status(service, call, Change::Pause)),
    name: "",
    summary: "",
    access: Access::Admin,
    parameters: &["If-Match", "Idempotency-Key"],
    body: Some(Body {
        schema: "Nothing",
        required: false,
    }),
    success: json(200, "Coupon", &["ETag", "Idempotent-Replayed"]),
    problems: &[CREDENTIALS, OWNER, &["CLOSED", "VERSION_MISMATCH"], BODY, STORE],
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

/// Common fields of operations without credentials and parameters.
const OPEN: Operation = Operation {
    method: Verb::Get,
    handler: |_, _| Box::pin(async move { Ok(operations::livez()) }),
    name: "",
    summary: "",
    access: Access::Anyone,
    parameters: &[],
    body: None,
    success: json(200, "Anything", &[]),
    problems: &[],
};
