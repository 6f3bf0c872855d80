"""Hooks of schemathesis.

No empty array is sent as a body. It counts as no body, as the document says in words. If the schema said so too,
generated clients could not leave the body out.

Requests for issuances ask for some that exist. Random ids are of none, and so no step of a checkout would ever be
taken. HOST and ADMIN_TOKEN name the node on which the issuances are made. When the run ends, SEEN, if it is set,
gets a line for each operation on an issuance that was answered 200.
"""

import atexit
import json
import os
import re
import urllib.request
import zlib

import schemathesis

# Few issuances and orders, so that steps follow each other. A revoked issuance takes no step any more.
TO_USE, TO_REVOKE = 3, 2
ORDERS = 2
USES = re.compile(r"/v1/issuances/\{id\}(/.*)?$")
ISSUANCE = re.compile(r"[1-9][0-9]{0,15}-[1-9][0-9]{0,15}")
ORDER = re.compile(r"[!-~]{1,64}")

issuances = []
seen = set()


def post(path, headers, body=b""):
    request = urllib.request.Request(os.environ["HOST"] + path, data=body, headers=headers, method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def made():
    """Returns the ids of issuances, which the first call makes. Those to be revoked are the last ones."""
    if not issuances:
        admin = {"Authorization": f"Bearer {os.environ['ADMIN_TOKEN']}", "Content-Type": "application/json"}
        coupon = {"title": "schemathesis", "total_quantity": None, "discount": {"kind": "rate", "value": 15}}
        coupon = post("/v1/coupons", admin, json.dumps(coupon).encode())
        path = f"/v1/coupons/{coupon['id']}/issuances"
        issuances.extend(post(path, {"X-User-Id": f"schemathesis-{n}"})["id"] for n in range(TO_USE + TO_REVOKE))
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
        is_last = uses[1] == "/revoke"
        return {**path_parameters, "id": chosen(wanted, made()[TO_USE:] if is_last else made()[:TO_USE])}
    return path_parameters


@schemathesis.hook
def map_body(context, body):
    """Puts one of few orders in the place of any."""
    order = body.get("order_id") if isinstance(body, dict) else None
    if isinstance(order, str) and ORDER.fullmatch(order):
        return {**body, "order_id": chosen(order, [f"order-{n}" for n in range(ORDERS)])}
    return body


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
