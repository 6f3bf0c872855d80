"""The dashboard of the checkout: which steps shops take with issuances, and which are refused."""

from flash_sale import COUPONS, ISSUED
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
    quantile,
    rate,
    section,
    steps,
)

# The colours of the steps, and of what becomes of those that are not taken.
STEPS = {"reserve": BLUE, "redeem": GREEN, "release": GREY, "refund": YELLOW, "revoke": PURPLE}
FAILURES = {
    "overloaded": ORANGE,
    "owner_moving": YELLOW,
    "store_unavailable": RED,
    "outcome_unknown": "dark-red",
}
DONE = NODES + ',outcome="done"'
PAID = DONE + ',step="redeem"'
REPEATED = NODES + ',outcome="replayed"'
REFUSED = NODES + ',outcome=~"refused_.+"'
FAILED = NODES + f',outcome=~"{"|".join(FAILURES)}"'
ROUTES = NODES + ',method="POST",route=~"/v1/issuances/.+"'
ALL = f"sum({rate('coupon_use_total')})"
RESERVED = f"max by (coupon) (coupon_reserved_quantity{{{COUPONS}}})"
REDEEMED = f"max by (coupon) (coupon_redeemed_quantity{{{COUPONS}}})"


def by(label: str, labels: str, above: str = "") -> Query:
    """The steps a second with these labels, by a label."""
    return Query(f"sum by ({label}) ({rate('coupon_use_total', labels)}){above}", f"{{{{{label}}}}}")


def numbers():
    """Panels that say at a glance how the checkout goes."""
    return (
        number(
            "Steps asked for a second",
            "Requests to reserve, redeem, release, refund or revoke, whatever the answer.",
            ALL,
            "reqps",
            decimals=0,
        ),
        number(
            "Redeemed a second",
            "Issuances that an order was paid with: stored before the answer.",
            f"sum({rate('coupon_use_total', PAID)})",
            "reqps",
            width=3,
            thresholds=steps(base=GREEN),
            decimals=0,
        ),
        number(
            "Refused, of all steps",
            "Share of steps that were not possible: the issuance is held or used by another order, expired or "
            "revoked, or the request was wrong.",
            f"sum({rate('coupon_use_total', REFUSED)}) / {ALL}",
            "percentunit",
            decimals=1,
        ),
        number(
            "Failed, of all steps",
            "Share of steps without a decision: overloaded, owner moving, database away, outcome unknown.",
            f"sum({rate('coupon_use_total', FAILED)}) / {ALL}",
            "percentunit",
            thresholds=steps((0.001, YELLOW), (0.01, RED)),
            anchor="couponerrorbudgetburnsfast",
            decimals=2,
        ),
        number(
            "p99 of all steps",
            "99 of 100 steps are answered within this time.",
            f"histogram_quantile(0.99, sum by (le) ({rate('coupon_http_request_duration_seconds_bucket', ROUTES)}))",
            "s",
            width=3,
            thresholds=steps((0.25, YELLOW), (1, RED)),
        ),
        nodes_ready(width=3),
        nodes_down(width=3),
    )


def taken():
    """Panels about steps by kind and outcome."""
    return (
        section("Which steps are taken, and which are not"),
        lines(
            "Steps taken a second, by step",
            "Steps that changed an issuance. redeem counts with and without a reservation before it.",
            [by("step", DONE)],
            "reqps",
            stacked=True,
            colors=STEPS,
        ),
        lines(
            "Refused steps a second, by reason",
            "refused_reserved and refused_redeemed: another order has the issuance. Many of these from one shop "
            "mean that it lets two orders use one coupon. Nothing is shown while there are none.",
            [by("outcome", REFUSED, " > 0")],
            "reqps",
            empty="No step is refused",
        ),
        lines(
            "Failed steps a second, by outcome",
            "A shop repeats such a step with the same order. Nothing is shown while there are none.",
            [by("outcome", FAILED, " > 0")],
            "reqps",
            colors=FAILURES,
            anchor="couponerrorbudgetburnsfast",
            empty="No step fails",
        ),
        lines(
            "Repeated steps a second, by step",
            "Steps that the same order had taken before, with the same figures: answered again, and stored "
            "once. Nothing is shown while there are none.",
            [by("step", REPEATED, " > 0")],
            "reqps",
            colors=STEPS,
            empty="No step is repeated",
        ),
        lines(
            "Refused steps a second, by step",
            "The same refusals as above. Nothing is shown while there are none.",
            [by("step", REFUSED, " > 0")],
            "reqps",
            colors=STEPS,
            empty="No step is refused",
        ),
        lines(
            "Slowest steps (p99), by route",
            "99 of 100 requests to this route are answered within this time, whatever the answer.",
            [Query(quantile(0.99, "coupon_http_request_duration_seconds", "route", ROUTES), "{{route}}")],
            "s",
            thresholds=steps((0.25, RED)),
        ),
    )


def coupons():
    """Panels about what became of the issuances of each coupon."""
    return (
        section("What became of the coupons"),
        bars(
            "Redeemed, of what is issued",
            "Share of a coupon's issuances that orders were paid with, for each node's busiest coupons.",
            f"{REDEEMED} / ({ISSUED} > 0)",
            "percentunit",
            maximum=1,
            legend="coupon {{coupon}}",
        ),
        lines(
            "Redeemed, by coupon",
            "Issuances that orders were paid with, without those that were refunded.",
            [Query(REDEEMED, "coupon {{coupon}}")],
            decimals=0,
        ),
        lines(
            "Held by orders, by coupon",
            "Issuances that orders hold. A hold that lapsed counts until the metrics of the coupon's owner are read "
            "twice.",
            [Query(RESERVED, "coupon {{coupon}}")],
            decimals=0,
        ),
    )


def build():
    """Returns the dashboard."""
    board = frame(
        "firstcome-checkout",
        "Firstcome: Checkout",
        "What shops do with issued coupons: reserve, redeem, give back.",
        coupons=True,
    )
    for panel in (*numbers(), *taken(), *coupons()):
        add(board, panel)
    return board
