"""A burst, driven by Locust: users drawn from 1 to 10,000,000 request one coupon of 500, without pauses.

    ADMIN_TOKEN=... locust -f bench/locust/locustfile.py --headless --host http://127.0.0.1:8080 \
        --users 200 --spawn-rate 200 --run-time 30s

Refusals (409) are outcomes, counted by their code and printed at the end. Requests without an answer or with
any other status are failures. When the load is over, the issuances of the coupon are read back. There
must be exactly 500 if there were enough requests, and at least as many as were answered with 201. Sequences
must have no gap, and no user may have two issuances. Any difference makes Locust exit with 1.
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
    """Returns the header of an administrator, to make coupons and to list issuances."""
    return {"Authorization": f"Bearer {os.environ['ADMIN_TOKEN']}"}


@events.test_start.add_listener
def make_coupon(environment, **_):
    """Makes one coupon for the whole test. Workers get its id from COUPON_ID."""
    if "COUPON_ID" in os.environ:
        coupon["id"] = int(os.environ["COUPON_ID"])
        return
    body = {"title": "Locust burst", "total_quantity": TOTAL}
    made = requests.post(f"{environment.host}/v1/coupons", json=body, headers=administrator(), timeout=TIMEOUT_SECONDS)
    made.raise_for_status()
    coupon["id"] = made.json()["id"]


class Crowd(FastHttpUser):
    """Users that send requests without pauses."""

    wait_time = constant(0)

    @task
    def issue(self):
        """Requests the coupon for a random user."""
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
    """Returns all issuances of the coupon, by sequence."""
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
    """Reads back what is stored and compares it with the answers."""
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
        wrong.append("a user has two issuances")
    if len(stored) > TOTAL or (asked >= 2 * TOTAL and len(stored) != TOTAL):
        wrong.append(f"{len(stored)} of {TOTAL} are stored after {asked} requests")
    # An issuance may be stored and not counted if the end of the run cut its request off.
    if "COUPON_ID" not in os.environ and outcomes["ISSUED"] > len(stored):
        wrong.append(f"{outcomes['ISSUED']} were answered with 201, {len(stored)} are stored")
    print(f"outcomes: {dict(outcomes)}; stored: {len(stored)} of {TOTAL}", file=sys.stderr)
    for finding in wrong:
        print(f"WRONG: {finding}", file=sys.stderr)
    if wrong:
        environment.process_exit_code = 1
