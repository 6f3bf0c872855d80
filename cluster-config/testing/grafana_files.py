#!/usr/bin/env python3
"""Checks that Grafana's files are where its container expects them, and that they can be parsed.

Reads `docker compose config --format json` from the standard input. Data sources must name services of the
cluster, and the folders of dashboards must be mounted and hold dashboards with panels.
"""

import json
import pathlib
import sys
import urllib.parse

import yaml


def main():
    services = json.load(sys.stdin)["services"]
    mounts = {volume["target"]: volume["source"] for volume in services["grafana"]["volumes"]}

    def on_the_host(path):
        for target in sorted(mounts, key=len, reverse=True):
            if path == target or path.startswith(target + "/"):
                return pathlib.Path(mounts[target] + path[len(target):])
        sys.exit(f"{path} is not mounted in Grafana's container")

    provisioning = on_the_host("/etc/grafana/provisioning")
    sources, dashboards = 0, 0
    for file in sorted((provisioning / "datasources").glob("*.y*ml")):
        for source in yaml.safe_load(file.read_text())["datasources"]:
            host = urllib.parse.urlparse(source["url"]).hostname
            if host not in services:
                sys.exit(f"{file}: {host} is no service of the cluster")
            sources += 1
    for file in sorted((provisioning / "dashboards").glob("*.y*ml")):
        for provider in yaml.safe_load(file.read_text())["providers"]:
            for dashboard in on_the_host(provider["options"]["path"]).rglob("*.json"):
                if not json.loads(dashboard.read_text())["panels"]:
                    sys.exit(f"{dashboard} has no panels")
                dashboards += 1
    if not sources or not dashboards:
        sys.exit(f"{sources} data sources and {dashboards} dashboards below {provisioning}")
    print(f"Grafana: {sources} data sources, {dashboards} dashboards")


if __name__ == "__main__":
    main()
