"""The burst: users drawn from 1 to 10,000,000 ask for one coupon of 500, without thinking; driven by Locust.

    ADMIN_TOKEN=... locust -f bench/locust/locustfile.py --headless --host http://127.0.0.1:8080 \
        --users 200 --spawn-rate 200 --run-time 30s

Refusals are outcomes, counted by their code and printed at the end; failures are answers that are none (5xx, or no answer).
When the load is over, the coupon is read back: exactly 500 if so many were asked for, sequences without a gap, no user twice, and as
many as were told. Any difference makes Locust exit with 1.
"""

import os
import random
import sys
from collections import Counter

import requests
from locust import FastHttpUser, constant, events, task
from locust.runners import WorkerRunner

TOTAL = int(os.environ.get("TOTAL", "500"))
USERS = 10_000_000
TIMEOUT_SECONDS = 10

outcomes = Counter()
coupon = {}


def administrator():
    """The header that makes coupons and lists whoever has one."""
    return {"Authorization": f"Bearer {os.environ['ADMIN_TOKEN']}"}


@events.test_start.add_listener
def make_coupon(environment, **_):
    """One coupon for the whole test; workers are told its id by COUPON_ID."""
    if "COUPON_ID" in os.environ:
        coupon["id"] = int(os.environ["COUPON_ID"])
        return
    body = {"title": "Locust burst", "total_quantity": TOTAL}
    made = requests.post(f"{environment.host}/v1/coupons", json=body, headers=administrator(), timeout=TIMEOUT_SECONDS)
    made.raise_for_status()
    coupon["id"] = made.json()["id"]


class Crowd(FastHttpUser):
    """Everybody at once, nobody thinks."""

    wait_time = constant(0)

    @task
    def issue(self):
        """Asks for the coupon as somebody, by chance."""
        user = f"user-{random.randint(1, USERS)}"
        path = f"/v1/coupons/{coupon['id']}/issuances"
        with self.client.post(path, headers={"X-User-Id": user}, name="issue", catch_response=True) as answer:
            if answer.status_code == 201:
                outcomes["ISSUED"] += 1
            elif answer.status_code == 409:
                outcomes[answer.json()["code"]] += 1
                answer.success()
            else:
                outcomes[f"HTTP_{answer.status_code}"] += 1
                answer.failure(f"no answer: {answer.status_code}")


def stored_issuances(host):
    """All issuances of the coupon, by sequence."""
    stored, after = [], 0
    while True:
        page = requests.get(
            f"{host}/v1/coupons/{coupon['id']}/issuances",
            params={"limit": 200, "after_sequence": after},
            headers=administrator(),
            timeout=TIMEOUT_SECONDS,
        )
        page.raise_for_status()
        items = page.json()["items"]
        stored += items
        if len(items) < 200:
            return stored
        after = items[-1]["sequence"]


@events.quitting.add_listener
def check_store(environment, **_):
    """Reads back what was given and compares it with what was told."""
    if isinstance(environment.runner, WorkerRunner):
        return
    if "id" not in coupon:
        print("WRONG: no coupon was made", file=sys.stderr)
        environment.process_exit_code = 1
        return
    stored = stored_issuances(environment.host)
    asked = sum(outcomes.values())
    wrong = []
    if [issuance["sequence"] for issuance in stored] != list(range(1, len(stored) + 1)):
        wrong.append("sequences have a gap")
    if len({issuance["user_id"] for issuance in stored}) != len(stored):
        wrong.append("a user has two")
    if len(stored) > TOTAL or (asked >= 2 * TOTAL and len(stored) != TOTAL):
        wrong.append(f"{len(stored)} of {TOTAL} are stored after {asked} requests")
    # Requests that were cut off by the end of the run may be stored without having been counted.
    if "COUPON_ID" not in os.environ and outcomes["ISSUED"] > len(stored):
        wrong.append(f"{outcomes['ISSUED']} were told, {len(stored)} are stored")
    print(f"outcomes: {dict(outcomes)}; stored: {len(stored)} of {TOTAL}", file=sys.stderr)
    for finding in wrong:
        print(f"WRONG: {finding}", file=sys.stderr)
    if wrong:
        environment.process_exit_code = 1
