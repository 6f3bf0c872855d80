"""A sale on a real cluster under a real Prometheus: rising demand, a sold-out coupon, a killed node."""

import contextlib
import json
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from source import HERE, Source, wait_until

NODES = 3


class Cluster:
    """Three nodes and a database server, started by firstcome-bench."""

    def __init__(self, programs: pathlib.Path, http_port: int, link_port: int, log: pathlib.Path):
        command = [programs / "firstcome-bench", "cluster", "--http-port", str(http_port)]
        command += ["--link-port", str(link_port)]
        self.programs, self.log = programs, log
        self.process = subprocess.Popen(command, stdout=log.open("w"), stderr=subprocess.STDOUT)
        self.urls = [f"http://127.0.0.1:{http_port + number}" for number in range(NODES)]
        self.again = self.started_again = None

        def started():
            if self.process.poll() is not None:
                raise RuntimeError(f"the cluster did not start:\n{log.read_text()}")
            return "Ctrl-C stops" in log.read_text()

        try:
            wait_until("the cluster starts", started, 180)
        except Exception:
            self.stop()
            raise
        self.token = re.search(r"admin token is (\w+)", log.read_text()).group(1)

    def coupon(self, body: dict) -> int:
        """Creates a coupon, and returns its id."""
        request = urllib.request.Request(f"{self.urls[0]}/v1/coupons", json.dumps(body).encode())
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=20) as response:
            return json.load(response)["id"]

    def post(self, path: str, body: dict, admin: bool = True) -> tuple[int, dict]:
        """Sends a request, and returns the status and the body of the answer."""
        request = urllib.request.Request(f"{self.urls[0]}{path}", json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        request.add_header(
            *(("Authorization", f"Bearer {self.token}") if admin else ("X-User-Id", "shopper"))
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def check_out(self, coupon: int, orders: int) -> None:
        """Issues a coupon without a limit per user, and uses most of it as a shop would."""
        for order in range(orders):
            status, issued = self.post(f"/v1/coupons/{coupon}/issuances", {}, admin=False)
            if status != 201:
                raise RuntimeError(f"{status} {issued}")
            path, body = f"/v1/issuances/{issued['id']}", {"order_id": f"order-{order}"}
            priced = {**body, "order_amount": 10_000}
            # One in four is paid at once; others are held first, and some are given back, refunded or revoked.
            steps = [("redeem", priced)] if order % 4 == 0 else [("reserve", priced), ("reserve", priced)]
            steps += {
                1: [("redeem", body), ("refund", body)],
                2: [("release", body)],
                3: [("redeem", body)],
            }.get(order % 4, [])
            if order % 8 == 3:
                steps += [("revoke", {"reason": "a test"})]
            # Another order wants it too: refused, if it is held or paid with.
            steps += [("reserve", {**priced, "order_id": "another"})]
            for step, given in steps:
                self.post(f"{path}/{step}", given)

    def read(self, coupon: int) -> None:
        """Reads a coupon from each node."""
        for url in self.urls:
            with urllib.request.urlopen(f"{url}/v1/coupons/{coupon}", timeout=20) as response:
                response.read()

    def load(self, *arguments, urls=None) -> subprocess.Popen:
        """Starts firstcome-bench, which requests coupons."""
        command = [self.programs / "firstcome-bench", "load", "--admin-token", self.token, "--ceiling", "0s"]
        for url in urls or self.urls:
            command += ["--url", url]
        return subprocess.Popen([*command, *map(str, arguments)], stdout=subprocess.DEVNULL)

    def kill_last(self) -> None:
        """Kills the last node without warning, as if its machine failed."""
        pids = re.findall(r"process (\d+)", self.log.read_text())
        subprocess.run(["kill", "-KILL", pids[NODES - 1]], check=True)
        printed = wait_until(
            "the command that starts it again",
            lambda: re.search(r"to start it again: (.+)", self.log.read_text()),
        )
        self.again = printed.group(1)

    def start_last(self) -> None:
        """Starts the killed node again."""
        log = (self.log.parent / "again.log").open("w")
        self.started_again = subprocess.Popen(
            ["sh", "-c", self.again.replace("&& ", "&& exec ")], stdout=log, stderr=log
        )

    def stop(self) -> None:
        """Stops all nodes and the server."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(90)


def prometheus(folder: pathlib.Path, urls: list[str], port: int) -> tuple[subprocess.Popen, Source]:
    """Starts a Prometheus that scrapes these nodes every second, with the rules of this repository."""
    shutil.copytree(HERE / "prometheus" / "rules", folder / "rules")
    targets = [url.removeprefix("http://") for url in urls]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules/*.yml"],
        "scrape_configs": [
            # Names are easier to read than ports.
            {
                "job_name": "firstcome",
                "static_configs": [
                    {"targets": [target], "labels": {"instance": f"node-{number}"}}
                    for number, target in enumerate(targets, start=1)
                ],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    return subprocess.Popen(command), Source(f"http://127.0.0.1:{port}")


def scrapes(source: Source, nodes: int) -> bool:
    """Returns true if Prometheus reaches this many nodes."""
    try:
        return len(source.instant("up == 1", time.time())) == nodes
    except (OSError, ValueError):
        # A server that starts answers with a text that is not JSON.
        return False


def sell(cluster: Cluster, seconds: float) -> None:
    """Runs the sale for about this long. Some of its parts overlap."""
    part = seconds / 6
    first = cluster.coupon({"title": "Espresso machine", "total_quantity": int(900 * part)})
    second = cluster.coupon({"title": "Concert", "total_quantity": int(2_500 * part)})
    third = cluster.coupon({"title": "Breakfast", "total_quantity": None})
    # Some clients read, and some request a coupon that they have already.
    steady = cluster.load(
        "--coupon", second, "--coupon", third, "--rate", 250, "-d", f"{5 * part}s", "--repeats", 0.1
    )
    fourth = cluster.coupon(
        {
            "title": "Voucher",
            "total_quantity": None,
            "per_user_limit": None,
            "discount": {"kind": "rate", "value": 15},
        }
    )
    for _ in range(5):
        cluster.read(second)
        cluster.check_out(fourth, 16)
        time.sleep(part / 5)
    # Noon: many more clients request the first coupon, until it is sold out and after that.
    noon = cluster.load("--coupon", first, "--rate", 800, "-d", f"{2 * part}s", "--repeats", 0.1)
    noon.wait(20 * part + 60)
    # A machine fails. Clients of the other two nodes go on.
    rest = cluster.load("--coupon", second, "--rate", 300, "-d", f"{part}s", urls=cluster.urls[:2])
    time.sleep(part / 3)
    cluster.kill_last()
    rest.wait(20 * part + 60)
    cluster.start_last()
    wait_until("the node is ready again", lambda: is_ready(cluster.urls[-1]), 60)
    steady.wait(20 * part + 60)


def is_ready(url: str) -> bool:
    """Returns true if a node is ready."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


@contextlib.contextmanager
def sale(programs: pathlib.Path, seconds: float, port: int):
    """Runs a sale. Yields the Prometheus that watched it, the nodes, and when the sale began and ended."""
    with tempfile.TemporaryDirectory(prefix="firstcome-sale-") as folder:
        folder = pathlib.Path(folder)
        cluster = Cluster(programs, port, port + 10, folder / "cluster.log")
        server = None
        try:
            server, source = prometheus(folder, cluster.urls, port + 20)
            wait_until("Prometheus scrapes all nodes", lambda: scrapes(source, NODES), 180)
            begin = time.time()
            sell(cluster, seconds)
            # The last rates need a few more scrapes.
            time.sleep(5)
            yield source, cluster.urls, begin, time.time()
        finally:
            for process in (cluster.started_again, server):
                if process:
                    process.terminate()
                    process.wait(60)
            cluster.stop()
