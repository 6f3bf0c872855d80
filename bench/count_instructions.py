#!/usr/bin/env python3
"""Counts the instructions that a node executes for a request, with valgrind's callgrind. Unlike a time, this
number does not depend on other work of the machine.

For each build, a node starts under callgrind over an empty SQLite database, and gets a number of requests in
a first run and twice that number in a second. The difference between both counts, divided by the number, has
neither start nor stop in it. What the node does by the clock is in it, so beats are rare, and the database is in
memory, where no commit waits for a disk. By default requests follow each other, so each batch has one row.

    python3 bench/count_instructions.py former/target/release target/release --repeats 5

A build is given as the directory with the program firstcome. The last lines are a Markdown table.
"""

import argparse
import http.client
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOKEN = "0123456789abcdef0123456789abcdef"
LIMIT_SECONDS = 600
# The status of the answer, the quantity of the coupon, the requests of the first run, and the time between two
# beats. A door may use what it knows for two seconds after a beat.
ROUTES = {"issued": (201, None, 10_000, "60s"), "sold out": (409, 1, 50_000, "1s")}


class Node:
    """A node under callgrind."""

    def __init__(self, program, folder, beat, arguments):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/counts"]
        # All threads run on one processor in any case. On one, the runtime has one worker.
        command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), *command, program]
        command += [f"--listen=127.0.0.1:{self.port}", "--data-dir", folder / "data"]
        settings = [f"auth.admin_token={TOKEN}", f"cluster.lease={arguments.lease}"]
        settings += [f"cluster.beat={beat}", "http.deadline=300s", "http.change_deadline=300s"]
        settings += ["http.header_timeout=300s", "http.idle_timeout=300s", *arguments.set]
        for setting in settings:
            command += ["--set", setting]
        self.process = subprocess.Popen(
            command, stdout=(folder / "log").open("w"), stderr=subprocess.STDOUT, env=environment()
        )

    def wait_until_ready(self):
        begun = time.monotonic()
        while time.monotonic() - begun < LIMIT_SECONDS:
            if self.process.poll() is not None:
                break
            try:
                if self.ask("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.5)
        sys.exit(f"the node is not ready:\n{(self.folder / 'log').read_text()}")

    def ask(self, method, path, body=None, headers=()):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_SECONDS)
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", **dict(headers)}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        response = connection.getresponse()
        return response.status, json.load(response)

    def door_answers(self):
        """Returns how many requests the door has answered."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_SECONDS)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        return int(re.search(r"^coupon_door_answers_total (\d+)", text, re.MULTILINE).group(1))

    def stop(self):
        """Stops the node, and returns the instructions that it executed."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(LIMIT_SECONDS)
        text = (self.folder / "counts").read_text()
        return int(re.search(r"^(?:summary|totals): (\d+)", text, re.MULTILINE).group(1))


def environment():
    """Returns the environment without settings of a node."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FIRSTCOME")}


def receive(stream):
    """Reads one response, and returns its status."""
    head = b""
    while b"\r\n\r\n" not in head:
        part = stream.recv(65536)
        if not part:
            sys.exit("the node closed a connection")
        head += part
    head, body = head.split(b"\r\n\r\n", 1)
    length = int(re.search(rb"(?i)\r\ncontent-length: *(\d+)", head).group(1))
    while len(body) < length:
        body += stream.recv(65536)
    return int(head[9:12])


def send(node, coupon, first, requests, connections, expected):
    """Sends requests in rounds of one for each connection. Every answer must have the expected status."""
    streams = [socket.create_connection(("127.0.0.1", node.port), LIMIT_SECONDS) for _ in range(connections)]
    for stream in streams:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for begin in range(0, requests, connections):
        for place, stream in enumerate(streams):
            number = first + begin + place
            stream.sendall(
                f"POST /v1/coupons/{coupon}/issuances HTTP/1.1\r\nHost: firstcome\r\nX-User-Id: user-{number:09}\r\n"
                f"Idempotency-Key: key-{number:09}\r\nContent-Length: 0\r\n\r\n".encode()
            )
        for stream in streams:
            status = receive(stream)
            if status != expected:
                sys.exit(f"{status} in place of {expected}")
    for stream in streams:
        stream.close()


def counted(build, route, requests, arguments):
    """Returns the instructions of one run with this many requests."""
    expected, quantity, _, beat = ROUTES[route]
    with tempfile.TemporaryDirectory(prefix="firstcome-count-", dir=arguments.folder) as folder:
        node = Node(build / "firstcome", Path(folder), beat, arguments)
        node.wait_until_ready()
        status, coupon = node.ask("POST", "/v1/coupons", {"title": "counted", "total_quantity": quantity})
        if status != 201:
            sys.exit(f"{status} {coupon}")
        # The first requests load the owner, and sell the only coupon.
        send(node, coupon["id"], 0, 1, 1, 201)
        send(node, coupon["id"], 1, 200, arguments.connections, expected)
        send(node, coupon["id"], 1000, requests, arguments.connections, expected)
        by_door = node.door_answers()
        if quantity is not None and by_door < 0.95 * requests:
            sys.exit(f"only {by_door} of {requests} requests were answered by the door")
        return node.stop()


def a_request(build, route, arguments):
    """Returns the instructions of one request."""
    requests = arguments.requests or ROUTES[route][2]
    fewer, more = (counted(build, route, times * requests, arguments) for times in (1, 2))
    return (more - fewer) / requests


def shown(values, form=",.0f"):
    return f"{statistics.median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("builds", type=Path, nargs="+", help="directories with the program firstcome")
    parser.add_argument("--requests", type=int, help="requests of the first run")
    parser.add_argument("--connections", type=int, default=1, help="requests at a time")
    parser.add_argument("--folder", type=Path, default="/dev/shm", help="where databases are made")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--routes", nargs="+", choices=ROUTES, default=list(ROUTES))
    parser.add_argument("--lease", default="600s")
    parser.add_argument("--set", action="append", default=[], help="a setting of the nodes, as key=value")
    arguments = parser.parse_args()
    print("| answer | " + " | ".join(str(build) for build in arguments.builds) + " | of the first |")
    print("|---|" + "---|" * (len(arguments.builds) + 1))
    for route in arguments.routes:
        series = [[] for _ in arguments.builds]
        for repeat in range(arguments.repeats):
            for build, values in zip(arguments.builds, series):
                values.append(a_request(build.resolve(), route, arguments))
                print(
                    f"{route}, repeat {repeat + 1}, {build}: {values[-1]:,.0f}", file=sys.stderr, flush=True
                )
        first = statistics.median(series[0])
        ratios = ", ".join(f"{statistics.median(values) / first:.4f}" for values in series[1:])
        print(f"| {route} | " + " | ".join(map(shown, series)) + f" | {ratios} |", flush=True)


main()
