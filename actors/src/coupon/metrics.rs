//! The metrics of coupons: of requests by their outcome, and in [`single`] of single coupons.

pub mod single;

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Counter, Histogram};

use crate::metric_table;
use crate::metrics::{MetricKind, OBJECTIVE_SECONDS};

metric_table! {
    ISSUES = "coupon_issue_total", MetricKind::Counter, Count, "Issue requests answered, by outcome.";
    ISSUE_SECONDS = "coupon_issue_duration_seconds", MetricKind::Histogram(OBJECTIVE_SECONDS), Seconds,
        "Time from an issue request to its answer, by outcome, wherever it is answered: at the door, here or on \
         another node.";
    CHANGES = "coupon_change_total", MetricKind::Counter, Count, "Administrators' changes answered, by outcome.";
    USES = "coupon_use_total", MetricKind::Counter, Count,
        "Steps with issuances that were asked for and answered, by step and outcome: done, replayed, or why not.";
}

/// Steps with issuances.
const STEPS: [&str; 5] = ["reserve", "redeem", "release", "refund", "revoke"];

/// Outcomes of steps.
const STEP_OUTCOMES: [&str; 15] = [
    "done",
    "replayed",
    "refused_unknown_issuance",
    "refused_order_mismatch",
    "refused_revoked",
    "refused_redeemed",
    "refused_reserved",
    "refused_expired",
    "refused_below_minimum",
    "refused_not_reserved",
    "refused_not_redeemed",
    "overloaded",
    "owner_moving",
    "store_unavailable",
    "outcome_unknown",
];

/// Outcomes of changes.
const CHANGE_OUTCOMES: [&str; 12] = [
    "done",
    "replayed",
    "key_reused",
    "unknown_coupon",
    "version_mismatch",
    "closed",
    "quantity_below_issued",
    "invalid",
    "overloaded",
    "owner_moving",
    "store_unavailable",
    "outcome_unknown",
];

/// Creates the series whose labels are known, at 0, as [`crate::metrics::register`] does.
pub fn register() {
    issues();
    for outcome in CHANGE_OUTCOMES {
        metrics::counter!(CHANGES, "outcome" => outcome).increment(0);
    }
    for step in STEPS {
        for outcome in STEP_OUTCOMES {
            metrics::counter!(USES, "step" => step, "outcome" => outcome).increment(0);
        }
    }
}

/// Counts a step that was asked for and answered.
pub(super) fn stepped(step: &'static str, outcome: &'static str) {
    debug_assert!(STEPS.contains(&step), "{step} is not registered");
    debug_assert!(STEP_OUTCOMES.contains(&outcome), "{outcome} is not registered");
    metrics::counter!(USES, "step" => step, "outcome" => outcome).increment(1);
}

/// Counts a change that was answered. Changes are rare enough to look the metric up each time.
pub(super) fn changed(outcome: &'static str) {
    debug_assert!(CHANGE_OUTCOMES.contains(&outcome), "{outcome} is not registered");
    metrics::counter!(CHANGES, "outcome" => outcome).increment(1);
}

/// The handles of issue requests. First used when the node starts, which is after the recorder is installed.
pub(super) fn issues() -> &'static IssuesHandles {
    static HANDLES: LazyLock<IssuesHandles> = LazyLock::new(IssuesHandles::new);
    &HANDLES
}

/// The handles of one outcome of issue requests.
pub(super) struct IssueHandles {
    count: Counter,
    seconds: Histogram,
}

impl IssueHandles {
    fn of(outcome: &'static str) -> Self {
        Self {
            count: metrics::counter!(ISSUES, "outcome" => outcome),
            seconds: metrics::histogram!(ISSUE_SECONDS, "outcome" => outcome),
        }
    }

    /// Counts one answer, which took this long.
    pub(super) fn record(&self, took: Duration) {
        self.count.increment(1);
        self.seconds.record(took);
    }
}

/// The handles of all outcomes of issue requests.
pub(super) struct IssuesHandles {
    pub(super) issued: IssueHandles,
    pub(super) replayed: IssueHandles,
    pub(super) unknown_coupon: IssueHandles,
    pub(super) already_issued: IssueHandles,
    pub(super) closed: IssueHandles,
    pub(super) paused: IssueHandles,
    pub(super) not_started: IssueHandles,
    pub(super) ended: IssueHandles,
    pub(super) sold_out: IssueHandles,
    pub(super) overloaded: IssueHandles,
    pub(super) owner_moving: IssueHandles,
    pub(super) store_unavailable: IssueHandles,
    pub(super) outcome_unknown: IssueHandles,
}

impl IssuesHandles {
    fn new() -> Self {
        Self {
            issued: IssueHandles::of("issued"),
            replayed: IssueHandles::of("replayed"),
            unknown_coupon: IssueHandles::of("unknown_coupon"),
            already_issued: IssueHandles::of("already_issued"),
            closed: IssueHandles::of("closed"),
            paused: IssueHandles::of("paused"),
            not_started: IssueHandles::of("not_started"),
            ended: IssueHandles::of("ended"),
            sold_out: IssueHandles::of("sold_out"),
            overloaded: IssueHandles::of("overloaded"),
            owner_moving: IssueHandles::of("owner_moving"),
            store_unavailable: IssueHandles::of("store_unavailable"),
            outcome_unknown: IssueHandles::of("outcome_unknown"),
        }
    }
}
