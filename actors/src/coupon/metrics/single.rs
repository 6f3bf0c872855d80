//! The metrics of single coupons. They do not go through the recorder, because it cannot remove a series, and
//! a coupon whose owner was passivated must have none.

use crate::metric_table;
use crate::metrics::MetricKind;

metric_table! {
    ISSUED = "coupon_issued_quantity", MetricKind::Gauge, Count,
        "Number issued of the coupon, as stored. For the busiest coupons with an owner on this node.";
    TOTAL = "coupon_offered_quantity", MetricKind::Gauge, Count,
        "total_quantity of the coupon, and how many were given back to it. Absent if there is no quantity.";
    RESERVED = "coupon_reserved_quantity", MetricKind::Gauge, Count,
        "Issuances of the coupon that orders hold. If nothing else is asked of the coupon, a hold that lapsed \
         counts until metrics are read twice.";
    REDEEMED = "coupon_redeemed_quantity", MetricKind::Gauge, Count,
        "Issuances of the coupon that orders were paid with, without those that were refunded.";
    REQUESTS = "coupon_owner_requests_total", MetricKind::Counter, Count,
        "Requests that reached the coupon's owner since it was loaded. Those that the door answered are \
         not among them.";
    QUEUED = "coupon_owner_queue_length", MetricKind::Gauge, Count,
        "Requests that are queued before the coupon's owner or wait for its answer.";
    UNSTORED = "coupon_owner_entries_unstored", MetricKind::Gauge, Count,
        "Entries that the coupon's owner decided and that are not stored.";
}
