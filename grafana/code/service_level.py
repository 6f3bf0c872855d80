"""The dashboard of the objectives: how much of the error budget is left, and how fast it is used."""

from panels import (
    BLUE,
    CLUSTER,
    GREEN,
    ORANGE,
    RED,
    YELLOW,
    Query,
    add,
    frame,
    lines,
    number,
    rate,
    rows,
    section,
    steps,
)

# The objectives, as in prometheus/rules/recording.yml: the share of bad requests that is allowed.
FAILED_MAX = 0.001
SLOW_MAX = 0.01

V1 = CLUSTER + ',route=~"/v1/.+"'
FAILED = V1 + ',status=~"5.."'
WINDOWS = ("5m", "1h", "6h", "3d")
# Burn rates at which alerts fire: 14.4 and 6 are urgent, 1 is not.
FACTORS = steps((1, YELLOW), (6, ORANGE), (14.4, RED))
# Each window has the colour of the dashed line above which its alert fires.
COLORS = {"5m": BLUE, "1h": RED, "6h": ORANGE, "3d": YELLOW}
LINES = (
    "An alert fires if the line of a window stays above the dashed line of its colour (14.4 over 1 h, 6 over "
    "6 h, 1 over 3 d), and that of a shorter window too; 3 over 1 d is not drawn. While there is less "
    "history than a window is long, the windows are alike."
)


def over_range(bad: str, all_of_them: str) -> str:
    """Returns the share of bad events in the time that the dashboard shows."""
    return f"sum(increase({bad}[$__range])) / sum(increase({all_of_them}[$__range]))"


def build():
    """Returns the dashboard."""
    description = (
        "Objectives for 30 days: 99.9 % of the requests under /v1 are not answered with 500 or above; 99 "
        "% of the issue requests are answered within 250 ms. Refusals are no errors."
    )
    board = frame("firstcome-slo", "Firstcome: Service level", description)
    failed = over_range(f"coupon_http_requests_total{{{FAILED}}}", f"coupon_http_requests_total{{{V1}}}")
    fast = over_range(
        f'coupon_issue_duration_seconds_bucket{{{CLUSTER},le="0.25"}}',
        f"coupon_issue_duration_seconds_count{{{CLUSTER}}}",
    )
    left = steps((0, ORANGE), (0.25, YELLOW), (0.5, GREEN), base=RED)
    for panel in (
        number(
            "Availability in the time shown",
            "Share of requests under /v1 that were answered below 500. Objective: 99.9 %.",
            f"1 - {failed}",
            "percentunit",
            width=6,
            thresholds=steps((0.999, GREEN), base=RED),
            anchor="couponerrorbudgetburnsfast",
            decimals=3,
        ),
        number(
            "Error budget left, of the time shown",
            "Share of the budget (0.1 % may fail) that is left, if the time shown is the whole period. "
            "Below 0 the objective is missed. For the budget of 30 days choose 30 days.",
            f"1 - ({failed}) / {FAILED_MAX}",
            "percentunit",
            width=6,
            thresholds=left,
            anchor="couponerrorbudgetburnsfast",
            decimals=1,
        ),
        number(
            "Within 250 ms in the time shown",
            "Share of the issue requests that were answered within 250 ms. Objective: 99 %.",
            fast,
            "percentunit",
            width=6,
            thresholds=steps((0.99, GREEN), base=RED),
            anchor="couponlatencybudgetburnsfast",
            decimals=2,
        ),
        number(
            "Latency budget left, of the time shown",
            "Share of the budget (1 % may be slow) that is left, if the time shown is the whole period. "
            "Far below 0 after a minute of slow answers, if only minutes are shown. For the budget of 30 "
            "days choose 30 days.",
            f"1 - (1 - {fast}) / {SLOW_MAX}",
            "percentunit",
            width=6,
            thresholds=left,
            anchor="couponlatencybudgetburnsfast",
            decimals=1,
        ),
        rows(
            "Alerts that fire now",
            "Nothing is shown while none fires. A short fault is over before its alert fires. The runbook "
            "has a paragraph for each.",
            f'ALERTS{{{CLUSTER},alertstate="firing"}}',
            width=24,
            height=5,
            order=("alertname", "severity", "instance"),
            empty="No alert fires",
            hidden=("Value", "alertstate", "job"),
        ),
        section("How fast the budgets are used: at 1 they last exactly 30 days"),
        lines(
            "Burn rate of the error budget, by window",
            "Share of failed requests, divided by 0.1 %. " + LINES,
            [
                Query(
                    f"job:coupon_http_requests_failed:ratio_rate{window}{{{CLUSTER}}} / {FAILED_MAX}", window
                )
                for window in WINDOWS
            ],
            width=12,
            thresholds=FACTORS,
            colors=COLORS,
            sort_legend=False,
            anchor="couponerrorbudgetburnsfast",
        ),
        lines(
            "Burn rate of the latency budget, by window",
            "Share of slow issue requests, divided by 1 %. " + LINES,
            [
                Query(f"job:coupon_issue_slow:ratio_rate{window}{{{CLUSTER}}} / {SLOW_MAX}", window)
                for window in WINDOWS
            ],
            width=12,
            thresholds=FACTORS,
            colors=COLORS,
            sort_legend=False,
            anchor="couponlatencybudgetburnsfast",
        ),
        section("What uses them"),
        lines(
            "Failures a second, by route and status",
            "Responses with a status of 500 or above, also of a node that is starting. Nothing is shown "
            "while there are none.",
            [
                Query(
                    f"sum by (route, status) ({rate('coupon_http_requests_total', FAILED)}) > 0",
                    "{{status}} {{route}}",
                )
            ],
            "reqps",
            width=12,
            anchor="couponerrorbudgetburnsfast",
            empty="No failures",
        ),
        lines(
            "Issue requests a second, by time to their answer",
            "Stacked. The red ones use the latency budget.",
            [
                Query(within("0.01"), "≤ 10 ms"),
                Query(f"{within('0.05')} - {within('0.01')}", "10–50 ms"),
                Query(f"{within('0.25')} - {within('0.05')}", "50–250 ms"),
                Query(f"{within('+Inf')} - {within('0.25')}", "> 250 ms"),
            ],
            "reqps",
            width=12,
            stacked=True,
            colors={"≤ 10 ms": GREEN, "10–50 ms": BLUE, "50–250 ms": YELLOW, "> 250 ms": RED},
            sort_legend=False,
            anchor="couponlatencybudgetburnsfast",
        ),
    ):
        add(board, panel)
    return board


def within(bound: str) -> str:
    """Returns the issue requests a second that are answered within a bucket's bound."""
    labels = f'{CLUSTER},le="{bound}"'
    return f"sum({rate('coupon_issue_duration_seconds_bucket', labels)})"
