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
            "Availability",
            "Share of requests in the time shown that were answered below 500. Objective: 99.9 %.",
            f"1 - {failed}",
            "percentunit",
            width=6,
            thresholds=steps((0.999, GREEN), base=RED),
            anchor="couponerrorbudgetburnsfast",
            decimals=3,
        ),
        number(
            "Error budget left",
            "Share of the budget (0.1 % may fail) that is left, if the time shown is the whole period. "
            "Below 0 the objective is missed.",
            f"1 - ({failed}) / {FAILED_MAX}",
            "percentunit",
            width=6,
            thresholds=left,
            anchor="couponerrorbudgetburnsfast",
            decimals=1,
        ),
        number(
            "Issue requests within 250 ms",
            "Share of the issue requests in the time shown. Objective: 99 %.",
            fast,
            "percentunit",
            width=6,
            thresholds=steps((0.99, GREEN), base=RED),
            anchor="couponlatencybudgetburnsfast",
            decimals=2,
        ),
        number(
            "Latency budget left",
            "Share of the budget (1 % may be slow) that is left, if the time shown is the whole period.",
            f"1 - (1 - {fast}) / {SLOW_MAX}",
            "percentunit",
            width=6,
            thresholds=left,
            anchor="couponlatencybudgetburnsfast",
            decimals=1,
        ),
        section("How fast the budgets are used: at 1 they last exactly 30 days"),
        lines(
            "Burn rate of the error budget, by window",
            "Share of failed requests, divided by 0.1 %. Alerts: 14.4 over 1 h, 6 over 6 h, 1 over 3 d.",
            [
                Query(
                    f"job:coupon_http_requests_failed:ratio_rate{window}{{{CLUSTER}}} / {FAILED_MAX}", window
                )
                for window in WINDOWS
            ],
            width=12,
            thresholds=FACTORS,
            anchor="couponerrorbudgetburnsfast",
        ),
        lines(
            "Burn rate of the latency budget, by window",
            "Share of slow issue requests, divided by 1 %. Alerts: 14.4 over 1 h, 6 over 6 h, 1 over 3 d.",
            [
                Query(f"job:coupon_issue_slow:ratio_rate{window}{{{CLUSTER}}} / {SLOW_MAX}", window)
                for window in WINDOWS
            ],
            width=12,
            thresholds=FACTORS,
            anchor="couponlatencybudgetburnsfast",
        ),
        section("What uses them"),
        lines(
            "Failures a second, by route and status",
            "Responses with a status of 500 or above. Nothing is shown while there are none.",
            [
                Query(
                    f"sum by (route, status) ({rate('coupon_http_requests_total', FAILED)}) > 0",
                    "{{status}} {{route}}",
                )
            ],
            "reqps",
            width=12,
            anchor="couponerrorbudgetburnsfast",
        ),
        lines(
            "Issue requests a second, by time to their answer",
            "Stacked: within 10 ms, up to 50 ms, up to 250 ms, and slower.",
            [
                Query(within("0.01"), "≤ 10 ms"),
                Query(f"{within('0.05')} - {within('0.01')}", "≤ 50 ms"),
                Query(f"{within('0.25')} - {within('0.05')}", "≤ 250 ms"),
                Query(f"{within('+Inf')} - {within('0.25')}", "slower"),
            ],
            "reqps",
            width=12,
            stacked=True,
            colors={"≤ 10 ms": GREEN, "≤ 50 ms": BLUE, "≤ 250 ms": YELLOW, "slower": RED},
            anchor="couponlatencybudgetburnsfast",
        ),
        rows(
            "Alerts that fire now",
            "Nothing is shown while none fires. The runbook has a paragraph for each.",
            f'ALERTS{{{CLUSTER},alertstate="firing"}}',
            width=24,
            height=7,
            hidden=("Value", "alertstate", "job"),
        ),
    ):
        add(board, panel)
    return board


def within(bound: str) -> str:
    """Returns the issue requests a second that are answered within a bucket's bound."""
    labels = f'{CLUSTER},le="{bound}"'
    return f"sum({rate('coupon_issue_duration_seconds_bucket', labels)})"
