"""Reads from Prometheus by its HTTP API, and fills in the variables in expressions of dashboards."""

import json
import math
import pathlib
import re
import time
import urllib.error
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).parent.parent
LIMIT_SECONDS = 20


class Source:
    """A Prometheus server."""

    def __init__(self, url: str):
        self.url = url

    def get(self, path: str, **parameters):
        """Returns the data of a call; raises with Prometheus' own message if it fails."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters, doseq=True)}"
        try:
            with urllib.request.urlopen(url, timeout=LIMIT_SECONDS) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error).get("error", str(error))) from None

    def names(self) -> set[str]:
        """Returns the names of all metrics and recorded series."""
        return set(self.get("label/__name__/values"))

    def instant(self, expr: str, at: float):
        """Returns the series of an expression at one moment: labels and value."""
        result = self.get("query", query=expr, time=at)["result"]
        return [(series["metric"], number(series["value"][1])) for series in result]

    def range(self, expr: str, begin: float, end: float, step: float):
        """Returns the series of an expression: labels, times and values."""
        result = self.get("query_range", query=expr, start=begin, end=end, step=step)["result"]
        return [
            (
                series["metric"],
                [float(moment) for moment, _ in series["values"]],
                [number(value) for _, value in series["values"]],
            )
            for series in result
        ]


def number(text: str) -> float:
    """Reads a value that Prometheus wrote; NaN and infinities are values too."""
    return float(text)


def fill_in(expr: str, seconds: float, rate_interval: str = "15s") -> str:
    """Fills in the variables of a dashboard that shows this many seconds: every node and every coupon."""
    values = {
        "$__rate_interval": rate_interval,
        "$__range": f"{math.ceil(seconds)}s",
        "$job": "firstcome",
        "$instance": ".*",
        "$coupon": ".*",
    }
    for name, value in values.items():
        expr = expr.replace(name, value)
    if "$" in expr:
        raise ValueError(f"an unknown variable in {expr}")
    return expr


def dashboards() -> dict[str, dict]:
    """Returns all dashboards by the name of their file."""
    paths = sorted((HERE / "dashboards").glob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in paths}


def metric_names(expr: str) -> set[str]:
    """Returns the names of the metrics and recorded series in an expression."""
    without_strings = re.sub(r'"[^"]*"', '""', expr)
    without_labels = re.sub(r"\{[^}]*\}", "", without_strings)
    without_groups = re.sub(r"\b(by|on|without|ignoring)\s*\([^)]*\)", "", without_labels)
    is_name = r"(?<![\w:$])((?:coupon|process)_\w+|\w+:\w+:\w+|up|ALERTS)(?![\w:(])"
    return set(re.findall(is_name, without_groups))


def wait_until(what: str, is_true, seconds: float = 60):
    """Waits for a condition, and returns its value."""
    begun = time.monotonic()
    while True:
        value = is_true()
        if value:
            return value
        if time.monotonic() - begun > seconds:
            raise TimeoutError(f"{what} within {seconds} s")
        time.sleep(0.2)
