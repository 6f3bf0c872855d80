//! Every operation: its route, who may, what it takes, and each way in which it can answer.

use utoipa::openapi::HttpMethod;

use crate::http::route::Route;

/// One method of one route.
pub(super) struct Operation {
    pub(super) route: Route,
    pub(super) method: HttpMethod,
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    pub(super) who: Who,
    /// Parameters besides those in the path, by name.
    pub(super) parameters: &'static [&'static str],
    /// The schema of its body, and whether there must be one.
    pub(super) body: Option<(&'static str, bool)>,
    pub(super) answer: Answer,
    /// The codes of the problems that it can meet.
    pub(super) problems: &'static [&'static str],
}

/// Whose credentials an operation wants.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Anyone,
    User,
    Admin,
    UserOrAdmin,
}

/// What an operation answers when all is well.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) media_type: &'static str,
    /// Its schema's name; none for what is text.
    pub(super) schema: Option<&'static str>,
    /// Headers besides `X-Request-Id`.
    pub(super) headers: &'static [&'static str],
}

const fn json(status: u16, schema: &'static str, headers: &'static [&'static str]) -> Answer {
    Answer {
        status,
        media_type: "application/json",
        schema: Some(schema),
        headers,
    }
}

const fn text(media_type: &'static str) -> Answer {
    Answer {
        status: 200,
        media_type,
        schema: None,
        headers: &[],
    }
}

/// Page after page of something.
const PAGE: &[&str] = &["limit", "cursor"];

/// All of them, in the order in which people read about them.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        route: Route::CouponIssuances,
        method: HttpMethod::Post,
        name: "issue",
        summary: "Take one: the first that fits is answered",
        who: Who::User,
        parameters: &["Idempotency-Key"],
        body: Some(("IssueRequest", false)),
        answer: json(201, "Issuance", &["Location", "Idempotent-Replayed"]),
        problems: &[
            "MALFORMED",
            "UNAUTHENTICATED",
            "FORBIDDEN",
            "UNKNOWN_COUPON",
            "ALREADY_ISSUED",
            "CLOSED",
            "PAUSED",
            "NOT_STARTED",
            "ENDED",
            "SOLD_OUT",
            "REQUEST_TIMEOUT",
            "TOO_LARGE",
            "UNSUPPORTED_MEDIA_TYPE",
            "INVALID",
            "RATE_LIMITED",
            "INTERNAL",
            "OVERLOADED",
            "OWNER_MOVING",
            "STORE_UNAVAILABLE",
            "OUTCOME_UNKNOWN",
        ],
    },
    Operation {
        route: Route::MyIssuances,
        method: HttpMethod::Get,
        name: "my_issuances",
        summary: "What the user has, newest first; what was answered 201 is in it at once",
        who: Who::User,
        parameters: PAGE,
        body: None,
        answer: json(200, "IssuancePage", &[]),
        problems: &[
            "MALFORMED",
            "UNAUTHENTICATED",
            "FORBIDDEN",
            "INVALID",
            "INTERNAL",
            "OVERLOADED",
            "STORE_UNAVAILABLE",
        ],
    },
    Operation {
        route: Route::Issuance,
        method: HttpMethod::Get,
        name: "issuance",
        summary: "One issuance, for its user and administrators",
        who: Who::UserOrAdmin,
        parameters: &[],
        body: None,
        answer: json(200, "Issuance", &[]),
        problems: &[
            "MALFORMED",
            "UNAUTHENTICATED",
            "UNKNOWN_ISSUANCE",
            "INTERNAL",
            "OVERLOADED",
            "STORE_UNAVAILABLE",
        ],
    },
    Operation {
        route: Route::Coupons,
        method: HttpMethod::Get,
        name: "coupons",
        summary: "Coupons, newest first; may be up to 1 s old. A page by phase may have fewer items than asked for and yet lead on",
        who: Who::Anyone,
        parameters: &["phase", "limit", "cursor"],
        body: None,
        answer: json(200, "CouponPage", &[]),
        problems: &[
            "MALFORMED",
            "INVALID",
            "INTERNAL",
            "OVERLOADED",
            "STORE_UNAVAILABLE",
        ],
    },
    Operation {
        route: Route::Coupons,
        method: HttpMethod::Post,
        name: "create_coupon",
        summary: "Make a coupon; the same key again gives the first, another body 422",
        who: Who::Admin,
        parameters: &["Idempotency-Key"],
        body: Some(("CreateCoupon", true)),
        answer: json(201, "Coupon", &["Location", "ETag", "Idempotent-Replayed"]),
        problems: &[
            "MALFORMED",
            "UNAUTHENTICATED",
            "FORBIDDEN",
            "REQUEST_TIMEOUT",
            "TOO_LARGE",
            "UNSUPPORTED_MEDIA_TYPE",
            "INVALID",
            "INTERNAL",
            "OVERLOADED",
            "STORE_UNAVAILABLE",
            "OUTCOME_UNKNOWN",
        ],
    },
    Operation {
        route: Route::Coupon,
        method: HttpMethod::Get,
        name: "coupon",
        summary: "One coupon; may be up to 1 s old, but never older than a change the same node answered",
        who: Who::Anyone,
        parameters: &[],
        body: None,
        answer: json(200, "Coupon", &["ETag"]),
        problems: &[
            "MALFORMED",
            "UNKNOWN_COUPON",
            "INTERNAL",
            "OVERLOADED",
            "STORE_UNAVAILABLE",
        ],
    },
    Operation {
        route: Route::Coupon,
        method: HttpMethod::Patch,
        name: "patch_coupon",
        summary: "Change a coupon: a merge patch, null clears",
        who: Who::Admin,
        parameters: &["If-Match"],
        body: Some(("PatchCoupon", true)),
        answer: json(200, "Coupon", &["ETag"]),
        problems: &[
            "MALFORMED",
            "UNAUTHENTICATED",
            "FORBIDDEN",
            "UNKNOWN_COUPON",
            "QUANTITY_BELOW_ISSUED",
            "VERSION_MISMATCH",
            "REQUEST_TIMEOUT",
            "TOO_LARGE",
            "UNSUPPORTED_MEDIA_TYPE",
            "INVALID",
            "INTERNAL",
            "OVERLOADED",
            "OWNER_MOVING",
            "STORE_UNAVAILABLE",
            "OUTCOME_UNKNOWN",
        ],
    },
    status_change(Route::CouponPause, "pause_coupon", "Issue no more until resumed"),
    status_change(Route::CouponResume, "resume_coupon", "Issue again"),
    status_change(Route::CouponClose, "close_coupon", "Issue no more, for ever"),
    Operation {
        route: Route::CouponIssuances,
        method: HttpMethod::Get,
        name: "coupon_issuances",
        summary: "Who has the coupon, by sequence",
        who: Who::Admin,
        parameters: &["user_id", "after_sequence", "limit", "cursor"],
        body: None,
        answer: json(200, "IssuancePage", &[]),
        problems: &[
            "MALFORMED",
            "UNAUTHENTICATED",
            "FORBIDDEN",
            "UNKNOWN_COUPON",
            "INVALID",
            "INTERNAL",
            "OVERLOADED",
            "STORE_UNAVAILABLE",
        ],
    },
    Operation {
        route: Route::Cluster,
        method: HttpMethod::Get,
        name: "cluster",
        summary: "Nodes and shards",
        who: Who::Admin,
        parameters: &[],
        body: None,
        answer: json(200, "Cluster", &[]),
        problems: &[
            "MALFORMED",
            "UNAUTHENTICATED",
            "FORBIDDEN",
            "INTERNAL",
            "OVERLOADED",
            "STORE_UNAVAILABLE",
        ],
    },
    Operation {
        route: Route::ClusterCoupon,
        method: HttpMethod::Get,
        name: "cluster_coupon",
        summary: "Where a coupon is",
        who: Who::Admin,
        parameters: &[],
        body: None,
        answer: json(200, "Place", &[]),
        problems: &[
            "MALFORMED",
            "UNAUTHENTICATED",
            "FORBIDDEN",
            "UNKNOWN_COUPON",
            "INTERNAL",
            "OVERLOADED",
            "STORE_UNAVAILABLE",
        ],
    },
    open(
        Route::Livez,
        "livez",
        "200 while the process works",
        json(200, "Alive", &[]),
        &[],
    ),
    open(
        Route::Readyz,
        "readyz",
        "Whether a balancer should send people here",
        json(200, "Ready", &[]),
        &[],
    ),
    open(
        Route::Metrics,
        "metrics",
        "Prometheus text",
        text("text/plain"),
        &[],
    ),
    open(
        Route::OpenApi,
        "openapi",
        "This document",
        json(200, "Anything", &[]),
        &[],
    ),
    open(
        Route::Docs,
        "docs",
        "This document, for people",
        text("text/html"),
        &[],
    ),
    open(
        Route::DocsFile,
        "docs_file",
        "A file that the page for people is made of",
        text("*/*"),
        &["NOT_FOUND"],
    ),
];

const fn status_change(route: Route, name: &'static str, summary: &'static str) -> Operation {
    Operation {
        route,
        method: HttpMethod::Post,
        name,
        summary,
        who: Who::Admin,
        parameters: &["If-Match"],
        body: Some(("Nothing", false)),
        answer: json(200, "Coupon", &["ETag"]),
        problems: &[
            "MALFORMED",
            "UNAUTHENTICATED",
            "FORBIDDEN",
            "UNKNOWN_COUPON",
            "CLOSED",
            "VERSION_MISMATCH",
            "REQUEST_TIMEOUT",
            "TOO_LARGE",
            "UNSUPPORTED_MEDIA_TYPE",
            "INVALID",
            "INTERNAL",
            "OVERLOADED",
            "OWNER_MOVING",
            "STORE_UNAVAILABLE",
            "OUTCOME_UNKNOWN",
        ],
    }
}

const fn open(
    route: Route,
    name: &'static str,
    summary: &'static str,
    answer: Answer,
    problems: &'static [&'static str],
) -> Operation {
    Operation {
        route,
        method: HttpMethod::Get,
        name,
        summary,
        who: Who::Anyone,
        parameters: &[],
        body: None,
        answer,
        problems,
    }
}
