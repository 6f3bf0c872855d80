"""The dashboard of a sale: how many requests come, how they are answered, and how far storing is behind."""

from panels import (
    BLUE,
    GREEN,
    GREY,
    NODES,
    ORANGE,
    PURPLE,
    RED,
    YELLOW,
    Query,
    add,
    bars,
    frame,
    lines,
    nodes_down,
    nodes_ready,
    number,
    of_nodes,
    quantile,
    quantile_by,
    rate,
    section,
    steps,
)

# The colours of the most frequent answers and of the failures.
OUTCOMES = {
    "issued": GREEN,
    "sold_out": BLUE,
    "already_issued": PURPLE,
    "replayed": "light-green",
    "overloaded": ORANGE,
    "owner_moving": YELLOW,
    "store_unavailable": RED,
    "outcome_unknown": "dark-red",
    "not_started": GREY,
    "paused": "light-blue",
    "closed": "dark-blue",
    "ended": "super-light-blue",
    "unknown_coupon": "dark-purple",
}
COUPONS = 'job="$job",coupon=~"$coupon"'
ISSUED = f"max by (coupon) (coupon_issued_quantity{{{COUPONS}}})"
OFFERED = f"max by (coupon) (coupon_offered_quantity{{{COUPONS}}})"
LEFT = f"({OFFERED} - {ISSUED})"
SPEED = f"max by (coupon) (deriv(coupon_issued_quantity{{{COUPONS}}}[1m]))"


def build():
    """Returns the dashboard."""
    board = frame(
        "firstcome-sale", "Firstcome: Flash sale", "One screen for the minutes of a sale.", coupons=True
    )
    issued = NODES + ',outcome="issued"'
    failures = NODES + ',outcome=~"overloaded|owner_moving|store_unavailable|outcome_unknown"'
    routes = NODES + ',route=~"/v1/.+"'
    total = f"sum({rate('coupon_issue_total')})"
    for panel in (
        number(
            "Issue requests a second",
            "Issue requests that all selected nodes answer, whatever the answer.",
            total,
            "reqps",
            decimals=0,
        ),
        number(
            "Issued a second",
            "Requests that got a coupon: answered 201, and committed.",
            f"sum({rate('coupon_issue_total', issued)})",
            "reqps",
            width=3,
            thresholds=steps(base=GREEN),
            decimals=0,
        ),
        number(
            "Failed, of all issue requests",
            "Share of issue requests that were not answered with a decision: overloaded, owner moving, "
            "database away, outcome unknown. A starting node answers that its database is away. Refusals are "
            "decisions.",
            f"sum({rate('coupon_issue_total', failures)}) / {total}",
            "percentunit",
            thresholds=steps((0.001, YELLOW), (0.01, RED)),
            anchor="couponerrorbudgetburnsfast",
            decimals=2,
        ),
        number(
            "p99 of all answers",
            "99 of 100 issue requests are answered within this time.",
            f"histogram_quantile(0.99, sum by (le) ({rate('coupon_issue_duration_seconds_bucket')}))",
            "s",
            width=3,
            thresholds=steps((0.25, YELLOW), (1, RED)),
            anchor="couponlatencybudgetburnsfast",
        ),
        number(
            "Oldest unstored decision",
            "Age of the oldest decision that is not committed yet, at the last scrape. Its answer waits for "
            "the commit.",
            f"max(coupon_oldest_unstored_entry_age_seconds{{{NODES}}})",
            "s",
            thresholds=steps((0.5, YELLOW), (2, RED)),
            anchor="couponwritebacklag",
        ),
        nodes_ready(width=3),
        nodes_down(width=3),
        section("Who gets which answer"),
        lines(
            "Answers to issue requests, by outcome",
            "Answers a second. Green is issued, light green the same answer again for a repeated request; "
            "blue, purple and grey are refusals; the warm colours are failures. Rates and percentiles are "
            "of the last four scrapes: with a scrape every 5 s, what ended is shown for 20 s more.",
            [Query(f"sum by (outcome) ({rate('coupon_issue_total')}) > 0", "{{outcome}}")],
            "reqps",
            width=16,
            height=9,
            stacked=True,
            colors=OUTCOMES,
        ),
        lines(
            "Answered at the door, of all issue requests",
            "Share of issue requests that the receiving node answers by itself, because it knows that the "
            "coupon is sold out. High after a coupon sold out.",
            [Query(f"sum({rate('coupon_door_answers_total')}) / {total}", "at the door")],
            "percentunit",
            height=9,
            maximum=1,
        ),
        section("Coupons on sale"),
        bars(
            "Issued, of the quantity",
            "Share of the quantity that is issued, for each node's busiest coupons that have a quantity. "
            "Yellow from 90 % on; blue is sold out.",
            f"{ISSUED} / {OFFERED}",
            "percentunit",
            thresholds=steps((0.9, YELLOW), (1, BLUE)),
            anchor="couponabouttosellout",
            maximum=1,
            width=6,
            legend="coupon {{coupon}}",
        ),
        lines(
            "Left to issue",
            "Quantity that is not issued yet. A coupon without a quantity is not shown.",
            [Query(LEFT, "coupon {{coupon}}")],
            width=6,
            decimals=0,
        ),
        lines(
            "Time until sold out",
            "At the pace of the last minute, so too long when a rush begins, and too short when it is over. "
            "Nothing is shown for a coupon that is sold out or of which none is issued at present; the "
            "legend keeps its last value.",
            [Query(f"({LEFT} > 0) / ({SPEED} > 0)", "coupon {{coupon}}")],
            "s",
            width=6,
            anchor="couponabouttosellout",
            empty="No coupon is being issued",
        ),
        lines(
            "Requests that reach the owner, a second",
            "By coupon, without the requests that doors answer.",
            [Query(f"sum by (coupon) ({rate('coupon_owner_requests_total', COUPONS)})", "coupon {{coupon}}")],
            "reqps",
            width=6,
        ),
        section("How long clients wait"),
        lines(
            "Median time to an answer (p50), by outcome",
            "Half of the issue requests with this outcome are answered within this time.",
            [quantile_by("outcome", 0.5, "coupon_issue_duration_seconds")],
            "s",
            colors=OUTCOMES,
        ),
        lines(
            "Slowest answers (p99), by outcome",
            "99 of 100 issue requests with this outcome are answered within this time. The objective is "
            "250 ms.",
            [quantile_by("outcome", 0.99, "coupon_issue_duration_seconds")],
            "s",
            thresholds=steps((0.25, RED)),
            anchor="couponlatencybudgetburnsfast",
            colors=OUTCOMES,
        ),
        lines(
            "Slowest responses (p99), by route",
            "99 of 100 requests to this route are answered within this time, whatever the answer.",
            [
                Query(
                    quantile(0.99, "coupon_http_request_duration_seconds", "method, route", routes),
                    "{{method}} {{route}}",
                )
            ],
            "s",
        ),
        section("How far storing is behind"),
        lines(
            "Age of the oldest unstored decision",
            "Age of the oldest decision that is not committed yet, by node. Its answer waits for the commit. "
            "As each scrape finds it: a delay between two scrapes is seen only in the slowest answers.",
            [of_nodes("coupon_oldest_unstored_entry_age_seconds")],
            "s",
            anchor="couponwritebacklag",
        ),
        lines(
            "Decisions that are not stored",
            "Entries decided minus entries stored, by node.",
            [of_nodes("coupon_entries_unstored")],
            anchor="couponwritebacklag",
            stacked=True,
            decimals=0,
        ),
        lines(
            "Requests before a coupon's owner",
            "Requests that are queued before the owner or wait for its answer, by coupon. The bound is "
            "limits.coupon_requests_max.",
            [Query(f"sum by (coupon) (coupon_owner_queue_length{{{COUPONS}}})", "coupon {{coupon}}")],
            anchor="couponqueuenearbound",
            decimals=0,
        ),
    ):
        add(board, panel)
    return board
