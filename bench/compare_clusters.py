#!/usr/bin/env python3
"""Compares clusters of two builds of firstcome under load. Three nodes of each build run at the same time
over one MySQL server, each build with a database of its own, and the two clusters are measured in turn. So a
change of the machine's speed affects both, and the clusters start only once.

Prints a Markdown table of the rates, and of the processor time of the three nodes and of MySQL for a
request. Each ratio is of two figures from the same round; the table has the median of the ratios with minimum
and maximum. The loads: `owner` and `other` (issuing one coupon, with requests at its owner or at another
node), `door` (a sold-out coupon, with requests at another node), `many` (issuing a hundred coupons at all
nodes).

A build is given as the directory with the programs firstcome and firstcome-bench; the second build's tool
makes the load. MYSQLD names the server's program. With --perf FILE, `perf record` profiles the nodes, and
writes to FILE.LOAD.first and FILE.LOAD.second.

    MYSQLD=… python3 bench/compare_clusters.py former/target/dist target/dist --rounds 5
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

NODES = 3
TOKEN = "token-of-the-comparison"
LIMIT = 60
TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
LOADS = ["owner", "other", "door", "many"]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def eventually(what, holds):
    """Polls until `holds()` returns something true, and returns that."""
    begun = time.monotonic()
    while time.monotonic() - begun < LIMIT:
        try:
            if result := holds():
                return result
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit(f"not within {LIMIT} s: {what}")


def call(method, url, body=None, headers=()):
    """Returns the body of the response, or None if the service refused."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | dict(headers)
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.read().decode()
    except urllib.error.HTTPError:
        return None


def as_admin(method, url, body=None):
    return json.loads(call(method, url, body, {"Authorization": f"Bearer {TOKEN}"}) or "null")


def issue(url, coupon, user):
    call("POST", f"{url}/v1/coupons/{coupon}/issuances", headers={"X-User-Id": user})


def metric(url, name):
    lines = call("GET", f"{url}/metrics").splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)


def processor_us(processes):
    """Returns the processor time, user and system, that the processes have taken."""
    texts = (Path(f"/proc/{process.pid}/stat").read_text() for process in processes)
    fields = (text.rsplit(")", 1)[1].split() for text in texts)
    return sum(int(field[11]) + int(field[12]) for field in fields) * TICK_US


class Server:
    """A MySQL server with a database for each build."""

    def __init__(self, folder, processes):
        program = os.environ.get("MYSQLD", "mysqld")
        common = [program, "--no-defaults", f"--datadir={folder}/mysql", "--user=root"]
        log = open(folder / "mysql.log", "w")
        subprocess.run([*common, "--initialize-insecure"], check=True, stdout=log, stderr=log)
        setup = folder / "setup.sql"
        setup.write_text(
            "CREATE DATABASE first; CREATE DATABASE second; CREATE USER u@'%' IDENTIFIED BY 'p';"
            "GRANT ALL ON *.* TO u@'%';"
        )
        self.port = free_port()
        self.process = subprocess.Popen(
            [*common, f"--port={self.port}", f"--socket={folder}/socket", f"--init-file={setup}"]
            + ["--mysqlx=OFF", "--bind-address=127.0.0.1"]
            + ["--innodb-buffer-pool-size=1G", "--innodb-redo-log-capacity=1G"],
            stdout=log,
            stderr=log,
        )
        processes.append(self.process)
        address = ("127.0.0.1", self.port)
        eventually("the server listens", lambda: not socket.create_connection(address).close())


class Cluster:
    """Three nodes of one build."""

    def __init__(self, name, build, server, folder, processes):
        self.processes, self.urls = [], []
        for number in range(NODES):
            directory = folder / f"{name}-{number}"
            directory.mkdir()
            http = f"127.0.0.1:{free_port()}"
            keys = {
                "data_dir": directory / "data",
                "node.id": f"node-{number}",
                "http.listen": http,
                "store.url": f"mysql://u:p@127.0.0.1:{server.port}/{name}",
                "cluster.listen": f"127.0.0.1:{free_port()}",
                "cluster.cookie": "a-cookie-of-no-importance",
                "auth.admin_token": TOKEN,
                "log.level": "error",
            }
            arguments = [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]
            log = open(directory / "log", "w")
            self.processes.append(
                subprocess.Popen([build / "firstcome", *arguments], cwd=directory, stdout=log, stderr=log)
            )
            processes.append(self.processes[-1])
            self.urls.append(f"http://{http}")

    def settle(self):
        """Waits until the nodes share the shards evenly, twice in a row, further apart than a shard moves."""
        share = lambda: eventually("the nodes share the shards", self.owners)
        while (owners := share()) != (time.sleep(3), share())[1]:
            pass
        return owners

    def owners(self):
        if not all(call("GET", f"{url}/readyz") for url in self.urls):
            return None
        shards = as_admin("GET", f"{self.urls[0]}/v1/cluster")["shards"]
        owners = [shard["owner"] for shard in shards]
        shares = [owners.count(f"node-{number}") for number in range(NODES)]
        return owners if min(shares) > len(owners) / NODES / 2 and sum(shares) == len(owners) else None

    def coupon(self, quantity=None):
        body = {"title": "Coupon", "total_quantity": quantity}
        return as_admin("POST", f"{self.urls[0]}/v1/coupons", body)["id"]

    def owner(self, coupon):
        """Returns the index of the node that forwards no request for the coupon."""
        for number, url in enumerate(self.urls):
            before = metric(url, "coupon_forwarded_total")
            issue(url, coupon, f"probe-{number}")
            if metric(url, "coupon_forwarded_total") == before:
                return number
        sys.exit("all nodes forward requests")

    def target(self, load):
        """Returns the URLs and the coupons of a load."""
        if load == "many":
            return self.urls, [self.coupon() for _ in range(100)]
        coupon = self.coupon(1 if load == "door" else None)
        owner = self.owner(coupon)
        url = self.urls[owner if load == "owner" else (owner + 1) % NODES]
        if load == "door":
            eventually("the door answers", lambda: self.is_at_door(url, coupon))
        return [url], [coupon]

    def is_at_door(self, url, coupon):
        before = metric(url, "coupon_door_answers_total")
        issue(url, coupon, "probe")
        return metric(url, "coupon_door_answers_total") > before


def measure(options, load, name, cluster, server, number):
    urls, coupons = cluster.target(load)
    command = [options.second / "firstcome-bench", "load", "--json", "--admin-token", TOKEN]
    command += ["--ceiling", "0s", "--warm-up", "0s"]
    command += ["--connections", str(options.connections), "--duration", options.duration]
    command += ["--name", f"run-{number}", "--slo-errors", "1"]
    command += [part for url in urls for part in ("--url", url)]
    command += [part for coupon in coupons for part in ("--coupon", str(coupon))]
    profile = None
    if options.perf:
        pids = ",".join(str(process.pid) for process in cluster.processes)
        record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "999", "-g", "-p", pids]
        profile = subprocess.Popen([*record, "-o", f"{options.perf}.{load}.{name}"])
    nodes, database = processor_us(cluster.processes), processor_us([server.process])
    output = json.loads(subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
    nodes, database = processor_us(cluster.processes) - nodes, processor_us([server.process]) - database
    if profile:
        profile.send_signal(signal.SIGINT)
        profile.wait()
    outcomes = output["outcomes"]
    requests = sum(outcome["count"] for outcome in outcomes)
    main = max(outcomes, key=lambda outcome: outcome["count"])
    if main["outcome"] != ("SOLD_OUT" if load == "door" else "issued") or main["count"] < 0.95 * requests:
        sys.exit(f"{load}: {main['count']} of {requests} requests were answered {main['outcome']}")
    return {
        "answers per second": main["per_second"],
        "nodes, µs a request": nodes / requests,
        "MySQL, µs a request": database / requests,
    }


def spread(values, form):
    least, median, most = (format(f(values), form) for f in (min, statistics.median, max))
    return f"{median} ({least}–{most})"


def compare(options, folder, processes):
    server = Server(folder, processes)
    builds = {"first": options.first, "second": options.second}
    clusters = {name: Cluster(name, build, server, folder, processes) for name, build in builds.items()}
    for cluster in clusters.values():
        cluster.settle()
    measured, number = {}, 0
    for turn in range(options.rounds):
        for load in options.loads.split(","):
            for name in sorted(clusters, reverse=turn % 2 == 1):
                number += 1
                figures = measure(options, load, name, clusters[name], server, number)
                for figure, value in figures.items():
                    measured.setdefault((load, figure), {}).setdefault(name, []).append(value)
    print("| load | figure | first | second | second / first |\n|---|---|---|---|---|")
    for (load, figure), values in measured.items():
        ratios = [second / first for first, second in zip(values["first"], values["second"])]
        form = ".0f" if "second" in figure else ".1f"
        cells = [spread(values["first"], form), spread(values["second"], form), spread(ratios, ".2f")]
        print("|", " | ".join([load, figure, *cells]), "|")


def main():
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("first", type=Path, help="directory with the programs of the first build")
    parser.add_argument("second", type=Path, help="directory with the programs of the second build")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, each of which measures both builds")
    parser.add_argument("--loads", default=",".join(LOADS), help="loads, separated by commas")
    parser.add_argument("--duration", default="1500ms", help="how long each load lasts")
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--perf", help="prefix of the names of the files with profiles")
    options = parser.parse_args()
    options.first, options.second = options.first.resolve(), options.second.resolve()
    processes = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            compare(options, Path(folder), processes)
        finally:
            for process in reversed(processes):
                process.terminate()
            for process in processes:
                process.wait()


main()
