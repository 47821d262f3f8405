"""Supabase. https://supabase.com/docs/guides/auth/auth-hooks (read 2026-11-24).

In: an auth hook (signed: Standard Webhooks), or a database webhook of the table `auth.users` (a secret in a header).
Out: sign-ups, and logins on request. A hook is part of the sign-up that it tells: Supabase waits for the answer.
Anonymous users become a sign-up when they stop being anonymous.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from relay.contract import (
    Draft,
    Item,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    conversion,
    event,
    field,
)
from relay.signatures import bearer, either, header_token, standard_webhooks

Json = Mapping[str, Any]

_hook_type, _hook_id = field("metadata.name"), field("metadata.uuid")


def _type(item: Item) -> str | None:
    """The hook's name, or `auth.users.INSERT`."""
    if "table" in item.body:
        return ".".join(str(item.body.get(part) or "") for part in ("schema", "table", "type"))
    return _hook_type(item)


provider = Provider(
    name="supabase",
    title="Supabase",
    docs="https://supabase.com/docs/guides/auth/auth-hooks",
    verifier=either(standard_webhooks(), bearer(), header_token("X-Webhook-Secret")),
    # The header `webhook-id` is another one at every attempt. Database webhooks have no id: what they say is theirs.
    notification_id=_hook_id,
    notification_type=_type,
    secret=SecretShape(
        meaning="Supabase Dashboard > Authentication > Hooks > your hook > Secret (v1,whsec_...); for a database "
        "webhook a long random text that you put into its header Authorization, after the word Bearer",
        mistaken={"eyJ": "an API key", "sb_secret_": "an API key", "sb_publishable_": "a publishable key"},
    ),
    options={"logins": "An event for every login, from updates of auth.users."},
)
#: Hooks that want more for an answer than the relay could say.
provider.ignores(
    "customize-access-token", "mfa-verification", "password-verification", "send-email", "send-sms", "auth.users.DELETE"
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: A time that Go writes where there is none.
NO_TIME = "0001-01-01"
#: What may be taken of metadata that a browser may set.
CAMPAIGN = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "gclid", "fbclid", "msclkid", "ref")


def _ms(moment: str) -> int:
    """Columns without a zone are in UTC."""
    at = datetime.fromisoformat(moment)
    return (at.replace(tzinfo=at.tzinfo or UTC) - EPOCH) // timedelta(milliseconds=1)


def _created_ms(user: Json, otherwise: str | None = None) -> int:
    created = user.get("created_at")
    return _ms(created if created and not created.startswith(NO_TIME) else otherwise or user["updated_at"])


def _app(user: Json) -> Json:
    """What the server knows of the user; a hook and the table have it under different names."""
    found: Json = user.get("app_metadata") or user.get("raw_app_meta_data") or {}
    return found


def _metadata(user: Json) -> dict[str, Any]:
    """Supabase's own id is under a key of its own, for sites that identify their users by it."""
    own = user.get("user_metadata") or user.get("raw_user_meta_data") or {}
    told = {key: own[key] for key in CAMPAIGN if key in own}
    return {**told, **_app(user), "supabase_user_id": user.get("id")}


def _person(user: Json) -> Person:
    return Person(email=user.get("email") or None, customer_id=user.get("id"))


def _learned(user: Json) -> Learned:
    return Learned(keys=(f"user:{user['id']}",), person=_person(user), metadata=_metadata(user))


def _signup(user: Json, at_ms: int) -> Draft:
    return conversion(
        "signup",
        once=f"signup:{user['id']}",
        at_ms=at_ms,
        person=_person(user),
        metadata=_metadata(user),
        properties={"provider_user_id": user["id"], "method": _app(user).get("provider")},
    )


@provider.on("before-user-created", "after-user-created")
def created_by_hook(n: Notification) -> Iterator[Draft | Learned]:
    user = n.body["user"]
    yield _learned(user)
    if not user.get("is_anonymous"):
        yield _signup(user, _created_ms(user, n.body["metadata"]["time"]))


@provider.on("auth.users.INSERT")
def inserted(n: Notification) -> Iterator[Draft | Learned]:
    user = n.body["record"]
    yield _learned(user)
    if not user.get("is_anonymous"):
        yield _signup(user, _created_ms(user))


@provider.on("auth.users.UPDATE")
def updated(n: Notification) -> Iterator[Draft | Learned]:
    """A user who is anonymous no longer, a login, or nothing that counts."""
    user, before = n.body["record"], n.body.get("old_record") or {}
    yield _learned(user)
    if before.get("is_anonymous") and not user.get("is_anonymous"):
        yield _signup(user, _ms(user["updated_at"]))
    last = user.get("last_sign_in_at")
    if last and last != before.get("last_sign_in_at"):
        yield event(
            "login",
            once=f"login:{user['id']}:{last}",
            at_ms=_ms(last),
            person=_person(user),
            metadata=_metadata(user),
            properties={"provider_user_id": user["id"], "method": _app(user).get("provider")},
            option="logins",
        )
