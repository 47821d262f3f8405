"""Adyen. https://docs.adyen.com/development-resources/webhooks (standard webhook, read 2026-11-23).

In: deliveries of notification items, each of which is signed by itself. A sale is told by its authorisation, or with
the option `captures` by each of its captures. A modification names its payment in `originalReference`, and its own
`pspReference` is that of the refund or dispute. Who paid stands in `additionalData`, where that was switched on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from relay.contract import (
    Answer,
    Draft,
    Item,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    composed,
    conversion,
    event,
    field,
)
from relay.money import from_minor
from relay.signatures import adyen_items, with_basic_auth

Json = Mapping[str, Any]


def _items(body: Json) -> Sequence[Json]:
    """The items, each with the delivery's word on whether it is live."""
    return [{"live": body.get("live"), **wrapped["NotificationRequestItem"]} for wrapped in body["notificationItems"]]


def _is_test(item: Item) -> bool:
    """Of the test environment, or sent by the button "Test configuration", whose references are words."""
    reference = str(item.body.get("pspReference")).lower()
    return str(item.body.get("live")).lower() == "false" or reference.startswith(("test_", "testnotification_"))


provider = Provider(
    name="adyen",
    title="Adyen",
    docs="https://docs.adyen.com/development-resources/webhooks",
    verifier=with_basic_auth(adyen_items()),
    notification_id=composed(field("pspReference"), field("eventCode"), field("success")),
    notification_type=field("eventCode"),
    items=_items,
    is_test=_is_test,
    accepted=Answer(body=b"[accepted]", content_type="text/plain"),
    secret=SecretShape(
        meaning="Adyen Customer Area > Developers > Webhooks > your webhook > HMAC key, 64 hexadecimal digits; "
        "with a user name and password there, key:user:password",
        mistaken={"AQE": "an API key", "test_": "a client key", "live_": "a client key"},
    ),
    options={"captures": "Captures are sales, and authorisations are none: for manual capture."},
    instead=frozenset({"captures"}),
)

#: Twins of what is mapped, steps on the way to it, and what is not about a shopper's money.
TWINS = """
ACH_NOTIFICATION_OF_CHANGE AUTHENTICATION AUTHORISATION_ADJUSTMENT AUTHORISATION_PENDING AUTORESCUE
AUTORESCUE_NEXT_ATTEMPT CANCEL_AUTORESCUE DIRECT_DEBIT_NOTICE_OF_CHANGE_NOTIFICATION DISABLE_RECURRING
DISPUTE_DEFENSE_PERIOD_ENDED DISPUTE_OPENED_WITH_CHARGEBACK DONATION INFORMATION_SUPPLIED ISSUER_COMMENTS
ISSUER_RESPONSE_TIMEFRAME_EXPIRED MANUAL_REVIEW_ACCEPT MANUAL_REVIEW_REJECT NOTIFICATION_OF_FRAUD ORDER_CLOSED
ORDER_OPENED PAIDOUT_REVERSED PAYOUT_DECLINE PAYOUT_EXPIRE PAYOUT_THIRDPARTY PENDING POSTPONED_REFUND
PROCESS_RETRY REPORT_AVAILABLE VOID_PENDING_REFUND
"""
provider.ignores(*TWINS.split())

#: Where Adyen differs from ISO 4217: https://docs.adyen.com/development-resources/currency-codes (read 2026-11-23)
DECIMALS = {"CLP": 2, "CVE": 0, "IDR": 0, "ISK": 2}

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _extra(o: Json) -> Json:
    return o.get("additionalData") or {}


def _is_done(o: Json) -> bool:
    """Adyen writes it as a text."""
    return str(o["success"]).lower() == "true"


def _at_ms(o: Json) -> int:
    at = datetime.fromisoformat(o["eventDate"])
    return (at.replace(tzinfo=at.tzinfo or UTC) - EPOCH) // timedelta(milliseconds=1)


def _money(o: Json) -> tuple[Any, str]:
    amount = o["amount"]
    return from_minor(amount["value"], amount["currency"], DECIMALS), amount["currency"]


def _unmoved(o: Json) -> dict[str, Any]:
    """Money that is no revenue: properties."""
    if not (o.get("amount") or {}).get("value"):
        return {}
    amount, currency = _money(o)
    return {"amount": amount, "currency": currency}


def _payment(o: Json) -> str:
    return str(o.get("originalReference") or o["pspReference"])


def _person(extra: Json) -> Person:
    """`shopperReference` is the site's own id of the shopper."""
    names = ("shopperReference", "tokenization.shopperReference", "recurring.shopperReference")
    return Person(
        email=extra.get("shopperEmail") or None,
        external_id=next((extra[name] for name in names if extra.get(name)), None),
    )


def _about(o: Json, **more: Any) -> dict[str, Any]:
    extra, person = _extra(o), _person(_extra(o))
    return {
        "person": person,
        "metadata": {key[9:]: value for key, value in extra.items() if key.startswith("metadata.")},
        "joins": (f"payment:{_payment(o)}", *((f"shopper:{person.external_id}",) if person.external_id else ())),
        "properties": {
            "order_id": o.get("merchantReference") or _payment(o),
            "payment_id": _payment(o),
            "payment_method": o.get("paymentMethod") or None,
            "merchant_account": o.get("merchantAccountCode"),
            "country": extra.get("shopperCountry") or None,
            **more,
        },
    }


def _learned(draft: Mapping[str, Any]) -> Iterator[Learned]:
    """Also where nobody is named: then there is nobody to wait for. Of a shopper not where this payment came from."""
    payment, shopper = draft["joins"][:1], draft["joins"][1:]
    yield Learned(keys=payment, person=draft["person"], metadata=draft["metadata"])
    if shopper:
        yield Learned(keys=shopper, person=draft["person"])


# --- payments ---------------------------------------------------------------------------------------------------------


@provider.on("AUTHORISATION")
def authorisation(n: Notification) -> Iterator[Draft | Learned]:
    """With an amount of nothing it only checks a card."""
    o, draft = n.body, _about(n.body)
    amount, currency = _money(o)
    yield from _learned(draft)
    if not amount:
        return
    if _is_done(o):
        yield Learned(keys=draft["joins"][:1], marks=("told",), without="captures")
        once, money = f"payment:{_payment(o)}", {"revenue": amount, "currency": currency}
        yield conversion("purchase", once=once, at_ms=_at_ms(o), without="captures", **money, **draft)
    else:
        draft["properties"] |= {"reason": _refusal(o.get("reason")), **_unmoved(o)}
        yield event("payment_failed", once=f"payment_failed:{o['pspReference']}", at_ms=_at_ms(o), **draft)


def _refusal(reason: str | None) -> str | None:
    """Adyen's own words, without what the issuer's system added to them."""
    words = (reason or "").partition(":")[0].strip()
    return None if words in ("", "null") else words


@provider.on("CAPTURE", option="captures")
def capture(n: Notification) -> Iterator[Draft | Learned]:
    """Each is a sale, of a part perhaps; but where the authorisation was told as one, before the option was set."""
    o, draft = n.body, _about(n.body)
    amount, currency = _money(o)
    if draft["person"] != Person():  # else it is no answer to what waits for one
        yield from _learned(draft)
    if _is_done(o) and amount:
        draft |= {"revenue": amount, "currency": currency, "waits": True, "unless": ("told",)}
        yield conversion("purchase", once=f"capture:{o['pspReference']}", at_ms=_at_ms(o), **draft)


@provider.on("RECURRING_CONTRACT")
def recurring_contract(n: Notification) -> Iterator[Learned]:
    """Who is behind the payment with which the card was stored."""
    yield from _learned(_about(n.body))


@provider.on("OFFER_CLOSED")
def offer_closed(n: Notification) -> Iterator[Draft]:
    """A voucher or bank transfer that was not paid in time."""
    o = n.body
    if _is_done(o):
        once, draft = f"checkout_expired:{o['pspReference']}", _about(o, **_unmoved(o))
        yield event("checkout_expired", once=once, at_ms=_at_ms(o), **draft)


# --- taken back -------------------------------------------------------------------------------------------------------


def _refund(o: Json, name: str, sign: int, **more: Any) -> Iterator[Draft]:
    amount, currency = _money(o)
    draft = _about(o, refund_id=o["pspReference"], **more)
    money = {"revenue": amount * sign, "currency": currency}
    if _is_done(o) and amount:
        yield event(name, once=f"{name}:{o['pspReference']}", at_ms=_at_ms(o), waits=True, **money, **draft)


@provider.on("REFUND", "REFUND_WITH_DATA")
def refund(n: Notification) -> Iterator[Draft]:
    yield from _refund(n.body, "refund", -1)


@provider.on("REFUND_FAILED", "REFUNDED_REVERSED")
def refund_failed(n: Notification) -> Iterator[Draft]:
    """A refund that was told and did not arrive; it has the reference of that refund."""
    yield from _refund(n.body, "refund_reversed", 1)


@provider.on("CAPTURE_FAILED")
def capture_failed(n: Notification) -> Iterator[Draft]:
    """The sale was told, and its money never came."""
    yield from _refund(n.body, "refund", -1, reason="capture_failed")


@provider.on("CANCELLATION", "TECHNICAL_CANCEL", "EXPIRE", "CANCEL_OR_REFUND")
def cancellation(n: Notification) -> Iterator[Draft]:
    """Canceled before it was captured, so that nothing is given back; `CANCEL_OR_REFUND` says which it became."""
    o = n.body
    if n.type == "CANCEL_OR_REFUND" and _extra(o).get("modification.action") == "refund":
        yield from _refund(o, "refund", -1)
    elif _is_done(o):
        draft = _about(o, reason=n.type.lower(), **_unmoved(o))
        yield event("order_canceled", once=f"order_canceled:{_payment(o)}", at_ms=_at_ms(o), waits=True, **draft)


# --- disputes ---------------------------------------------------------------------------------------------------------

DISPUTES = {
    "REQUEST_FOR_INFORMATION": "dispute_opened",
    "NOTIFICATION_OF_CHARGEBACK": "dispute_opened",
    "CHARGEBACK": "dispute_lost",
    "SECOND_CHARGEBACK": "dispute_lost",
    "PREARBITRATION_LOST": "dispute_lost",
    "SCHEME_ARBITRATION_LOST": "dispute_lost",
    "CHARGEBACK_REVERSED": "dispute_won",
    "PREARBITRATION_WON": "dispute_won",
    "SCHEME_ARBITRATION_WON": "dispute_won",
}


@provider.on(*DISPUTES)
def dispute(n: Notification) -> Iterator[Draft]:
    """Lost when the money is taken, won when it comes back; either may be followed by the other."""
    o, name = n.body, DISPUTES[n.type]
    code = (_extra(o).get("chargebackReasonCode") or "").strip() or None
    draft = _about(o, dispute_id=o["pspReference"], reason=code, stage=n.type.lower(), **_unmoved(o))
    once = f"{name}:{_payment(o)}" if name == "dispute_opened" else f"{name}:{o['pspReference']}:{n.type}"
    if _is_done(o):
        yield event(name, once=once, at_ms=_at_ms(o), waits=True, **draft)
