"""Checks every expression of dashboards and rules against a Prometheus that has seen a sale."""

import pathlib
import re
import urllib.request

import yaml
from source import HERE, Source, dashboards, fill_in, metric_names

# A panel may have no data only if its description says so.
MAY_BE_EMPTY = "Nothing is shown"

# The section of README.md that lists the metrics that no panel and no rule uses.
AD_HOC = re.compile(r"## Metrics for ad-hoc use\n(.*?)(?=\n## |\Z)", re.DOTALL)


def has_data(series) -> bool:
    """Returns true if at least one value is a number."""
    return any(value == value for _, _, values in series for value in values)


def check_panels(source: Source, names: set[str], begin: float, end: float) -> tuple[list[str], set[str]]:
    """Runs the expressions of all panels. Returns what is wrong, and the metrics that panels use."""
    wrong, used = [], set()
    for board in dashboards().values():
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                where = f"{board['title']}: {panel['title']}"
                expr = fill_in(target["expr"], end - begin)
                used |= metric_names(expr)
                may_be_empty = MAY_BE_EMPTY in panel["description"]
                if not may_be_empty:
                    wrong += [f"{where}: {name} does not exist" for name in metric_names(expr) - names]
                try:
                    found = has_data(source.range(expr, begin, end, 1))
                except ValueError as error:
                    wrong.append(f"{where}: {error}: {expr}")
                    continue
                if not found and not may_be_empty:
                    wrong.append(f"{where}: no data: {expr}")
    return wrong, used


def check_variables(source: Source) -> list[str]:
    """Checks that each variable has values."""
    wrong = []
    for board in dashboards().values():
        for variable in board["templating"]["list"]:
            if variable["type"] != "query":
                continue
            text = fill_in(variable["query"]["query"], 1)
            metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", text).groups()
            if not source.get(f"label/{label}/values", **{"match[]": metric}):
                wrong.append(f"{board['title']}: variable {variable['name']} has no values")
    return wrong


def rules():
    """Returns all rules."""
    for path in sorted((HERE / "prometheus" / "rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def check_rules(source: Source, names: set[str], begin: float, end: float) -> tuple[list[str], set[str]]:
    """Runs the expressions of all rules. Recorded series must have data."""
    wrong, used = [], set()
    for rule in rules():
        where = rule.get("record") or rule["alert"]
        used |= metric_names(rule["expr"])
        wrong += [
            f"{where}: {name} does not exist"
            for name in metric_names(rule["expr"]) - names
            # Without TLS there is no certificate.
            if name != "coupon_tls_certificate_expiry_timestamp_seconds"
        ]
        try:
            found = has_data(source.range(rule["expr"], begin, end, 1))
        except ValueError as error:
            wrong.append(f"{where}: {error}")
            continue
        if "record" in rule and not found:
            wrong.append(f"{where}: no data")
    for group in source.get("rules")["groups"]:
        wrong += [f"{rule['name']}: {rule['lastError']}" for rule in group["rules"] if rule.get("lastError")]
    return wrong, used


def exported(node: str) -> dict[str, str]:
    """Returns the metrics that a node exports, with their help."""
    with urllib.request.urlopen(f"{node}/metrics", timeout=20) as response:
        text = response.read().decode()
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE))
    return {name: helps.get(name, "") for name in re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE)}


def check_use(metrics: dict[str, str], used: set[str]) -> list[str]:
    """Checks that each exported metric has a help text, and is either used or listed for ad-hoc use."""
    parts = ["", "_bucket", "_sum", "_count"]
    in_use = {name for name in metrics if any(name + part in used for part in parts)}
    section = AD_HOC.search((pathlib.Path(HERE) / "README.md").read_text())
    listed = set(re.findall(r"`((?:coupon|process)_\w+)`", section.group(1) if section else ""))
    wrong = [f"{name} has no help" for name, text in metrics.items() if not text]
    wrong += [f"{name} is in no panel and no rule" for name in metrics.keys() - in_use - listed]
    wrong += [f"{name} is listed for ad-hoc use, but is in a panel or a rule" for name in listed & in_use]
    wrong += [f"{name} is listed for ad-hoc use, but does not exist" for name in listed - metrics.keys()]
    return wrong


def check(source: Source, nodes: list[str], begin: float, end: float) -> list[str]:
    """Checks everything. Returns what is wrong."""
    names = source.names()
    of_panels, by_panels = check_panels(source, names, begin, end)
    of_rules, by_rules = check_rules(source, names, begin, end)
    metrics = {name: text for node in nodes for name, text in exported(node).items()}
    return of_panels + of_rules + check_variables(source) + check_use(metrics, by_panels | by_rules)
