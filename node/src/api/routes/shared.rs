//! What operations share: groups of problems, and forms of responses.

use super::Success;

/// Problems of every operation that needs credentials.
pub(super) const CREDENTIALS: &[&str] = &["MALFORMED", "UNAUTHENTICATED", "KEYS_UNAVAILABLE", "FORBIDDEN"];
/// Problems of every operation that any authenticated client may call.
pub(super) const RECOGNISED: &[&str] = &["MALFORMED", "UNAUTHENTICATED", "KEYS_UNAVAILABLE"];
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

/// Returns a response in JSON.
pub(super) const fn json(status: u16, schema: &'static str, headers: &'static [&'static str]) -> Success {
    Success {
        status,
        media_type: "application/json",
        schema: Some(schema),
        headers,
    }
}

/// Returns a response in another format.
pub(super) const fn text(media_type: &'static str) -> Success {
    Success {
        status: 200,
        media_type,
        schema: None,
        headers: &[],
    }
}
