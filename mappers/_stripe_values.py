"""Steps through Stripe's objects, and what amounts and plans say: `stripe.py` and `_stripe_objects.py` read with it.

A reference is an id or, expanded, the object. A list has its rows in `data`; until 2014 some were bare arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from relay.money import from_minor

Json = Mapping[str, Any]
#: The steps to a value: fields and, in lists, positions.
Path = tuple[Any, ...]

#: Where Stripe counts other decimals than ISO 4217. That HUF and TWD have none is true of payouts only.
#: https://docs.stripe.com/currencies#special-cases (read 2026-11-23)
DECIMALS = {"ISK": 2, "UGX": 2, "MGA": 0}


def dig(value: Any, path: Path) -> Any:
    """The value at the end of a path; None where a step is missing, null, or an id that was not expanded."""
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int):
            value = value[step] if step < len(value) else None
        else:
            return None
    return value


def rows(listed: Any) -> Sequence[Json]:
    """The rows of a list; none where it was not expanded."""
    found = listed.get("data") if isinstance(listed, dict) else listed
    return found if isinstance(found, list) else ()


def ref(value: Any) -> Any:
    return value.get("id") if isinstance(value, dict) else value


def keys(*ids: tuple[str, Any]) -> tuple[str, ...]:
    """`("payment", "pi_1")` is `payment:pi_1`; what has no id is left out."""
    made: dict[str, None] = {}
    for kind, value in ids:
        if value and (name := ref(value)):
            made[f"{kind}:{name}"] = None
    return tuple(made)


def known(properties: Json) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value is not None and value != ""}


def money(amount: int | None, currency: str | None) -> Decimal | None:
    """Major units; None for nothing, which is no money."""
    return from_minor(amount, currency, DECIMALS) if amount and currency else None


def unpaid(amount: int | None, currency: str | None) -> dict[str, Any]:
    """Money that did not move: properties, never revenue."""
    return {"amount": money(amount, currency), "currency": currency.upper()} if amount and currency else {}


# --- plans: subscription items and invoice lines say the same ---------------------------------------------------------


def price_of(row: Json) -> Json:
    found = row.get("price") or row.get("plan") or dig(row, ("pricing", "price_details", "price"))
    return found if isinstance(found, dict) else {"id": found}


def plan_of(row: Json) -> dict[str, Any]:
    price = price_of(row)
    return {
        "plan": price.get("id"),
        "product": ref(price.get("product") or dig(row, ("pricing", "price_details", "product"))),
        "billing_interval": dig(price, ("recurring", "interval")) or price.get("interval"),
        "quantity": row.get("quantity"),
    }


def gain(left: Sequence[Json], taken: Sequence[Json]) -> int | None:
    """What the second costs more a period, as an invoice would bill it; None where that depends on use."""
    costs = [
        [(price_of(row).get("unit_amount", price_of(row).get("amount")), row.get("quantity")) for row in rows]
        for rows in (left, taken)
    ]
    if any(unit is None for rows in costs for unit, _ in rows):
        return None
    before, after = (sum(unit * (1 if quantity is None else quantity) for unit, quantity in rows) for rows in costs)
    return int(after - before)


def move(left: Sequence[Json], taken: Sequence[Json], more: int | None) -> dict[str, Any]:
    """From one plan to another: of several, the first that does not stand on both sides."""
    gone, come = ([price_of(row).get("id") for row in rows] for rows in (left, taken))
    return known(
        {
            "from_plan": next((plan for plan in gone if plan not in come), next(iter(gone), None)),
            "to_plan": next((plan for plan in come if plan not in gone), next(iter(come), None)),
            "direction": ("upgrade" if more > 0 else "downgrade") if more else None,
        }
    )


# --- subscriptions ----------------------------------------------------------------------------------------------------


def _alone(subscription: Json) -> Json:
    return {"plan": subscription.get("plan"), "quantity": subscription.get("quantity")}


def items_of(subscription: Json) -> Sequence[Json]:
    return rows(subscription.get("items")) or [_alone(subscription)]


def items_before(now: Json, before: Json) -> Sequence[Json]:
    """The items before the change. Each renewal lists them since basil, because their periods changed.

    Of a plan that changed, Stripe tells the fields that changed.
    """
    if before.get("items") or not {"plan", "quantity"} & before.keys():
        return items_of({**now, **before})
    plan = {**(now.get("plan") or {}), **(before.get("plan") or {})}
    return [_alone({**now, **before, "plan": plan})]


def contents(items: Sequence[Json]) -> list[tuple[str, int]]:
    return sorted([(price_of(item).get("id") or "", item.get("quantity") or 0) for item in items])


def is_ending(subscription: Json) -> bool:
    return bool(subscription.get("cancel_at_period_end") or subscription.get("cancel_at"))


def period(subscription: Json, edge: str) -> int:
    """`start` or `end` of the period that runs, in seconds; 0 where it is not told."""
    name = f"current_period_{edge}"
    found: int | None = subscription.get(name) or dig(subscription, ("items", "data", 0, name))
    return found or 0


def periods(subscription: Json) -> list[int]:
    """When its periods began that run now: since basil each of its items has one."""
    found = [item.get("current_period_start") for item in (subscription, *rows(subscription.get("items")))]
    return sorted({start for start in found if start})


def converted_at(subscription: Json, *, is_resumed: bool) -> list[int]:
    """When the period begins whose payment converts the trial: at its end, or where it went on after a pause."""
    end: int | None = subscription.get("trial_end")
    if not end:
        return []
    return sorted({end, period(subscription, "start") or end}) if is_resumed else [end]


def why_ended(subscription: Json) -> dict[str, Any]:
    return {name: dig(subscription, ("cancellation_details", name)) for name in ("reason", "feedback")}


def is_billed_at_once(now: Json, was: Json) -> bool:
    """Whether an invoice of its own was made for the change, which then tells it with its money."""
    is_renewed = period(now, "start") >= period(was, "end") > 0
    is_made = now.get("latest_invoice") != was.get("latest_invoice")
    return is_made and not is_renewed and now.get("status") != "trialing"
