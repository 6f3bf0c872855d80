#!/usr/bin/env python3
"""Writes dashboards/*.json and the tests of the error budgets' alerts from code/, and the links of alerts to
the runbook.

With --check, it writes nothing: it compares the files with what it would write, reads them with Grafana's
schema, and checks that alerts are tested, that alerts and panels are described, and that their paragraphs are
in the runbook.
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "code"))

import alerts
import burn_rates
import checkout
import cluster
import flash_sale
import published
import service_level
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

import node

DASHBOARDS = {
    "flash-sale": flash_sale,
    "checkout": checkout,
    "cluster": cluster,
    "node": node,
    "service-level": service_level,
}


def text(module) -> str:
    """Returns the JSON of a dashboard."""
    board = module.build().build()
    for number, panel in enumerate(board.panels, start=1):
        panel.id_val = number
    return written(board)


def written(board: Dashboard) -> str:
    """Returns the JSON of a dashboard that was built or read."""
    return json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> int:
    """Writes or compares all dashboards."""
    plugins.register_default_plugins()
    wrong = alerts.check() if "--check" in sys.argv else []
    for name, module in DASHBOARDS.items():
        path = HERE / "dashboards" / f"{name}.json"
        if "--check" not in sys.argv:
            path.write_text(text(module))
        elif not path.exists() or path.read_text() != text(module):
            wrong.append(f"{path} is not what grafana/generate.py writes")
        elif written(Dashboard.from_json(json.loads(path.read_text()))) != path.read_text():
            wrong.append(f"{path} has something that Grafana's schema does not have")
    if "--check" not in sys.argv:
        burn_rates.PATH.write_text(burn_rates.text())
    elif burn_rates.PATH.read_text() != burn_rates.text():
        wrong.append(f"{burn_rates.PATH} is not what grafana/generate.py writes")
    for path in published.linking_files():
        linked = published.linked(path.read_text())
        if "--check" not in sys.argv:
            path.write_text(linked)
        elif path.read_text() != linked:
            wrong.append(f"{path} does not link to what grafana/runbook_url names")
    for line in wrong:
        print(line)
    return min(len(wrong), 1)


if __name__ == "__main__":
    sys.exit(main())
