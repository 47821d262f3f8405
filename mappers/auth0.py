"""Auth0. https://auth0.com/docs/customize/log-streams/custom-log-streams (read 2026-11-24).

In: a log stream (entries of the tenant's log, in an array, one by one, or one a line), or an event stream (CloudEvents
about users). Out: sign-ups, and logins on request. Both streams tell the same sign-up, which counts once. Nothing is
signed: the deliveries carry a token that was typed in at Auth0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from relay.contract import (
    MIB,
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
    parse_json,
)
from relay.signatures import basic_auth, bearer, either, header_token

Json = Mapping[str, Any]


def _parse(body: bytes) -> Any:
    """One JSON text, or one in each line."""
    lines = [line.strip() for line in body.split(b"\n") if line.strip()]
    if len(lines) > 1 and all(line.startswith(b"{") and line.endswith(b"}") for line in lines):
        return [parse_json(line) for line in lines]
    return parse_json(body)


def _items(body: Any) -> Sequence[Any]:
    if isinstance(body, dict) and isinstance(body.get("logs"), list):
        body = body["logs"]
    return body if isinstance(body, list) else (body,)


_own_type, _inner_type = field("type"), field("data.type")
_log_id, _inner_id, _event_id = field("log_id"), field("data.log_id"), field("id")
_purpose = field("a0purpose")


def _type(item: Item) -> str | None:
    """The code of an entry (`ss`), or the type of a CloudEvent, which had a prefix once."""
    return (_own_type(item) or _inner_type(item) or "").removeprefix("com.auth0.")


def _id(item: Item) -> str | None:
    return _log_id(item) or _inner_id(item) or _event_id(item)


#: What was typed in to sign up, where a database of the customer's own is connected.
PASSWORD = re.compile(rb'("password"\s*:\s*)"(?:[^"\\]|\\.)*"', re.DOTALL)


def without_passwords(body: bytes) -> bytes:
    """What is kept of a delivery."""
    return PASSWORD.sub(rb'\1""', body)


provider = Provider(
    name="auth0",
    title="Auth0",
    docs="https://auth0.com/docs/customize/log-streams/custom-log-streams",
    verifier=either(header_token("Authorization"), bearer(), basic_auth()),
    redact=without_passwords,
    parse=_parse,
    items=_items,
    notification_id=_id,
    notification_type=_type,
    is_test=lambda item: _purpose(item) == "test",
    secret=SecretShape(
        meaning="What you type in at Auth0 > Monitoring > Streams > your stream > Authorization Token: a long random "
        "text"
    ),
    body_limit=4 * MIB,
    options={"logins": "An event for every login."},
)

#: Of the log: operations on the API, exchanges of tokens, e-mails, and what failed. Creating a user by the API is told
#: as a sign-up beside it.
LOG = """
acls_summary actions_execution_failed admin_update_launch api_limit api_limit_warning appi cls cs depnote du f fapi fc
fce fco fcoa fcp fcph fcpn fcpr fcpro fcu fd fdeac fdeaz fdecc fdu feacft feccft fede fens feoobft feotpft fepft
fepotpft fercft ferrt fertft fi flo flows_execution_completed flows_execution_failed fn fp fpar fpurh fs fsa fu fui fv
fvr gd_auth_failed gd_auth_rejected gd_auth_succeed gd_enrollment_complete gd_otp_rate_limit_exceed gd_recovery_failed
gd_recovery_rate_limit_exceed gd_recovery_succeed gd_send_email gd_send_pn gd_send_sms gd_start_auth gd_start_enroll
gd_unenroll gd_update_device_account limit_delegation limit_mu limit_sul limit_wc mfar mgmt_api_read pla pwd_leak
reset_pwd_leak resource_cleanup sapi sce scoa scp scpn scpr scu sd sdu seacft seccft sede sens seoobft seotpft sepft
sercft sertft si signup_pwd_leak slo srrt ss_sso_failure ss_sso_success ssa sui sv svr ublkdu w
"""
provider.ignores(*LOG.split())
#: Of the event streams.
EVENTS = """
connection.created connection.deleted connection.updated group.created group.deleted group.member.added
group.member.deleted group.role.assigned group.role.deleted group.updated organization.connection.added
organization.connection.removed organization.connection.updated organization.created organization.deleted
organization.group.role.assigned organization.group.role.deleted organization.member.added
organization.member.deleted organization.member.role.assigned organization.member.role.deleted organization.updated
user.deleted
"""
provider.ignores(*EVENTS.split())

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: What may be taken of metadata that a browser may set.
CAMPAIGN = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "gclid", "fbclid", "msclkid", "ref")


def _ms(moment: str) -> int:
    return (datetime.fromisoformat(moment) - EPOCH) // timedelta(milliseconds=1)


def _own_id(user_id: object) -> str | None:
    """The id of a user of Auth0's own: any other holds the person's id at Google, Apple or another provider."""
    return str(user_id) if str(user_id).startswith("auth0|") else None


def _told(metadata: object) -> dict[str, Any]:
    return {key: metadata[key] for key in CAMPAIGN if key in metadata} if isinstance(metadata, dict) else {}


# --- the log ----------------------------------------------------------------------------------------------------------


def _log(n: Notification) -> Json:
    """The entry, alone or with its id around it."""
    entry: Json = n.body["data"] if isinstance(n.body.get("data"), dict) else n.body
    return entry


def _request(log: Json) -> Json:
    """What was sent to sign up: name, address, password."""
    found = (log.get("details") or {}).get("body")
    return found if isinstance(found, dict) else {}


def _about(log: Json) -> dict[str, Any]:
    request, name, user_id = _request(log), str(log.get("user_name") or ""), log.get("user_id")
    email = request.get("email") or (name if "@" in name else None)
    return {
        "at_ms": _ms(log["date"]),
        "person": Person(email=email, customer_id=user_id),
        "metadata": {**_told(request.get("user_metadata")), "auth0_user_id": user_id},
        "properties": {
            "provider_user_id": _own_id(user_id),
            "connection": log.get("connection"),
            "method": log.get("strategy"),
            "application_id": log.get("client_id"),
        },
    }


@provider.on("ss")
def signed_up(n: Notification) -> Iterator[Draft | Learned]:
    log = _log(n)
    about, user_id = _about(log), log.get("user_id")
    if user_id:
        yield Learned(keys=(f"user:{user_id}",), person=about["person"], metadata=about["metadata"])
    yield conversion("signup", once=f"signup:{user_id}" if user_id else f"log:{n.id}", **about)


@provider.on("s", option="logins")
def logged_in(n: Notification) -> Iterator[Draft]:
    log = _log(n)
    joins = (f"user:{log['user_id']}",) if log.get("user_id") else ()
    yield event("login", once=f"log:{n.id}", joins=joins, **_about(log))


# --- event streams ----------------------------------------------------------------------------------------------------


def _learned(user: Json) -> Learned:
    user_id = user["user_id"]
    metadata = {**_told(user.get("user_metadata")), **(user.get("app_metadata") or {}), "auth0_user_id": user_id}
    person = Person(email=user.get("email"), customer_id=user_id)
    return Learned(keys=(f"user:{user_id}",), person=person, metadata=metadata)


@provider.on("user.created")
def user_created(n: Notification) -> Iterator[Draft | Learned]:
    user = n.body["data"]["object"]
    learned = _learned(user)
    identity: Json = next(iter(user.get("identities") or ()), {})
    yield learned
    yield conversion(
        "signup",
        once=f"signup:{user['user_id']}",
        at_ms=_ms(user.get("created_at") or n.body["time"]),
        person=learned.person,
        metadata=learned.metadata,
        properties={
            "provider_user_id": _own_id(user["user_id"]),
            "connection": identity.get("connection"),
            "method": identity.get("provider"),
        },
    )


@provider.on("user.updated")
def user_updated(n: Notification) -> Iterator[Learned]:
    yield _learned(n.body["data"]["object"])
