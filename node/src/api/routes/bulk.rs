//! The operations on many issuances at once.

use super::table::{BODY, CREDENTIALS, OWNER, STORE, json};
use super::{Access, Body, Operation, Verb};
use crate::api::bulk;

/// Issues to many users.
pub(super) const ISSUE: Operation = Operation {
    method: Verb::Post,
    handler: |service, call| Box::pin(bulk::issue(service, call)),
    name: "issue_in_bulk",
    summary: "Issues the coupon to many users, in the order of the list, and tells the result of each",
    access: Access::AdminOrService,
    parameters: &["Idempotency-Key"],
    body: Some(Body {
        schema: "BulkIssueRequest",
        required: true,
    }),
    success: json(200, "BulkIssueResponse", &[]),
    problems: &[CREDENTIALS, OWNER, BODY, STORE],
};
