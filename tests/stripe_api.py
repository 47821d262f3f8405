"""A stand-in of Stripe's API over HTTP, as far as the relay reads it, a shop that it serves, and a relay's source.

Lists are newest first, filtered and paged as Stripe's are; `answers` are statuses to give before the true answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from relay.contract import Delivery
from relay.mapping import map_delivery
from relay.registry import load_providers
from relay.settings import load
from relay.sources import Source
from relay.store.base import Store
from tests.things import NOON, arrival

API_KEY = "rk_live_of_the_tests"
SECRET = "whsec_1"
PROVIDERS = load_providers(None)
STRIPE = PROVIDERS["stripe"]

Json = dict[str, Any]

#: What a list can be asked for, and where that stands in its objects.
FILTERS = {
    "charges": {"payment_intent": "payment_intent"},
    "refunds": {"charge": "charge"},
    "invoice_payments": {
        "status": "status", "invoice": "invoice", "payment[payment_intent]": "payment.payment_intent",
        "payment[type]": "payment.type",
    },
    "invoices": {"status": "status"},
    "events": {"type": "type"},
    "checkout/sessions": {},
}  # fmt: skip


@dataclass
class StripeApi:
    """What Stripe knows, by account (`""`: the own one) and by list."""

    accounts: dict[str, dict[str, list[Json]]] = field(default_factory=dict)
    #: Path and parameters of each request that was let in.
    requests: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    page: int = 100
    #: Paths for which the key has no permission.
    forbidden: set[str] = field(default_factory=set)
    #: Paths that this version of the API does not have.
    unknown: set[str] = field(default_factory=set)
    is_live: bool = True

    # --- a shop ---

    def put(self, kind: str, in_account: str = "", /, **values: Any) -> Json:
        self.accounts.setdefault(in_account, {}).setdefault(kind, []).append(values)
        return values

    def all(self, kind: str, account: str = "") -> list[Json]:
        return self.accounts.get(account, {}).get(kind, [])

    def said(self, number: int | str, kind: str, o: Json, at_s: int, account: str = "", **values: Any) -> Json:
        """Stripe says it: an event, which its webhooks would bring."""
        own = {"account": account} if account else {}
        return self.put(
            "events", account, id=f"evt_{number}", object="event", api_version="2026-10-28.endive", created=at_s,
            livemode=self.is_live, type=kind, data={"object": o}, **own, **values,
        )  # fmt: skip

    def charged(self, number: int | str, at_s: int, *, cents: int = 1999, account: str = "", **values: Any) -> Json:
        charge = {
            "object": "charge", "amount": cents, "amount_captured": cents, "amount_refunded": 0, "captured": True,
            "currency": "eur", "payment_intent": f"pi_{number}", "status": "succeeded", **values,
        }  # fmt: skip
        return self.put("charges", account, id=f"ch_{number}", created=at_s, **charge)

    def sold(self, number: int | str, at_s: int, *, cents: int = 1999, currency: str = "eur", tax: int = 0,
             account: str = "") -> Json:  # fmt: skip
        """A sale through Checkout."""
        self.charged(number, at_s, cents=cents, currency=currency, account=account)
        session = self.put(
            "checkout/sessions", account, id=f"cs_{number}", object="checkout.session", created=at_s, mode="payment",
            payment_status="paid", payment_intent=f"pi_{number}", invoice=None, subscription=None, customer=None,
            amount_total=cents, currency=currency, customer_details={"email": f"buyer_{number}@example.com"},
            total_details={"amount_tax": tax, "amount_discount": 0, "amount_shipping": 0}, metadata={},
        )  # fmt: skip
        return self.said(number, "checkout.session.completed", session, at_s + 1, account)

    def billed(self, number: int | str, at_s: int, *, cents: int = 2900, made_s: int | None = None) -> Json:
        """A paid invoice of a subscription, in the shape since basil: it does not name its payment."""
        made_s = at_s if made_s is None else made_s
        self.charged(number, at_s, cents=cents)
        invoice = self.put(
            "invoices", id=f"in_{number}", object="invoice", created=made_s, status="paid", amount_paid=cents,
            amount_due=cents, total=cents, currency="eur", customer="cus_1", customer_email="buyer@example.com",
            billing_reason="subscription_cycle", collection_method="charge_automatically", metadata={},
            parent={"subscription_details": {"subscription": "sub_1", "metadata": {}}}, lines={"data": []},
            status_transitions={"paid_at": at_s + 1},
        )  # fmt: skip
        self.put(
            "invoice_payments", id=f"inpay_{number}", object="invoice_payment", created=made_s, status="paid",
            invoice=f"in_{number}", amount_paid=cents, currency="eur",
            payment={"type": "payment_intent", "payment_intent": f"pi_{number}"},
        )  # fmt: skip
        return self.said(number, "invoice.paid", invoice, at_s + 1)

    def refunded(self, number: int | str, at_s: int, *, of: int | str, cents: int = 500,
                 status: str = "succeeded", account: str = "") -> Json:  # fmt: skip
        refund = self.put(
            "refunds", account, id=f"re_{number}", object="refund", created=at_s, status=status, amount=cents,
            currency="eur", charge=f"ch_{of}", payment_intent=f"pi_{of}", metadata={}, reason=None,
        )  # fmt: skip
        return self.said(f"re_{number}", "refund.created", refund, at_s, account)

    # --- the API ---

    @property
    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/{path:path}", self._answer)])

    async def _answer(self, request: Request) -> JSONResponse:
        if request.headers.get("authorization") != f"Bearer {API_KEY}":
            return _error(401, "Invalid API Key provided.")
        path = request.path_params["path"]
        if path in self.forbidden:
            return _error(403, "The provided key does not have the required permissions.", "permission_error")
        if path in self.unknown:
            return _error(404, f"Unrecognized request URL (GET: /v1/{path}).")
        if self.answers:
            return _error(self.answers.pop(0), "Not now.", "rate_limit")
        self.requests.append((path, dict(request.query_params)))
        lists = self.accounts.get(request.headers.get("stripe-account", ""), {})
        if path in FILTERS:
            return self._list(path, lists.get(path, []), request)
        kind, _, id_ = path.rpartition("/")
        found = next((o for o in lists.get(kind, []) if o["id"] == id_), None)
        return JSONResponse(found) if found else _error(404, f"No such {kind}: {id_}", "resource_missing")

    def _list(self, kind: str, known: list[Json], request: Request) -> JSONResponse:
        asked = request.query_params
        found = [o for o in known if all(_dig(o, where) == asked[name] for name, where in FILTERS[kind].items()
                                         if name in asked and not asked[name].endswith("*"))]  # fmt: skip
        types = [value for name, value in asked.multi_items() if name.startswith("types[")]
        found = [o for o in found if not types or o["type"] in types]
        found = [o for o in found if o["created"] >= int(asked.get("created[gte]", 0))]
        found = [o for o in found if o["created"] < int(asked.get("created[lt]", 2**40))]
        found = sorted(found, key=lambda o: -int(o["created"]))
        after = next((place for place, o in enumerate(found, 1) if o["id"] == asked.get("starting_after")), 0)
        limit = min(int(asked.get("limit", 10)), self.page)
        page = found[after : after + limit]
        more = len(found) > after + limit
        return JSONResponse({"object": "list", "url": f"/v1/{kind}", "has_more": more, "data": page})


def _dig(o: Json, path: str) -> Any:
    value: Any = o
    for step in path.split("."):
        value = (value or {}).get(step)
    return value


def _error(status: int, message: str, code: str = "") -> JSONResponse:
    kind = "invalid_request_error" if status in (400, 401, 404) else "api_error"
    return JSONResponse({"error": {"message": message, "code": code, "type": kind}}, status_code=status)


def bodies(api: StripeApi, *numbers: int | str) -> Iterator[Json]:
    """The events of these numbers, as the webhooks would bring them."""
    by_id = {event["id"]: event for lists in api.accounts.values() for event in lists.get("events", [])}
    return (by_id[f"evt_{number}"] for number in numbers)


# --- the relay's side -------------------------------------------------------------------------------------------------


def source_of(api_base: str, folder: Path, **variables: str) -> Source:
    """A source of Stripe that reads from this API."""
    environ = {"RELAY_STRIPE_SECRET": SECRET, "RELAY_STRIPE_API_KEY": API_KEY, "RELAY_STRIPE_API_BASE": api_base}
    given = {**environ, "RELAY_JOIN_WAIT_S": "0", **variables}
    return load(PROVIDERS, environ=given, env_file=folder / ".env").sources["stripe"]


async def deliver(store: Store, source: Source, *events: Json) -> None:
    """As the webhooks would."""
    for event in events:
        body = orjson.dumps(event)
        mapped = map_delivery(STRIPE, source, Delivery(body=body, headers={}), received_at_ms=NOON)
        await store.accept(arrival(*mapped, source=source.slug, body=body))
