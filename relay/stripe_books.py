"""Stripe's books, read through its API: notifications from `/v1/events`, entries from charges, refunds and invoices.

In: a restricted key. Out: what `relay.books.Books` promises. Objects have the shapes of the API version to which the
package `stripe` is pinned, whatever the account's own; a notification has the shape in which it was first sent.
Connected accounts are read one by one, with their id in every key, as in their webhooks.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import stripe

from relay.books import BooksError, Entry, parted
from relay.money import from_minor

#: Where Stripe counts other decimals than ISO 4217: https://docs.stripe.com/currencies#special-cases (read 2026-11-23).
DECIMALS = {"ISK": 2, "UGX": 2, "MGA": 0}

_PAGE = 100
_MOST_TYPES = 20
_TIMEOUT_S = 30
#: The package repeats what failed on the way, 409 and 5xx; 429 is repeated here.
_RETRIES = 4
_LATER_S = (1, 2, 4, 8, 16, 30)
#: A step of a charge is told within so many seconds of its refund.
_STEP_S = 60
_NOT_THERE = "resource_missing"
_NO_SUCH_URL = 404
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

Json = Mapping[str, Any]


class StripeBooks:
    """`relay.books.Books` of a Stripe account and of these connected accounts."""

    keeps_days: int | None = 30

    def __init__(
        self,
        api_key: str,
        *,
        api_base: str | None = None,
        accounts: Sequence[str] = (),
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        # an empty proxy is none, whatever the environment says: no proxy leads back to this machine
        here = api_base is not None and urlsplit(api_base).hostname in _LOOPBACK
        self._http = stripe.RequestsClient(timeout=_TIMEOUT_S, proxy={"http": "", "https": ""} if here else None)
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": api_base} if api_base else None,
            max_network_retries=_RETRIES,
            http_client=self._http,
        )
        self._accounts = ("", *accounts)
        self._stopped = threading.Event()
        self._sleep = sleep or self._stopped.wait
        self.is_test = "_test_" in api_key

    def stop(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        self._http.close()  # type: ignore[no-untyped-call]

    # --- notifications ---

    def notifications(self, *, since_ms: int, until_ms: int, types: Sequence[str]) -> Iterator[Sequence[bytes]]:
        if len(types) > _MOST_TYPES:
            msg = f"Stripe takes at most {_MOST_TYPES} types. Name fewer, or none for all."
            raise BooksError(msg)
        chosen = {"type": types[0]} if len(types) == 1 else {"types": list(types)} if types else {}
        for account in self._accounts:
            for page in self._pages("/v1/events", account, created=_between(since_ms, until_ms), **chosen):
                yield [json.dumps(_of(account, event)).encode() for event in page]

    # --- entries ---

    def entries(self, *, since_ms: int, until_ms: int) -> Iterator[Sequence[Entry]]:
        created = _between(since_ms, until_ms)
        for account in self._accounts:
            invoices: dict[str, list[str]] = {}
            charged: Counter[str] = Counter()
            for link in self._links(account, created=created):
                for _, paid_by in _paid_by(link):
                    invoices.setdefault(paid_by, []).append(_id(link["invoice"]))
                    charged[_id(link["invoice"])] += link["amount_paid"] or 0
            for page in self._pages("/v1/charges", account, created=created):
                paid = [charge for charge in page if _is_paid(charge)]
                for charge in paid:
                    for _, invoice in _named(charge, "invoice"):  # before basil
                        charged[invoice] += _captured(charge)
                yield [_payment(charge, account, invoices) for charge in paid]
            for page in self._pages("/v1/refunds", account, created=created):
                yield [_refund(refund, account) for refund in page]
            for page in self._pages("/v1/invoices", account, status="paid", created=created):
                rest = [(o, o["amount_paid"] - charged[o["id"]]) for o in page]
                yield [_off_stripe(o, amount, account) for o, amount in rest if amount > 0]

    # --- names ---

    def names(self, keys: Sequence[str]) -> tuple[str, ...] | None:
        """Looks the objects up one by one: for the few that nothing else explains."""
        known = [key for key in map(parted, keys) if key[1] in _LOOKED_UP]
        for account, kind, id_ in sorted(known, key=lambda key: _LOOKED_UP.index(key[1])):
            match kind:
                case "payment":
                    found = self._of_payment(id_, account)
                case "charge":
                    charge = self._get(f"/v1/charges/{id_}", account)
                    found = [] if charge is None or not _is_paid(charge) else [("charge", id_), *_payment_of(charge)]
                case "invoice":
                    found = self._of_invoice(id_, account)
                case "checkout":
                    session = self._get(f"/v1/checkout/sessions/{id_}", account) or {}
                    is_paid = session.get("payment_status") == "paid"
                    found = [("checkout", id_), *_named(session, "invoice"), *_payment_of(session)] if is_paid else []
                case _:
                    found = self._of_refund(id_, account)
            if found:
                return tuple(dict.fromkeys(_key(kind, name, account) for kind, name in found))
        return None

    def _of_payment(self, payment: str, account: str) -> list[tuple[str, str]]:
        charges = [charge for page in self._pages("/v1/charges", account, payment_intent=payment) for charge in page]
        paid = [name for charge in charges if _is_paid(charge)
                for name in (("charge", charge["id"]), *_named(charge, "invoice"))]  # fmt: skip
        of = {"type": "payment_intent", "payment_intent": payment}
        links = self._links(account, payment=of)
        return [("payment", payment), *paid, *(("invoice", _id(link["invoice"])) for link in links)] if paid else []

    def _of_invoice(self, invoice: str, account: str) -> list[tuple[str, str]]:
        found = self._get(f"/v1/invoices/{invoice}", account)
        if found is None or found.get("status") != "paid" or not found.get("amount_paid"):
            return []
        links = self._links(account, invoice=invoice)
        return [("invoice", invoice), *(paid_by for link in links for paid_by in _paid_by(link))]

    def _of_refund(self, id_: str, account: str) -> list[tuple[str, str]]:
        """`re_1`, or the step of a charge (`ch_1:<total>:<second>`) by which old API versions tell a refund."""
        charge, _, step = id_.partition(":")
        if not step:
            refund = self._get(f"/v1/refunds/{id_}", account)
            return [] if refund is None else [("refund", id_), ("refund_reversed", id_)]
        total, told, at_s = 0, *(int(number) for number in step.split(":"))
        refunds = [refund for page in self._pages("/v1/refunds", account, charge=charge) for refund in page]
        for refund in sorted(refunds, key=lambda refund: int(refund["created"])):
            total += refund["amount"]
            if total == told:
                return [("refund", refund["id"])]
        near = [refund["id"] for refund in refunds if abs(refund["created"] - at_s) <= _STEP_S]
        return [("refund", near[0])] if len(near) == 1 else []

    def _links(self, account: str, **params: Any) -> list[Json]:
        """What was paid of which invoice, and by what."""
        pages = self._pages("/v1/invoice_payments", account, status="paid", **params)
        return [link for page in pages for link in page]

    # --- the API ---

    def _pages(self, path: str, account: str, **params: Any) -> Iterator[Sequence[Json]]:
        """A list, page by page; an empty one for an object that there is not."""
        after: dict[str, str] = {}
        while True:
            page = self._get(path, account, limit=_PAGE, **params, **after) or {"data": []}
            if page["data"]:
                yield page["data"]
            if not page.get("has_more") or not page["data"]:
                return
            after = {"starting_after": page["data"][-1]["id"]}

    def _get(self, path: str, account: str, **params: Any) -> Json | None:
        """What stands there; None where it is about an object that there is not."""
        options = {"stripe_account": account} if account else {}
        for wait_s in (*_LATER_S, None):
            if self._stopped.is_set():
                msg = "stopped"
                raise BooksError(msg)
            try:
                found: Any = self._client.raw_request("get", path, **params, **options).data
            except stripe.RateLimitError as error:
                if wait_s is None:
                    raise _trouble(error, path) from None
                self._sleep(wait_s)
            except stripe.StripeError as error:
                if "starting_after" not in params and (error.code == _NOT_THERE or _is_old(path, error)):
                    return None
                raise _trouble(error, path) from None
            else:
                return found  # type: ignore[no-any-return]
        raise AssertionError


#: The kinds of once keys that name something in the books, the surest first.
_LOOKED_UP = ("payment", "charge", "invoice", "checkout", "refund", "refund_reversed")


def _is_old(path: str, error: stripe.StripeError) -> bool:
    """Whether it is an API before 2025-03-31 (basil), where charges name their invoices themselves."""
    return path == "/v1/invoice_payments" and error.http_status == _NO_SUCH_URL


def _trouble(error: stripe.StripeError, path: str) -> BooksError:
    words = " ".join((error.user_message or type(error).__name__).split())
    match error:
        case stripe.AuthenticationError():
            remedy = "Correct the API key."
        case stripe.PermissionError():
            remedy = f"Give the key read access to {path}, and to connected accounts where it is about one."
        case stripe.RateLimitError():
            remedy = "Try again later."
        case _:
            remedy = "Try again."
    return BooksError(f"Stripe did not give {path}: {words} {remedy}")


# --- what stands in its objects ---------------------------------------------------------------------------------------


def _between(since_ms: int, until_ms: int) -> dict[str, int]:
    return {"gte": since_ms // 1000, "lt": -(-until_ms // 1000)}


def _of(account: str, event: Json) -> Json:
    """The event as the webhook of a connected account has it."""
    return {**event, "account": account} if account and not event.get("account") else event


def _key(kind: str, id_: str, account: str) -> str:
    return f"{account}/{kind}:{id_}" if account else f"{kind}:{id_}"


def _id(value: Any) -> str:
    return str(value["id"] if isinstance(value, Mapping) else value)


def _named(o: Json, name: str) -> list[tuple[str, str]]:
    return [(name, _id(o[name]))] if o.get(name) else []


def _payment_of(o: Json) -> list[tuple[str, str]]:
    return [("payment", _id(o["payment_intent"]))] if o.get("payment_intent") else []


def _paid_by(link: Json) -> list[tuple[str, str]]:
    """The PaymentIntent or charge of an invoice payment; none where the money came outside of Stripe."""
    return [*_payment_of(link["payment"]), *_named(link["payment"], "charge")]


def _is_paid(charge: Json) -> bool:
    return charge["status"] == "succeeded" and bool(charge["captured"])


def _captured(charge: Json) -> int:
    return int(charge["amount"] if charge.get("amount_captured") is None else charge["amount_captured"])


def _money(amount: int, currency: str) -> Decimal:
    return from_minor(amount, currency, DECIMALS)


def _shown(o: Json, sign: int) -> tuple[Decimal, str] | None:
    """Adaptive pricing: what the buyer saw, which sessions told as the amount before 2025-03-31 (basil)."""
    shown = o.get("presentment_details") or {}
    amount, currency = shown.get("presentment_amount"), shown.get("presentment_currency")
    return (sign * _money(amount, currency), currency.upper()) if amount and currency else None


def _payment(charge: Json, account: str, invoices: Mapping[str, Sequence[str]]) -> Entry:
    named = [*_payment_of(charge), ("charge", charge["id"]), *_named(charge, "invoice")]
    named += [("invoice", invoice) for _, id_ in named for invoice in invoices.get(id_, ())]
    return Entry(
        kind="payment",
        id=named[0][1],
        account=account,
        at_ms=charge["created"] * 1000,
        amount=_money(_captured(charge), charge["currency"]),
        currency=charge["currency"].upper(),
        keys=tuple(dict.fromkeys(_key(kind, id_, account) for kind, id_ in named)),
        shown=_shown(charge, 1),
    )


def _refund(refund: Json, account: str) -> Entry:
    """One that failed moved nothing in the end; one that is under way, nothing yet."""
    moved = refund["amount"] if refund["status"] == "succeeded" else 0
    return Entry(
        kind="refund",
        id=refund["id"],
        account=account,
        at_ms=refund["created"] * 1000,
        amount=-_money(moved, refund["currency"]),
        currency=refund["currency"].upper(),
        keys=tuple(_key(kind, refund["id"], account) for kind in ("refund", "refund_reversed")),
        shown=_shown(refund, -1) if moved else None,
    )


def _off_stripe(invoice: Json, amount: int, account: str) -> Entry:
    """What was paid of an invoice without a charge: by bank transfer, in cash."""
    paid_at = (invoice.get("status_transitions") or {}).get("paid_at")
    return Entry(
        kind="payment",
        id=invoice["id"],
        account=account,
        at_ms=(paid_at or invoice["created"]) * 1000,
        amount=_money(amount, invoice["currency"]),
        currency=invoice["currency"].upper(),
        keys=(_key("invoice", invoice["id"], account),),
    )
