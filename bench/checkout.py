"""Checkout webhooks as Stripe sends them, each with ids of its own and freshly signed, at a few microseconds apiece.

In: a case of the tests and a number. Out: a body, or a whole HTTP request. What the relay has to make of number N
(`amount_of`) and which number an event came from (`number_of`) are said here too.
"""

from __future__ import annotations

import hmac
import json
import re
import time
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

CASES = Path(__file__).resolve().parent.parent / "tests" / "mappers"
CASE = CASES / "stripe" / "checkout.session.completed__card.json"
PATH = "/webhooks/stripe"
SECRET = "whsec_" + "bench" * 6

_LETTERS = 10
#: Numbers are written in letters: a long row of digits is what the ids of Stripe never have, and looks like a phone's.
_TO_LETTERS = bytes.maketrans(b"0123456789", b"kvXqRbTzMd")
_TO_DIGITS = str.maketrans("kvXqRbTzMd", "0123456789")
#: What stands in the template where the number and the amount go; nothing of it needs escaping in JSON.
_NUMBER = "<number>"
_AMOUNT = 7_777_777
_LEAST, _AMOUNTS = 10_000, 89_999
_AT_THE_END = re.compile(rf"[kvXqRbTzMd]{{{_LETTERS}}}$")
_ID = re.compile(r"([a-z]+_(?:live_|test_)?(?:[ab]1)?)")

Json = dict[str, Any]


def amount_of(number: int) -> int:
    """What checkout `number` costs, in minor units: a sale can be told from its neighbours by its amount."""
    return _LEAST + number % _AMOUNTS


def revenue_of(number: int) -> Decimal:
    """What the event of checkout `number` must say."""
    return Decimal(amount_of(number)).scaleb(-2)


def number_of(event: Mapping[str, Any]) -> int | None:
    """Which checkout an event of the events API tells; None where it is none of ours."""
    found = _AT_THE_END.search(str(event.get("properties", {}).get("order_id", "")))
    return int(found[0].translate(_TO_DIGITS)) if found else None


class Checkouts:
    """Paid one-off Checkout sessions. Two of the same number are the same webhook, signed at different times."""

    def __init__(self, port: int, *, path: str = PATH, secret: str = SECRET) -> None:
        text = json.dumps(_session()).replace("%", "%%")
        pieces = re.split(f"({_NUMBER}|{_AMOUNT})", text)
        self._body = "".join("%b" if place % 2 else piece for place, piece in enumerate(pieces)).encode()
        self._is_amount = [piece != _NUMBER for piece in pieces[1::2]]
        self._secret = secret.encode()
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: */*; q=0.5, application/xml\r\n"
            "User-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\n"
            "Content-Type: application/json; charset=utf-8\r\nCache-Control: no-cache\r\n"
            f"Content-Length: {self.size}\r\nStripe-Signature: t=%d,v1=%b\r\n\r\n"
        ).encode()

    @property
    def size(self) -> int:
        """Of each body, in bytes."""
        return len(self.body(0))

    def body(self, number: int) -> bytes:
        """The webhook, as it is signed."""
        letters, amount = (b"%010d" % number).translate(_TO_LETTERS), b"%d" % amount_of(number)
        return self._body % tuple([amount if is_amount else letters for is_amount in self._is_amount])

    def signature(self, body: bytes, at_s: int) -> bytes:
        """The hex of `v1`."""
        return hmac.digest(self._secret, b"%d." % at_s + body, "sha256").hex().encode()

    def request(self, number: int) -> bytes:
        """The webhook as an HTTP request, signed now."""
        body, now = self.body(number), int(time.time())
        return self._head % (now, self.signature(body, now)) + body


def _session() -> Json:
    """The case, with places for the number in all that differs from sale to sale."""
    case: Json = json.loads(CASE.read_text())
    text, session = json.dumps(case["body"]), case["body"]["data"]["object"]
    for found in sorted(case["fresh"]["ids"], key=len, reverse=True):
        text = text.replace(found, _renumbered(found))
    text = text.replace(session["customer_details"]["email"], f"buyer.{_NUMBER}@example.com")
    text = text.replace(session["client_reference_id"], f"user_{_NUMBER}")
    for second in case["fresh"]["seconds"]:
        text = text.replace(str(second), str(int(time.time())))
    body: Json = json.loads(text)
    body["data"]["object"]["amount_total"] = _AMOUNT
    return body


def _renumbered(found: str) -> str:
    """An id of the same kind and, where it is long enough, of the same length."""
    prefix = _ID.match(found)
    kept = found[: max(prefix.end() if prefix else 0, len(found) - _LETTERS)]
    return kept + _NUMBER
