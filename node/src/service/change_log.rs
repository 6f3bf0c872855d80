//! The log of what administrators do: one line for each coupon that is created or changed, with who did it.
//! The request's span has the request id.

use std::time::Duration;

use actors::coupon::change::Change;
use actors::coupon::ids::CouponId;
use actors::coupon::offer::OfferPatch;
use actors::log_limit::LogLimit;

/// More than administrators do by hand; a program may create thousands of coupons.
static LINES: LogLimit = LogLimit::new(100, Duration::from_secs(10), |suppressed| {
    tracing::info!(suppressed, "further coupons were created or changed");
});

/// Logs that a coupon was created.
pub(super) fn created(by: &str, coupon: CouponId) {
    if LINES.admits() {
        tracing::info!(by, %coupon, "a coupon was created");
    }
}

/// Logs that a coupon was changed, unless the change altered nothing.
pub(super) fn changed(by: &str, coupon: CouponId, change: &Change, from_version: Option<u64>, version: u64) {
    if from_version != Some(version) && LINES.admits() {
        let (change, fields) = words(change);
        tracing::info!(by, %coupon, change, fields, from_version, version, "a coupon was changed");
    }
}

/// Logs that a coupon may have been changed.
pub(super) fn unknown(by: &str, coupon: CouponId, change: &Change) {
    if LINES.admits() {
        let (change, fields) = words(change);
        tracing::warn!(by, %coupon, change, fields, "the outcome of a change is unknown");
    }
}

/// Returns the name of a change, and the fields that it sets.
fn words(change: &Change) -> (&'static str, Option<String>) {
    match change {
        Change::Patch(patch) => ("patch", Some(fields(patch))),
        Change::Pause => ("pause", None),
        Change::Resume => ("resume", None),
        Change::Close => ("close", None),
    }
}

/// Returns the names of the fields that a patch sets, as the API has them.
fn fields(patch: &OfferPatch) -> String {
    let OfferPatch {
        title,
        description,
        metadata,
        discount,
        max_discount,
        min_order_amount,
        total_quantity,
        starts_at,
        ends_at,
        use_within_days,
        use_until,
        time_zone,
    } = patch;
    let fields = [
        ("title", title.is_some()),
        ("description", description.is_some()),
        ("metadata", metadata.is_some()),
        ("discount", discount.is_some()),
        ("max_discount", max_discount.is_some()),
        ("min_order_amount", min_order_amount.is_some()),
        ("total_quantity", total_quantity.is_some()),
        ("starts_at", starts_at.is_some()),
        ("ends_at", ends_at.is_some()),
        ("use_within_days", use_within_days.is_some()),
        ("use_until", use_until.is_some()),
        ("time_zone", time_zone.is_some()),
    ];
    let set = fields.into_iter().filter(|(_, is_set)| *is_set);
    set.map(|(name, _)| name).collect::<Vec<_>>().join(",")
}
