//! The operations on coupons.

use super::shared::{BODY, CREDENTIALS, OWNER, STORE, json};
use super::{Access, Body, Operation, Verb};
use crate::api::{changes, coupons};
use crate::service::engine::Change;

/// Reads a coupon.
pub(super) const READ: Operation = Operation {
    method: Verb::Get,
    handler: |service, call| Box::pin(coupons::read(service, call)),
    name: "coupon",
    summary: "Reads a coupon, up to 1 s old, but not older than a change that this node answered",
    access: Access::Anyone,
    parameters: &[],
    body: None,
    success: json(200, "Coupon", &["ETag"]),
    problems: &[&["MALFORMED", "UNKNOWN_COUPON"], STORE],
};

/// Changes a coupon.
pub(super) const PATCH: Operation = Operation {
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
};

/// Lists coupons.
pub(super) const LIST: Operation = Operation {
    method: Verb::Get,
    handler: |service, call| Box::pin(coupons::list(service, call)),
    name: "coupons",
    summary: "Lists coupons, newest first, up to 1 s old",
    access: Access::Anyone,
    parameters: &["phase", "title", "limit", "cursor"],
    body: None,
    success: json(200, "CouponPage", &[]),
    problems: &[&["MALFORMED", "INVALID", "RATE_LIMITED"], STORE],
};

/// Creates a coupon.
pub(super) const CREATE: Operation = Operation {
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
};

/// Lists what was changed about a coupon.
pub(super) const CHANGES: Operation = Operation {
    method: Verb::Get,
    handler: |service, call| Box::pin(changes::list(service, call)),
    name: "coupon_changes",
    summary: "Lists what administrators changed about a coupon, by version, with who did it",
    access: Access::Reader,
    parameters: &["limit", "cursor"],
    body: None,
    success: json(200, "ChangePage", &[]),
    problems: &[CREDENTIALS, &["UNKNOWN_COUPON", "INVALID"], STORE],
};

/// Pauses a coupon.
pub(super) const PAUSE: Operation = Operation {
    handler: |service, call| Box::pin(coupons::change_status(service, call, Change::Pause)),
    name: "pause_coupon",
    summary: "Stops issuing until the coupon is resumed",
    ..STATUS_CHANGE
};

/// Resumes a coupon.
pub(super) const RESUME: Operation = Operation {
    handler: |service, call| Box::pin(coupons::change_status(service, call, Change::Resume)),
    name: "resume_coupon",
    summary: "Resumes issuing a paused coupon",
    ..STATUS_CHANGE
};

/// Closes a coupon.
pub(super) const CLOSE: Operation = Operation {
    handler: |service, call| Box::pin(coupons::change_status(service, call, Change::Close)),
    name: "close_coupon",
    summary: "Stops issuing for ever",
    ..STATUS_CHANGE
};

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
