//! The operations by which users get issuances and see one, and by which clients see who they are.

use super::shared::{BODY, CREDENTIALS, OWNER, RECOGNISED, STORE, json};
use super::{Access, Body, Operation, Verb};
use crate::api::{issuances, me};

/// Issues a coupon to a user.
pub(super) const ISSUE: Operation = Operation {
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
};

/// Reads an issuance.
pub(super) const READ: Operation = Operation {
    method: Verb::Get,
    handler: |service, call| Box::pin(issuances::read(service, call)),
    name: "issuance",
    summary: "Reads an issuance, as its user or with any role",
    access: Access::Known,
    parameters: &[],
    body: None,
    success: json(200, "Issuance", &[]),
    problems: &[RECOGNISED, &["UNKNOWN_ISSUANCE"], STORE],
};

/// Tells who asks.
pub(super) const ME: Operation = Operation {
    method: Verb::Get,
    handler: |service, call| Box::pin(async move { me::read(service, call) }),
    name: "me",
    summary: "Tells who asks: a user or a named key, with its role",
    access: Access::Known,
    parameters: &[],
    body: None,
    success: json(200, "Me", &[]),
    problems: &[RECOGNISED],
};
