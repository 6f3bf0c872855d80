"""The tests of the alerts about error budgets: each window and each factor has a test that fails without it.

An alert fires if two windows, a long and a short one, both exceed a factor, for one of two pairs of windows.
So there are four cases for each pair. In the first, only this pair exceeds its factor, by little. In the
others, only one of its windows does.
"""

import dataclasses

from published import RUNBOOK
from source import HERE

PATH = HERE / "prometheus" / "tests" / "burn_rates.yml"
HEAD = """\
# Tests of the alerts about error budgets, written by grafana/generate.py from grafana/code/burn_rates.py.
rule_files: [../rules/recording.yml, ../rules/alerts.yml]
evaluation_interval: 5m

tests:
"""

# Requests in a sample's time, in the traffic of the measured phases. Bad requests are whole numbers.
REQUESTS = 1_000_000
HOUR = 60


@dataclasses.dataclass
class Case:
    """What happens: phases of minutes, the share of bad requests in budgets, and the traffic."""

    name: str
    phases: list[tuple[int, float, int]]
    # The burn rate of the long window, if the alert fires.
    fires: float | None = None


@dataclasses.dataclass
class Alert:
    """An alert of both objectives, with the time between two samples in minutes, and its severity."""

    suffix: str
    interval: int
    severity: str
    cases: list[Case]


ALERTS = (
    Alert(
        "BurnsFast",
        1,
        "critical",
        [
            Case("1 h and 5 min above 14.4", [(6 * HOUR, 0, 1), (70, 14.9, 1)], fires=14.9),
            Case("1 h below 14.4, 30 min and 5 min above", [(6 * HOUR, 0, 1), (80, 13.55, 1), (25, 15, 1)]),
            Case("5 min below 14.4, 1 h and 30 min above", [(6 * HOUR, 0, 1), (65, 25, 1), (10, 14.1, 1)]),
            Case("6 h and 30 min above 6", [(24 * HOUR, 0, 1), (6 * HOUR + 20, 6.2, 1)], fires=6.2),
            Case("6 h below 6, 2 h and 30 min above", [(24 * HOUR, 0, 1), (4 * HOUR, 8.77, 1)]),
            Case("30 min below 6, 6 h and 1 h above", [(24 * HOUR, 0, 1), (6 * HOUR, 9, 1), (35, 5.85, 1)]),
            Case(
                "30 min below 6, 6 h and 5 min above",
                [(24 * HOUR, 0, 1), (6 * HOUR, 9, 1), (20, 0, 1), (15, 7, 1)],
            ),
        ],
    ),
    Alert(
        "BurnsSlowly",
        5,
        "warning",
        [
            # Twice the traffic before keeps 3 d below 1.
            Case("1 d and 2 h above 3", [(72 * HOUR, 0, 2), (24 * HOUR + 30, 3.1, 1)], fires=3.1),
            Case("1 d below 3, 6 h and 2 h above", [(72 * HOUR, 0, 2), (16 * HOUR, 5.84, 1)]),
            Case("2 h below 3, 1 d and 6 h above", [(72 * HOUR, 0, 2), (22 * HOUR, 4, 1), (150, 2.92, 1)]),
            Case(
                "2 h below 3, 1 d and 1 h above",
                [(72 * HOUR, 0, 2), (22 * HOUR, 4, 1), (55, 0, 1), (65, 5, 1)],
            ),
            Case("3 d and 6 h above 1", [(24 * HOUR, 0, 1), (73 * HOUR, 1.04, 1)], fires=1.04),
            Case("3 d below 1, 1 d and 6 h above", [(72 * HOUR, 0, 1), (48 * HOUR, 1.455, 1)]),
            Case("6 h below 1, 3 d and 1 d above", [(72 * HOUR, 1.3, 1), (8 * HOUR, 0.97, 1)]),
            Case(
                "6 h below 1, 3 d and 2 h above",
                [(72 * HOUR, 1.5, 1), (4 * HOUR, 0, 1), (2 * HOUR + 5, 1.3, 1)],
            ),
        ],
    ),
)


@dataclasses.dataclass
class Objective:
    """An objective: its alerts, its budget, and the series of its requests."""

    prefix: str
    budget: float
    # The series that counts bad or good requests, and the one that counts good or all requests.
    series: tuple[str, str]
    # The numbers of both in a phase, of bad and of all requests.
    counted: object
    texts: dict[str, tuple[str, str]]


OBJECTIVES = (
    Objective(
        "CouponErrorBudget",
        0.001,
        (
            'coupon_http_requests_total{job="firstcome",instance="node-1",'
            'route="/v1/coupons/{id}/issuances",method="POST",status="503"}',
            'coupon_http_requests_total{job="firstcome",instance="node-1",'
            'route="/v1/coupons/{id}/issuances",method="POST",status="201"}',
        ),
        lambda bad, requests: (bad, requests - bad),
        {
            "BurnsFast": (
                "of the requests to firstcome fail.",
                "At this rate the budget of 0.1 % in 30 days is used up within days. Refusals are not errors.",
            ),
            "BurnsSlowly": (
                "of the requests to firstcome fail.",
                "The budget of 0.1 % in 30 days will not last. Refusals are not errors.",
            ),
        },
    ),
    Objective(
        "CouponLatencyBudget",
        0.01,
        (
            'coupon_issue_duration_seconds_bucket{job="firstcome",instance="node-1",outcome="issued",'
            'le="0.25"}',
            'coupon_issue_duration_seconds_count{job="firstcome",instance="node-1",outcome="issued"}',
        ),
        lambda bad, requests: (requests - bad, requests),
        {
            suffix: (
                "of the issue requests to firstcome take longer than 250 ms.",
                "The objective: at most 1 % in 30 days.",
            )
            for suffix in ("BurnsFast", "BurnsSlowly")
        },
    ),
)


def values(steps: list[tuple[int, int]]) -> str:
    """Writes a counter that rises by these steps, each for a number of samples."""
    text, now = "0", 0
    for samples, step in steps:
        text += f" {now + step}+{step}x{samples - 1}"
        now += samples * step
    return text


def written(objective: Objective, alert: Alert, case: Case) -> str:
    """Writes the test of a case."""
    name = objective.prefix + alert.suffix
    columns = ([], [])
    for minutes, burn, traffic in case.phases:
        requests = REQUESTS * traffic
        counts = objective.counted(round(burn * objective.budget * requests), requests)
        for column, count in zip(columns, counts):
            column.append((minutes // alert.interval, count))
    verdict = "is quiet" if case.fires is None else "fires"
    lines = [
        f"  - name: '{name} {verdict}: {case.name}'",
        f"    interval: {alert.interval}m",
        "    input_series:",
    ]
    for series, column in zip(objective.series, columns):
        lines.append(f"      - {{series: '{series}', values: '{values(column)}'}}")
    lines += [
        "    alert_rule_test:",
        f"      - eval_time: {sum(minutes for minutes, _, _ in case.phases)}m",
        f"        alertname: {name}",
    ]
    if case.fires is None:
        lines.append("        exp_alerts: []")
    else:
        summary, description = objective.texts[alert.suffix]
        lines += [
            "        exp_alerts:",
            f"          - exp_labels: {{severity: {alert.severity}, job: firstcome}}",
            "            exp_annotations:",
            f"              summary: '{case.fires * objective.budget * 100:.4g}% {summary}'",
            f"              description: '{description}'",
            f"              runbook_url: '{RUNBOOK}#{name.lower()}'",
        ]
    return "\n".join(lines) + "\n"


def text() -> str:
    """Returns all tests."""
    tests = (
        written(objective, alert, case)
        for objective in OBJECTIVES
        for alert in ALERTS
        for case in alert.cases
    )
    return HEAD + "".join(tests)
