//! The metrics of single coupons, in the text format of Prometheus.

use std::fmt::Write;

use actors::coupon::ids::CouponId;
use actors::coupon::metrics::single;
use actors::metrics::Metric;
use actors::owning::figures::OwnerReading;

/// A coupon with the figures of its owner.
pub(crate) type CouponFigures = (CouponId, OwnerReading);

/// Returns the value of a metric; `None` if the coupon has none.
type Value = fn(&OwnerReading) -> Option<u64>;

/// Writes the metrics of these coupons.
pub(super) fn write_all(text: &mut String, figures: &[CouponFigures]) {
    let values: [(&str, Value); 7] = [
        (single::ISSUED, |owner| Some(owner.entries)),
        (single::TOTAL, |owner| owner.entries_max),
        (single::RESERVED, |owner| Some(owner.counts[0])),
        (single::REDEEMED, |owner| Some(owner.counts[1])),
        (single::REQUESTS, |owner| Some(owner.requests)),
        (single::QUEUED, |owner| Some(owner.queued as u64)),
        (single::UNSTORED, |owner| Some(owner.unstored)),
    ];
    for metric in single::METRICS {
        let value = values.iter().find(|(name, _)| *name == metric.name);
        if let Some((_, value)) = value {
            write(text, metric, figures, *value);
        }
    }
}

fn write(text: &mut String, metric: &Metric, figures: &[CouponFigures], value: Value) {
    let mut samples = figures
        .iter()
        .filter_map(|(id, owner)| Some((id, value(owner)?)))
        .peekable();
    if samples.peek().is_none() {
        return;
    }
    let Metric { name, help, .. } = metric;
    let kind = metric.kind.name();
    // Writing to a string does not fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (id, value) in samples {
        let _ = writeln!(text, "{name}{{coupon=\"{id}\"}} {value}");
    }
    text.push('\n');
}
