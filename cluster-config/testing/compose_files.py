#!/usr/bin/env python3
"""Checks what the files of Compose promise of every container.

Reads `docker compose config --format json` from the standard input, and cluster.toml from the directory in
which it is run.

- Only the balancer, Prometheus and Grafana publish ports, on loopback.
- What runs for long restarts unless it is stopped, and has a health check and bounds of its log, its memory and
  its processors.
- Nodes are given longer to stop than they may take for it, and run without rights and on a file system that
  cannot be written.
- Passwords are in files. What is mounted exists: the engine would make an empty directory in its place.
- Images have a version.
"""

import json
import pathlib
import sys
import tomllib

PUBLISHED = {"balancer", "prometheus", "grafana"}

# They do their work and exit.
ONCE = {"secrets", "group"}


def seconds(text):
    """Reads a duration as Compose and cluster.toml write it."""
    units = {"h": 3600, "m": 60, "s": 1}
    total, number = 0, ""
    for character in text:
        if character.isdigit():
            number += character
        else:
            total += int(number) * units[character]
            number = ""
    return total


def of_every_service(name, service):
    """Yields what is wrong."""
    for port in service.get("ports", []):
        if name not in PUBLISHED:
            yield f"publishes port {port['published']}"
        if port.get("host_ip") != "127.0.0.1":
            yield f"publishes port {port['published']} on {port.get('host_ip', 'every address')}"
    for key in service.get("environment") or {}:
        if "PASSWORD" in key and not key.endswith("_FILE"):
            yield f"has a password in its environment: {key}"
    for volume in service.get("volumes", []):
        if volume["type"] == "bind" and not pathlib.Path(volume["source"]).exists():
            yield f"mounts {volume['source']}, which does not exist"
        if "/secrets" in volume["source"] and not volume.get("read_only"):
            yield f"may write its secrets in {volume['source']}"
    if ":" not in service["image"] or service["image"].endswith(":latest"):
        yield f"has an image without a version: {service['image']}"
    bounds = service.get("logging", {}).get("options", {})
    if not {"max-size", "max-file"} <= bounds.keys():
        yield "has a log without bounds"


def of_a_server(service):
    """Yields what is wrong with a container that runs for long."""
    if service.get("restart") != "unless-stopped":
        yield "does not restart"
    if "test" not in service.get("healthcheck", {}):
        # The node's check is in its image.
        if "firstcome:" not in service["image"]:
            yield "has no health check"
    limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
    if not {"cpus", "memory"} <= limits.keys():
        yield "has no limits of memory and processors"


def of_a_node(service):
    """Yields what is wrong with a node's container."""
    shutdown = tomllib.loads(pathlib.Path("cluster.toml").read_text())["shutdown"]
    needed = seconds(shutdown["delay"]) + seconds(shutdown["limit"])
    if seconds(service["stop_grace_period"]) <= needed:
        yield f"has {service['stop_grace_period']} to stop, and may take {needed} s"
    if service.get("user", "").startswith("0") or service.get("cap_drop") != ["ALL"] or not service.get("read_only"):
        yield "has rights that it does not need"


def main():
    services = json.load(sys.stdin)["services"]
    wrong, nodes = [], 0
    for name, service in services.items():
        found = list(of_every_service(name, service))
        if name not in ONCE:
            found += of_a_server(service)
        if name.startswith("node-"):
            found += of_a_node(service)
            nodes += 1
        wrong += [f"{name} {what}" for what in found]
    if nodes < 3:
        wrong.append(f"there are {nodes} nodes")
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{len(services)} services, {nodes} of them nodes, are as they should be")


if __name__ == "__main__":
    main()
