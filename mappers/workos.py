"""WorkOS. https://workos.com/docs/events (read 2026-11-24).

In: one event of AuthKit's users, with the user as it stands. Out: sign-ups, and people on the waitlist; logins on
request. Users of a customer's directory are provisioned by their company, and are no sign-ups.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from relay.contract import (
    Draft,
    Learned,
    Notification,
    Person,
    Provider,
    SecretShape,
    conversion,
    event,
    field,
)
from relay.signatures import timestamped_pairs

Json = Mapping[str, Any]

provider = Provider(
    name="workos",
    title="WorkOS",
    docs="https://workos.com/docs/events/data-syncing/webhooks",
    verifier=timestamped_pairs(header="WorkOS-Signature", separator=", ", unit="milliseconds", tolerance_s=180),
    notification_id=field("id"),
    notification_type=field("event"),
    secret=SecretShape(
        meaning="WorkOS Dashboard > Developers > Webhooks > your endpoint > Signing secret",
        mistaken={"sk_": "an API key", "client_": "a client id"},
    ),
    options={"logins": "An event for every login."},
)

#: How one logs in, told as it succeeds.
LOGINS = {
    "authentication.magic_auth_succeeded": "magic_auth",
    "authentication.oauth_succeeded": "oauth",
    "authentication.passkey_succeeded": "passkey",
    "authentication.password_succeeded": "password",
    "authentication.sso_succeeded": "sso",
}
#: What is about organizations, directories and keys; what failed; second steps and twins of a login.
IGNORED = """
api_key.created api_key.revoked api_key.updated authentication.email_verification_failed
authentication.email_verification_succeeded authentication.magic_auth_failed authentication.mfa_failed
authentication.mfa_succeeded authentication.oauth_failed authentication.passkey_failed authentication.password_failed
authentication.radar_risk_detected authentication.sso_failed connection.activated connection.deactivated
connection.deleted connection.saml_certificate_renewal_required connection.saml_certificate_renewed dsync.activated
dsync.deleted dsync.group.created dsync.group.deleted dsync.group.updated dsync.group.user_added
dsync.group.user_removed dsync.user.created dsync.user.deleted dsync.user.updated email_verification.created
flag.created flag.deleted flag.rule_updated flag.updated group.created group.deleted group.member_added
group.member_removed group.updated invitation.accepted invitation.created invitation.resent invitation.revoked
magic_auth.created organization.created organization.deleted organization.updated organization_domain.created
organization_domain.deleted organization_domain.updated organization_domain.verification_failed
organization_domain.verified organization_membership.created organization_membership.deleted
organization_membership.updated organization_role.created organization_role.deleted organization_role.updated
password_reset.created password_reset.succeeded permission.created permission.deleted permission.updated
role.created role.deleted role.updated session.created session.revoked user.deleted
"""
provider.ignores(*IGNORED.split())

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _ms(moment: str) -> int:
    return (datetime.fromisoformat(moment) - EPOCH) // timedelta(milliseconds=1)


def _at_ms(n: Notification) -> int:
    """When the thing itself came to be; the event is made a little later."""
    return _ms(n.body["data"].get("created_at") or n.body["created_at"])


def _person(user: Json) -> Person:
    return Person(email=user.get("email"), external_id=user.get("external_id") or None, customer_id=user.get("id"))


def _metadata(user: Json) -> dict[str, Any]:
    """WorkOS's own id is under a key of its own, for sites that identify their users by it."""
    return {**(user.get("metadata") or {}), "workos_user_id": user.get("id")}


def _learned(user: Json) -> Learned:
    return Learned(keys=(f"user:{user['id']}",), person=_person(user), metadata=_metadata(user))


@provider.on("user.created")
def user_created(n: Notification) -> Iterator[Draft | Learned]:
    user = n.body["data"]
    yield _learned(user)
    yield conversion(
        "signup",
        once=f"signup:{user['id']}",
        at_ms=_at_ms(n),
        person=_person(user),
        metadata=_metadata(user),
        properties={"provider_user_id": user["id"]},
    )


@provider.on("user.updated")
def user_updated(n: Notification) -> Iterator[Learned]:
    yield _learned(n.body["data"])


@provider.on("waitlist_user.created")
def waitlisted(n: Notification) -> Iterator[Draft]:
    entry = n.body["data"]
    yield conversion(
        "lead_created",
        once=f"waitlist:{entry['id']}",
        at_ms=_at_ms(n),
        person=Person(email=entry.get("email")),
        properties={"lead_source": "waitlist"},
    )


@provider.on(*LOGINS, option="logins")
def logged_in(n: Notification) -> Iterator[Draft]:
    """A login by single sign-on may have no user of WorkOS behind it."""
    login = n.body["data"]
    user_id = login.get("user_id")
    yield event(
        "login",
        once=f"event:{n.id}",
        at_ms=_ms(n.body["created_at"]),
        person=Person(email=login.get("email"), customer_id=user_id),
        metadata={"workos_user_id": user_id},
        joins=(f"user:{user_id}",) if user_id else (),
        properties={"provider_user_id": user_id, "method": LOGINS[n.type]},
    )
