"""Hooks of schemathesis.

No empty array is sent as a body. It counts as no body, as the document says in words. If the schema said so too,
generated clients could not leave the body out.

Requests for issuances ask for some that exist. Random ids are of none, and so no step of a checkout would ever be
taken. What is to be released is reserved before, and what is to be refunded is redeemed before. HOST and ADMIN_TOKEN
name the node on which the issuances are made. When the run ends, SEEN, if it is set, gets a line for each operation
on an issuance that was answered 200.
"""

import atexit
import json
import os
import re
import urllib.error
import urllib.request
import zlib

import schemathesis

# Few issuances and orders, so that steps follow each other. A revoked issuance takes no step any more, and others are
# released and refunded only, so that no other order has them.
TO_USE = 3
OTHERS = {"/revoke": range(3, 5), "/release": range(5, 6), "/refund": range(6, 7)}
BEFORE = {"/release": "reserve", "/refund": "redeem"}
ORDERS = 2
USES = re.compile(r"/v1/issuances/\{id\}(/.*)?$")
ISSUANCE = re.compile(r"[1-9][0-9]{0,15}-[1-9][0-9]{0,15}")
ORDER = re.compile(r"[!-~]{1,64}")

issuances = []
seen = set()


def admin():
    return {"Authorization": f"Bearer {os.environ['ADMIN_TOKEN']}", "Content-Type": "application/json"}


def post(path, headers, body=b""):
    request = urllib.request.Request(os.environ["HOST"] + path, data=body, headers=headers, method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def made():
    """Returns the ids of issuances, which the first call makes. Those in the range of TO_USE are for any step."""
    if not issuances:
        coupon = {"title": "schemathesis", "total_quantity": None, "discount": {"kind": "rate", "value": 15}}
        coupon = post("/v1/coupons", admin(), json.dumps(coupon).encode())
        path = f"/v1/coupons/{coupon['id']}/issuances"
        count = max(others.stop for others in OTHERS.values())
        issuances.extend(post(path, {"X-User-Id": f"schemathesis-{n}"})["id"] for n in range(count))
    return issuances


def chosen(text, among):
    """Returns one of these, always the same one for a text."""
    return among[zlib.crc32(text.encode()) % len(among)]


@schemathesis.hook
def filter_body(context, body):
    """Keeps every body but the empty array."""
    return body != []


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Puts an issuance that exists in the place of three in four that could."""
    uses = USES.match(context.operation.path)
    wanted = (path_parameters or {}).get("id")
    # What is no id stays: it must be refused.
    if uses and isinstance(wanted, str) and ISSUANCE.fullmatch(wanted) and zlib.crc32(wanted.encode()[::-1]) % 4:
        among = OTHERS.get(uses[1], range(TO_USE))
        return {**path_parameters, "id": chosen(wanted, made()[among.start : among.stop])}
    return path_parameters


@schemathesis.hook
def map_body(context, body):
    """Puts one of few orders in the place of any, and in that of one that gives back, the one that has the issuance."""
    order = body.get("order_id") if isinstance(body, dict) else None
    if isinstance(order, str) and ORDER.fullmatch(order):
        uses = USES.match(context.operation.path)
        count = 1 if uses and uses[1] in BEFORE else ORDERS
        return {**body, "order_id": chosen(order, [f"order-{n}" for n in range(count)])}
    return body


@schemathesis.hook
def before_call(context, case, kwargs):
    """Takes the step before a release or a refund."""
    uses = USES.match(case.operation.path)
    wanted = (case.path_parameters or {}).get("id")
    if uses and uses[1] in BEFORE and wanted in issuances[TO_USE:]:
        body = json.dumps({"order_id": "order-0", "order_amount": 10_000}).encode()
        try:
            post(f"/v1/issuances/{wanted}/{BEFORE[uses[1]]}", admin(), body)
        except urllib.error.HTTPError as refusal:
            # A sequence of requests, which follow links of the document, may have used the issuance.
            if refusal.code != 409:
                raise


@schemathesis.hook
def after_call(context, case, response):
    """Notes which steps were taken."""
    if USES.match(case.operation.path) and response.status_code == 200:
        seen.add(f"{case.operation.method.upper()} {case.operation.path}")


@atexit.register
def tell():
    if "SEEN" in os.environ:
        with open(os.environ["SEEN"], "w", encoding="utf-8") as file:
            file.writelines(f"{step}\n" for step in sorted(seen))
