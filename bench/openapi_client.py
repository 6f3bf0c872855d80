"""Generates a Python client from the OpenAPI document of a running node, and uses it.

    openapi_client.py URL ADMIN_TOKEN

The client must have a type for every answer. It is a failure if the generator leaves anything out. The client
then creates a coupon and requests it twice for one user, and reads the issuance from the refusal. It uses the
issuance for an order, from the quote to the refund, and reads what became of it. All answers are read as the
generated types.
"""

import importlib
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from pathlib import Path


def generate(url, directory):
    """Generates the package `firstcome_client` into the directory."""
    document = directory / "openapi.json"
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=10) as answer:
        document.write_bytes(answer.read())
    # The generator is beside the interpreter. The interpreter's environment need not be on the PATH.
    program = Path(sys.executable).with_name("openapi-python-client")
    # No hooks: by default they format the files. The generator does not know lines of JSON: they are a file.
    config = directory / "config.json"
    config.write_text(
        '{"post_hooks": [], "content_type_overrides": {"application/x-ndjson": "application/octet-stream"}}'
    )
    package = directory / "generated"
    done = subprocess.run(
        [program, "generate", "--path", document, "--output-path", package, "--config", config],
        capture_output=True, text=True, timeout=120,
    )
    said = (done.stdout + done.stderr).splitlines()
    # The files of the documentation page have many media types, and clients do not request these files.
    warnings = [line for line in said if line.startswith("WARNING") and "GET /docs/{file}" not in line]
    lacking = any("Unable to process schema" in line for line in said)
    if done.returncode != 0 or warnings or lacking:
        sys.exit(f"a complete client cannot be generated from the document:\n{done.stdout}\n{done.stderr}")
    sys.path.insert(0, str(package))


def use(url, token):
    """Creates a coupon and requests it twice for one user."""
    client = importlib.import_module("firstcome_client")
    models = importlib.import_module("firstcome_client.models")
    create = importlib.import_module("firstcome_client.api.coupons.create_coupon")
    issue = importlib.import_module("firstcome_client.api.issuing.issue")

    admin = client.AuthenticatedClient(base_url=url, token=token)
    discount = models.DiscountAmount(kind=models.DiscountAmountKind.AMOUNT, value=10_000)
    wanted = models.CreateCoupon(title="Generated", total_quantity=5, discount=discount)
    coupon = create.sync(client=admin, body=wanted, idempotency_key=str(uuid.uuid4()))
    assert isinstance(coupon, models.Coupon), coupon
    assert isinstance(coupon.discount, models.DiscountAmount), coupon.discount
    assert coupon.total_quantity == 5 and coupon.remaining == 5, coupon

    user = client.AuthenticatedClient(
        base_url=url, token="alice", auth_header_name="X-User-Id", prefix="")
    first = issue.sync(coupon.id, client=user)
    assert isinstance(first, models.Issuance), first
    second = issue.sync_detailed(coupon.id, client=user)
    assert second.status_code == 409, second
    refusal = second.parsed
    assert isinstance(refusal, models.ProblemAlreadyIssued), refusal
    assert isinstance(refusal.issuance, models.Issuance), refusal.issuance
    assert refusal.issuance.id == first.id and refusal.issuance.sequence == 1, refusal.issuance
    assert refusal.applied is False, refusal
    print(f"created coupon {coupon.id}, issued {first.id}, read it from {refusal.code}")
    check_out(admin, models, first.id)


def check_out(shop, models, issuance):
    """Uses an issuance, of which 10,000 are taken off, for one order and then for another one."""
    def call(name, **arguments):
        operation = importlib.import_module(f"firstcome_client.api.using.{name}")
        return operation.sync(issuance, client=shop, **arguments)

    order = models.Order(order_id="order-1")
    quote = call("quote_issuance", order_amount=45_000)
    assert isinstance(quote, models.Quote) and quote.usable, quote
    assert (quote.discount, quote.payable) == (10_000, 35_000), quote
    reserved = call("reserve_issuance", body=models.Reserve(order_id="order-1", order_amount=45_000, hold=60))
    assert isinstance(reserved, models.Issuance) and reserved.use.discount == 10_000, reserved
    held = call("reserve_issuance", body=models.Reserve(order_id="order-2", order_amount=45_000))
    assert isinstance(held, models.ProblemReserved) and held.hold_until == reserved.use.hold_until, held
    assert isinstance(call("release_issuance", body=order), models.Issuance)
    assert isinstance(call("release_issuance", body=models.Order(order_id="order-2")), models.ProblemNotReserved)
    redeemed = call("redeem_issuance", body=models.Redeem(order_id="order-2", order_amount=9_000))
    assert isinstance(redeemed, models.Issuance) and redeemed.use.discount == 9_000, redeemed
    refused = call("redeem_issuance", body=models.Redeem(order_id="order-1", order_amount=9_000))
    assert isinstance(refused, models.ProblemRedeemed) and refused.use.order_id == "order-2", refused
    assert isinstance(call("refund_issuance", body=models.Order(order_id="order-2")), models.Issuance)
    revoked = call("revoke_issuance", body=models.Revoke(reason="a test"))
    assert isinstance(revoked, models.Issuance) and revoked.state == "revoked", revoked
    uses = call("issuance_uses")
    kinds = [use.kind for use in uses.items]
    assert kinds == ["reserved", "released", "redeemed", "refunded", "revoked"], kinds
    print(f"used {issuance}: {', '.join(kinds)}")


def main():
    url, token = sys.argv[1:]
    with tempfile.TemporaryDirectory() as directory:
        generate(url, Path(directory))
        use(url, token)


if __name__ == "__main__":
    main()
