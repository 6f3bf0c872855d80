//! The operations on many issuances at once.

use super::shared::{BODY, CREDENTIALS, OWNER, STORE, json, text};
use super::{Access, Body, Operation, Success, Verb};
use crate::api::{bulk, exports};

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

/// Exports all issuances as CSV.
pub(super) const CSV: Operation = Operation {
    handler: |service, call| Box::pin(exports::csv(service, call)),
    name: "export_csv",
    summary: "Streams all issuances of a coupon as CSV, by sequence",
    success: streamed("text/csv"),
    ..NDJSON
};

/// Exports all issuances as NDJSON.
pub(super) const NDJSON: Operation = Operation {
    method: Verb::Get,
    handler: |service, call| Box::pin(exports::ndjson(service, call)),
    name: "export_ndjson",
    summary: "Streams all issuances of a coupon as lines of JSON, by sequence",
    access: Access::ReaderOrService,
    parameters: &["after_sequence"],
    body: None,
    success: streamed("application/x-ndjson"),
    problems: &[CREDENTIALS, &["UNKNOWN_COUPON", "INVALID"], STORE],
};

const fn streamed(media_type: &'static str) -> Success {
    Success {
        headers: &["Content-Disposition"],
        ..text(media_type)
    }
}
