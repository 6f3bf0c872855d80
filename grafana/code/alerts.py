"""Checks that each alert has its texts, both kinds of tests (it fires, it does not), and a runbook entry."""

import pathlib
import re

import yaml
from source import HERE, dashboards

SEVERITIES = {"critical", "warning", "info"}


def tests() -> dict[str, set[bool]]:
    """Returns for each alert what its tests expect: True that it fires, False that it does not."""
    found: dict[str, set[bool]] = {}
    for path in sorted((HERE / "prometheus" / "tests").glob("*.yml")):
        for test in yaml.safe_load(path.read_text())["tests"]:
            for expected in test["alert_rule_test"]:
                found.setdefault(expected["alertname"], set()).add(bool(expected["exp_alerts"]))
    return found


def routing(path: pathlib.Path) -> tuple:
    """Returns how a configuration of Alertmanager groups and silences alerts, whoever receives them."""
    read = yaml.safe_load(path.read_text())
    route = {key: value for key, value in read["route"].items() if key not in ("receiver", "routes")}
    return route, read["inhibit_rules"]


def check_routing() -> list[str]:
    """Compares the configuration to fill in with that of the cluster in containers."""
    examples = HERE / "prometheus" / "alertmanager.yml"
    cluster = HERE.parent / "cluster-config" / "alertmanager" / "alertmanager.yml"
    alerts = yaml.safe_load((HERE / "prometheus" / "rules" / "alerts.yml").read_text())
    names = {rule["alert"] for group in alerts["groups"] for rule in group["rules"]}
    wrong = []
    if routing(examples) != routing(cluster):
        wrong.append(f"{cluster} groups or silences alerts other than {examples}")
    for rule in routing(examples)[1]:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            name = matcher.removeprefix("alertname = ")
            if name not in names:
                wrong.append(f"{examples}: there is no alert {name}")
    return wrong


def check() -> list[str]:
    """Returns what is wrong."""
    runbook = (HERE.parent / "docs" / "runbook.md").read_text()
    anchors = {heading.lower() for heading in re.findall(r"^## (\w+)$", runbook, re.MULTILINE)}
    alerts = yaml.safe_load((HERE / "prometheus" / "rules" / "alerts.yml").read_text())
    tested, wrong = tests(), check_routing()
    for rule in (rule for group in alerts["groups"] for rule in group["rules"]):
        name, annotations = rule["alert"], rule["annotations"]
        if rule["labels"].get("severity") not in SEVERITIES:
            wrong.append(f"{name}: no severity")
        wrong += [f"{name}: no {key}" for key in ("summary", "description") if not annotations.get(key)]
        if not annotations.get("runbook_url", "").endswith(f"#{name.lower()}") or name.lower() not in anchors:
            wrong.append(f"{name}: not in docs/runbook.md, or no link to its paragraph")
        if tested.get(name) != {True, False}:
            wrong.append(f"{name}: not tested firing and not firing")
    for board in dashboards().values():
        for panel in board["panels"]:
            for link in panel.get("links", []):
                _, _, anchor = link["url"].partition("#")
                if anchor and anchor not in anchors:
                    wrong.append(f"{board['title']}: {panel['title']}: no {anchor} in docs/runbook.md")
            if panel["type"] != "row" and not panel.get("description"):
                wrong.append(f"{board['title']}: {panel['title']}: no description")
            may_be_empty = "Nothing is shown" in panel.get("description", "")
            if may_be_empty and not panel["fieldConfig"]["defaults"].get("noValue"):
                wrong.append(f"{board['title']}: {panel['title']}: no text for when it is empty")
    return wrong
