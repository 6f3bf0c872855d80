"""A checkout, driven by Locust: customers win a coupon and use it, without pauses.

    ADMIN_TOKEN=... locust -f bench/locust/checkout.py --headless --host http://127.0.0.1:8080 \
        --users 50 --spawn-rate 50 --run-time 30s

Each customer wins an issuance of a coupon that takes 2,500 off orders from 1,000, reserves it for an order, and
pays, leaves, or pays and is refunded; a second order then tries as well. Answers other than the contract's are
failures, and so is any other discount. When the load is over, what is stored is read back: every answered step
must be in the history of its issuance, in the order of the answers, and no issuance may be redeemed by two orders.
Any difference makes Locust exit with 1, and so does a 99th percentile above P99_MS (2000).
"""

import os
import random
import sys
import uuid
from collections import Counter

import requests
from locust import FastHttpUser, constant, events, task
from locust.runners import WorkerRunner

OFF, MINIMUM = 2_500, 1_000
P99_MS = float(os.environ.get("P99_MS", "2000"))
TIMEOUT_SECONDS = 10
# Histories that are read back, so that this takes a few seconds after a long run too.
READ_BACK_MAX = 2_000

outcomes = Counter()
coupon = {}
# The answered steps of each issuance.
answered = {}


def administrator():
    """Returns the header of an administrator, who may use issuances."""
    return {"Authorization": f"Bearer {os.environ['ADMIN_TOKEN']}"}


@events.test_start.add_listener
def make_coupon(environment, **_):
    """Makes one coupon for the whole test. Workers get its id from COUPON_ID."""
    if "COUPON_ID" in os.environ:
        coupon["id"] = int(os.environ["COUPON_ID"])
        return
    body = {
        "title": "Locust checkout", "total_quantity": None, "min_order_amount": MINIMUM,
        "discount": {"kind": "amount", "value": OFF},
    }
    made = requests.post(f"{environment.host}/v1/coupons", json=body, headers=administrator(), timeout=TIMEOUT_SECONDS)
    made.raise_for_status()
    coupon["id"] = made.json()["id"]


class Customer(FastHttpUser):
    """Customers that come without pauses."""

    wait_time = constant(0)

    @task
    def shop(self):
        """Wins an issuance and uses it."""
        path = f"/v1/coupons/{coupon['id']}/issuances"
        user = {"X-User-Id": f"locust-{uuid.uuid4()}"}
        with self.client.post(path, headers=user, name="issue", catch_response=True) as answer:
            if answer.status_code != 201:
                answer.failure(f"not issued: {answer.status_code}")
                return
            issuance = answer.json()["id"]
        amount, order = random.randint(MINIMUM, 60_000), f"a-{uuid.uuid4()}"
        priced = {"order_id": order, "order_amount": amount}
        other = {"order_id": f"b-{uuid.uuid4()}", "order_amount": amount}
        self.step(issuance, "reserve", {**priced, "order_amount": MINIMUM - 1}, refused="BELOW_MINIMUM")
        self.step(issuance, "reserve", priced, amount)
        self.step(issuance, "redeem", other, refused="RESERVED")
        ending = random.choice(["pays", "leaves", "is refunded"])
        if ending == "leaves":
            self.step(issuance, "release", {"order_id": order}, amount)
        else:
            self.step(issuance, "redeem", {"order_id": order}, amount)
            self.step(issuance, "redeem", other, refused="REDEEMED")
        if ending == "is refunded":
            self.step(issuance, "refund", {"order_id": order}, amount)
        if ending != "pays":
            self.step(issuance, "redeem", other, amount)

    def step(self, issuance, name, body, amount=None, refused=None):
        """Takes a step, which must be done for this amount, or be refused so."""
        path = f"/v1/issuances/{issuance}/{name}"
        with self.client.post(path, json=body, headers=administrator(), name=name, catch_response=True) as answer:
            told = answer.json() if answer.status_code in (200, 409) else {}
            code = "OK" if answer.status_code == 200 else told.get("code", f"HTTP_{answer.status_code}")
            outcomes[f"{name} {code}"] += 1
            if code == "OK":
                answered.setdefault(issuance, []).append((told["use"]["kind"], told["use"]["order_id"]))
            if code != (refused or "OK"):
                answer.failure(f"{name}: {code} in place of {refused or 'OK'}")
            elif refused is None and told["use"]["discount"] != min(OFF, amount):
                answer.failure(f"{name}: takes off {told['use']['discount']} of {amount}")
            else:
                answer.success()


def history(host, issuance):
    """Returns the stored uses of an issuance."""
    page = requests.get(
        f"{host}/v1/issuances/{issuance}/uses", headers=administrator(), timeout=TIMEOUT_SECONDS,
    )
    page.raise_for_status()
    return page.json()["items"]


def wrong_in(uses, steps):
    """Returns what is wrong with the history of an issuance, of which these steps were answered."""
    wrong = []
    stored = [(use["kind"], use["order_id"]) for use in uses]
    # A step may be stored and not answered if the end of the run cut its request off.
    if stored[:len(steps)] != steps or len(stored) > len(steps) + 1:
        wrong.append(f"stored {stored}, answered {steps}")
    holder = None
    for kind, order in stored:
        if holder is not None and order != holder:
            wrong.append(f"{order} has it while {holder} has it")
        holder = order if kind in ("reserved", "redeemed") else None
    return wrong


@events.quitting.add_listener
def check_store(environment, **_):
    """Reads back what is stored and compares it with the answers."""
    if isinstance(environment.runner, WorkerRunner):
        return
    wrong = [] if answered else ["nothing was used"]
    for issuance in random.sample(sorted(answered), min(READ_BACK_MAX, len(answered))):
        found = wrong_in(history(environment.host, issuance), answered[issuance])
        wrong += [f"{issuance}: {text}" for text in found]
    p99 = environment.stats.total.get_response_time_percentile(0.99) or 0
    if p99 > P99_MS:
        wrong.append(f"p99 is {p99} ms, more than {P99_MS} ms")
    print(f"outcomes: {dict(outcomes)}; used: {len(answered)}", file=sys.stderr)
    for finding in wrong[:20]:
        print(f"WRONG: {finding}", file=sys.stderr)
    if wrong:
        environment.process_exit_code = 1
