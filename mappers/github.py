"""GitHub. https://docs.github.com/en/webhooks/webhook-events-and-payloads (read 2026-11-24).

In: purchases of an app in the Marketplace, sponsorships, installations, stars. Out: the first payment of each, at the
price of its plan, changes and ends. Later payments are told by nobody. Amounts are US dollars. Who it was is an id of
GitHub's; an e-mail address comes with Marketplace purchases only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs

from relay.contract import (
    RECEIVED,
    Api,
    Draft,
    Item,
    Notification,
    Person,
    Provider,
    SecretShape,
    conversion,
    event,
    header,
    parse_json,
)
from relay.money import from_minor
from relay.signatures import hmac_sha256

Json = Mapping[str, Any]

CURRENCY = "USD"


def _parse(body: bytes) -> Any:
    """JSON, or a form with JSON in its field `payload`."""
    if body.startswith(b"payload="):
        return parse_json(parse_qs(body.decode())["payload"][0].encode())
    return parse_json(body)


def _type(item: Item) -> str | None:
    """`star.created`; what has no action (`ping`) is the event alone."""
    kind, action = item.headers.get("x-github-event"), item.body.get("action")
    return f"{kind}.{action}" if kind and action else kind


provider = Provider(
    name="github",
    title="GitHub",
    docs="https://docs.github.com/en/webhooks/webhook-events-and-payloads",
    verifier=hmac_sha256(header="X-Hub-Signature-256", prefix="sha256="),
    parse=_parse,
    notification_id=header("X-GitHub-Delivery"),
    notification_type=_type,
    secret=SecretShape(
        meaning="What you type in at GitHub > your app, listing, dashboard or repository > Webhooks > Secret: a long "
        "random text",
        mistaken={"ghp_": "an access token", "github_pat_": "an access token"},
    ),
    # Some sponsorships say nothing of when they changed: GitHub tells them at once, and the relay notes when.
    api=Api(each_is_news=True),
    options={"stars": "An event for everybody who stars a repository."},
)
#: What is only planned, what takes something back that never counted, and twins.
IGNORED = """
installation.deleted installation.new_permissions_accepted installation.suspend installation.unsuspend
installation_repositories.added installation_repositories.removed marketplace_purchase.pending_change
marketplace_purchase.pending_change_cancelled ping sponsorship.edited sponsorship.pending_tier_change star.deleted
watch.started
"""
provider.ignores(*IGNORED.split())

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _ms(moment: object) -> int:
    """ISO 8601; older payloads of installations have Unix seconds."""
    if isinstance(moment, int):
        return moment * 1000
    at = datetime.fromisoformat(str(moment))
    return (at.replace(tzinfo=at.tzinfo or UTC) - EPOCH) // timedelta(milliseconds=1)


def _person(user: Json, email: str | None = None) -> dict[str, Any]:
    """Sites where people log in with GitHub know the id."""
    user_id = str(user["id"]) if user.get("id") else None
    return {"person": Person(email=email, customer_id=user_id), "metadata": {"github_user_id": user_id}}


# --- Marketplace ------------------------------------------------------------------------------------------------------


#: Said of money that GitHub did not tell: a first cycle may cost less than the plan does.
LISTED = {"is_list_price": True}
CYCLES = {"monthly": "month", "yearly": "year"}
#: Whether a plan is paid for by the unit, in the words of all of GitHub's interfaces.
BY_UNIT = {"per-unit": True, "flat-rate": False, "free": False}


def _price(purchase: Json) -> Decimal:
    """What a whole cycle costs."""
    plan = purchase["plan"]
    is_yearly = CYCLES[purchase["billing_cycle"]] == "year" if purchase.get("billing_cycle") else False
    cents = plan["yearly_price_in_cents" if is_yearly else "monthly_price_in_cents"]
    is_by_unit = BY_UNIT[str(plan.get("price_model")).lower().replace("_", "-")]
    units = purchase["unit_count"] if is_by_unit else 1
    return from_minor(cents * units, CURRENCY)


def _account(account: Json) -> dict[str, Any]:
    """The id of an organization; that of a user names a person, and leaves as a hash only."""
    kind = account.get("type")
    return {"account_id": str(account["id"]) if kind == "Organization" else None, "account_type": kind}


def _purchase(n: Notification) -> dict[str, Any]:
    purchase, sender = n.body["marketplace_purchase"], n.body.get("sender") or {}
    account, plan = purchase.get("account") or {}, purchase.get("plan") or {}
    cycle = purchase.get("billing_cycle")
    return {
        "once": f"{n.type}:{account['id']}:{plan.get('id')}:{purchase.get('unit_count')}:{cycle}:"
        f"{n.body['effective_date']}",
        "at_ms": _ms(n.body["effective_date"]),
        **_person(sender, sender.get("email") or account.get("organization_billing_email")),
        "properties": {
            **_account(account),
            "plan": plan.get("name"),
            "quantity": purchase.get("unit_count"),
            "billing_interval": CYCLES.get(str(cycle)),
        },
    }


@provider.on("marketplace_purchase.purchased", "marketplace_purchase.changed")
def purchased(n: Notification) -> Iterator[Draft]:
    """The first payment comes with the purchase, after the trial, or when a free plan is left."""
    purchase, before = n.body["marketplace_purchase"], n.body.get("previous_marketplace_purchase")
    about, price = _purchase(n), _price(purchase)
    money: dict[str, Any] = {"revenue": price, "currency": CURRENCY}
    if purchase.get("on_free_trial"):
        if not before or not before.get("on_free_trial"):
            yield conversion("trial_started", **about)
    elif before and before.get("on_free_trial") and price:
        about["properties"] |= LISTED
        yield conversion("trial_converted", **money, **about)
    elif price and (not before or not _price(before)):
        about["properties"] |= LISTED
        yield conversion("subscription_started", **money, **about)
    elif before:
        was = _price(before)
        about["properties"] |= {
            "from_plan": (before.get("plan") or {}).get("name"),
            "to_plan": about["properties"]["plan"],
            "direction": "upgrade" if price > was else "downgrade" if price < was else None,
        }
        yield event("plan_changed", **about)
    else:
        yield conversion("signup", **{**about, "once": f"signup:{purchase['account']['id']}"})


@provider.on("marketplace_purchase.cancelled")
def cancelled(n: Notification) -> Iterator[Draft]:
    """Told when it ends; the end of what was free is no end of a subscription."""
    about = _purchase(n)
    if _price(n.body["marketplace_purchase"]):
        about["properties"] |= {"reason": "canceled"}
        yield event("subscription_ended", **about)


@provider.on("installation.created")
def installed(n: Notification) -> Iterator[Draft]:
    """The first installation of an account; a plan that costs nothing is the same."""
    installation = n.body["installation"]
    account = installation.get("account") or {}
    yield conversion(
        "signup",
        once=f"signup:{account['id']}",
        at_ms=_ms(installation["created_at"]),
        **_person(n.body.get("sender") or account),
        properties={**_account(account), "method": "installation"},
    )


# --- sponsors ---------------------------------------------------------------------------------------------------------


def _sponsorship(n: Notification) -> dict[str, Any]:
    sponsorship = n.body["sponsorship"]
    tier = sponsorship.get("tier") or {}
    return {
        **_person(sponsorship.get("sponsor") or {}),
        "properties": {
            "subscription_id": sponsorship["node_id"],
            "plan": tier.get("name"),
            "billing_interval": None if tier.get("is_one_time") else "month",
        },
    }


def _said_ms(n: Notification) -> int:
    """GitHub does not say: then it was when it came."""
    return int(n.headers.get(RECEIVED) or 0)


@provider.on("sponsorship.created")
def sponsored(n: Notification) -> Iterator[Draft]:
    sponsorship, about = n.body["sponsorship"], _sponsorship(n)
    tier = sponsorship.get("tier") or {}
    about["properties"] |= {"order_id": sponsorship["node_id"]}
    yield conversion(
        "purchase" if tier.get("is_one_time") else "subscription_started",
        once=f"sponsorship:{sponsorship['node_id']}",
        at_ms=_ms(sponsorship["created_at"]),
        revenue=from_minor(tier["monthly_price_in_cents"], CURRENCY),
        currency=CURRENCY,
        **about,
    )


@provider.on("sponsorship.tier_changed")
def tier_changed(n: Notification) -> Iterator[Draft]:
    about, tier = _sponsorship(n), n.body["sponsorship"].get("tier") or {}
    before = ((n.body.get("changes") or {}).get("tier") or {}).get("from") or {}
    now, was = (one.get("monthly_price_in_cents") or 0 for one in (tier, before))
    about["properties"] |= {
        "from_price": from_minor(was, CURRENCY),
        "to_price": from_minor(now, CURRENCY),
        "direction": "upgrade" if now > was else "downgrade" if now < was else None,
    }
    yield event("plan_changed", once=f"tier_changed:{n.id}", at_ms=_said_ms(n), **about)


@provider.on("sponsorship.pending_cancellation")
def cancel_scheduled(n: Notification) -> Iterator[Draft]:
    """`effective_date` is when it will end."""
    once = f"cancel_scheduled:{n.body['sponsorship']['node_id']}:{n.body.get('effective_date')}"
    yield event("subscription_cancel_scheduled", once=once, at_ms=_said_ms(n), **_sponsorship(n))


@provider.on("sponsorship.cancelled")
def sponsorship_ended(n: Notification) -> Iterator[Draft]:
    about = _sponsorship(n)
    about["properties"] |= {"reason": "canceled"}
    once = f"sponsorship_ended:{n.body['sponsorship']['node_id']}"
    yield event("subscription_ended", once=once, at_ms=_said_ms(n), **about)


# --- stars ------------------------------------------------------------------------------------------------------------


@provider.on("star.created", option="stars")
def starred(n: Notification) -> Iterator[Draft]:
    """Once for each person and repository, however often the star is taken back."""
    repository, sender = n.body["repository"], n.body["sender"]
    yield event(
        "repository_starred",
        once=f"star:{repository['id']}:{sender['id']}",
        at_ms=_ms(n.body["starred_at"]),
        **_person(sender),
        properties={"repository": None if repository.get("private") else repository.get("name")},
    )
