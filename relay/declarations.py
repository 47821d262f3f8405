"""What `relay.toml` may say of a sender that the relay has never heard of: the tables of a declared source.

`[sources.<slug>.verify]` says who may send, `[sources.<slug>.handshake]` what it asks before that,
`[sources.<slug>.notification]` what a delivery consists of, `[[sources.<slug>.events]]` and
`[[sources.<slug>.learned]]` what it means. Only the form of each value is checked here;
`relay.declared` makes a provider of them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from relay.event import MAX_NAME
from relay.expressions import Expression, Key, check_time_format
from relay.keys import Encoding, KeyForm
from relay.moments import Unit
from relay.places import Template, reading

#: `provider = "standard_webhooks"`: the signature, the id, the type and the time are known, only the meaning is not.
STANDARD_WEBHOOKS = "standard_webhooks"
#: `time = "arrival"`: for a sender that does not say when it happened.
ARRIVAL = "arrival"


def _expression(text: str) -> str:
    Expression(text)
    return text


def _key(text: str) -> str:
    Key(text)
    return text


def _place(text: str) -> str:
    reading(text)
    return text


def _time_place(text: str) -> str:
    return text if text == "signature" else _place(text)


def _template(text: str) -> str:
    Template(text)
    return text


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _joined(value: object) -> object:
    return "".join(value) if isinstance(value, list) and all(isinstance(part, str) for part in value) else value


Expr = Annotated[str, AfterValidator(_expression)]
Exprs = Annotated[list[Expr], BeforeValidator(_listed), Field(min_length=1)]
Keys = Annotated[list[Annotated[str, AfterValidator(_key)]], BeforeValidator(_listed)]
Types = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_listed)]
Place = Annotated[str, AfterValidator(_place)]
Places = Annotated[list[Place], BeforeValidator(_listed), Field(min_length=1)]
TimePlace = Annotated[str, AfterValidator(_time_place)]
Message = Annotated[str, BeforeValidator(_joined), AfterValidator(_template)]
TimeFormat = Annotated[str, AfterValidator(check_time_format)]

Scheme = Literal["signature", "standard_webhooks", "basic", "bearer", "token"]
Algorithm = Literal["sha256", "sha1", "sha512", "ecdsa-p256", "ed25519", "rsa-sha256"]
Form = Literal["plain", "pairs", "list", "versions"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VerifyTable(_Table):
    """`[sources.<slug>.verify]`: how a delivery proves where it comes from."""

    scheme: Scheme = Field(
        "signature",
        description="signature (the keys below); standard_webhooks (Standard Webhooks and Svix); or the secret itself: "
        "basic (user:password), bearer, token.",
    )
    signature: Places | None = Field(
        None,
        description="Where the signature stands: header:X-Signature, query:, form: or json: with a dotted path. A list "
        "of places: one that fits is enough.",
    )
    algorithm: Algorithm = Field(
        "sha256", description="HMAC with sha256, sha1 or sha512; or a public key: ecdsa-p256, ed25519, rsa-sha256."
    )
    encoding: Encoding | None = Field(
        None,
        description="How the signature is written: hex, HEX, base64, base64url. Unset: hex, for a public key base64.",
    )
    form: Form = Field(
        "plain",
        description="plain: the signature alone. pairs: t=TIME,v1=SIGNATURE. list: TIME,SIGNATURE. versions: "
        "v1,SIGNATURE.",
    )
    prefix: str = Field("", description="What stands before the signature (form plain), such as sha256=.")
    separator: str = Field(
        "", description="What parts several signatures (form plain), or the pairs (form pairs; unset: a comma)."
    )
    time_key: str = Field("t", min_length=1, description="The key of the time in pairs.")
    signature_key: str = Field(
        "v1", min_length=1, description="The key of the signature in pairs, or the version in versions."
    )
    message: Message = Field(
        "{body}",
        description="What is signed, in order: {body}, {timestamp}, {method}, {url}, {url:path}, {form}, "
        "{header:NAME}, {query:NAME}, {form:NAME}, {json:PATH} and what stands between. Unset: {body}, with a "
        "timestamp {timestamp}.{body}.",
    )
    timestamp: TimePlace | None = Field(
        None, description="Where the signed time stands: a place, or signature for the signature's own header."
    )
    timestamp_format: Unit = Field(
        "seconds", description="seconds, milliseconds, seconds_or_milliseconds, iso8601 or rfc1123."
    )
    tolerance_s: int = Field(300, ge=1, description="How far the signed time may lie from now, in seconds, both ways.")
    enforce_time: bool = Field(
        default=True, description="false: the time is signed, and any will do (retries repeat it)."
    )
    key: KeyForm | None = Field(
        None,
        description="What the key is of the secret: text (its bytes), hex, base64 (decoded). Standard Webhooks: "
        "standard (base64 behind whsec_), standard_text, standard_or_text.",
    )
    key_prefix: str = Field("", description="A beginning of the secret that is no part of the key.")
    token: Place | None = Field(
        None, description="Where the secret stands (schemes token and bearer): header:X-Token, query:, form:, json:."
    )
    unsigned_body: bool = Field(default=False, description="true: I know that the body is not among what is signed.")


class NotificationTable(_Table):
    """`[sources.<slug>.notification]`: what a delivery consists of."""

    format: Literal["json", "json_lines", "form"] = Field(
        "json", description="json, json_lines (one item a line), or form (a form's fields as one object)."
    )
    items: Expr | None = Field(
        None, description="The list of items in the body. Unset: the whole body; a list is one item for each."
    )
    shared: Expr | None = Field(
        None,
        description="With items: an object of what the body says for all of them, such as {currency: currency}. Each "
        "item has it beside its own fields.",
    )
    id: Exprs | None = Field(
        None, description="The sender's id of the notification; several are joined. Unset: a digest of the item."
    )
    type: Expr | None = Field(None, description="What the notification is about, as in the types of the events.")
    ignore: Types = Field([], description="Types that are known and left out on purpose.")
    test: Expr | None = Field(None, description="True for what comes of the sender's test mode.")
    account: Expr | None = Field(None, description="The account within the source, where one sends for several.")
    time: Expr | None = Field(
        None, description="When it happened, for events that do not say it themselves. The word arrival: when it came."
    )
    time_format: TimeFormat = Field(
        "iso8601",
        description="iso8601, seconds, milliseconds, seconds_or_milliseconds, rfc1123, or a pattern (%d/%m/%Y). A time "
        "without a zone is UTC.",
    )


class HandshakeTable(_Table):
    """`[sources.<slug>.handshake]`: what the sender wants to hear before it sends anything."""

    query: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="A parameter of a GET whose value is echoed, such as hub.challenge."
    )
    when: Expr | None = Field(None, description="Where this is true, the POST is a handshake and no webhook.")
    answer: Expr | None = Field(
        None, description="What is echoed then: a value of its body, or an object such as {challenge: challenge}."
    )


class _ForTypes(_Table):
    types: Types = Field(min_length=1, description="The types that it is for.")
    when: Expr | None = Field(None, description="Only where this is true.")
    email: Expr | None = Field(None, description="The person's e-mail address; only a hash of it leaves.")
    external_id: Expr | None = Field(None, description="The id that your site gave the person.")
    customer_id: Expr | None = Field(None, description="The sender's id of the person.")
    metadata: Expr | None = Field(
        None, description="An object with what you told the sender: utm_source, user_id and their like."
    )


class EventTable(_ForTypes):
    """`[[sources.<slug>.events]]`: one event that notifications of these types become."""

    event_type: Literal["conversion", "event", "identify"] = Field(
        "conversion", description="conversion, event or identify."
    )
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=MAX_NAME)] | None = Field(
        None, description="The event's name, in snake_case, such as purchase."
    )
    name_from: Expr | None = Field(
        None, description="An expression for the name instead; what it finds is put into snake_case."
    )
    once: Keys = Field(
        min_length=1,
        description="The keys of the business fact, such as order:{order.id}: whatever has one of them counts once.",
    )
    time: Expr | None = Field(None, description="When it happened. Unset: the time of the notification.")
    time_format: TimeFormat | None = Field(None, description="Unset: the time_format of the notification.")
    revenue: Expr | None = Field(None, description="What was paid, tax included; negative for money given back.")
    unit: Literal["minor", "major"] | None = Field(
        None, description="Of revenue and tax: minor (1999 cents) or major (19.99)."
    )
    currency: Expr | None = Field(None, description="An expression, or an ISO 4217 code in capitals (EUR) for all.")
    tax: Expr | None = Field(None, description="The part of the revenue that is tax.")
    url: Expr | None = Field(None, description="The page where it happened.")
    properties: dict[Annotated[str, Field(min_length=1)], Expr] = Field(
        {}, description="By name of a property, its expression; what is not there is left out."
    )
    joins: Keys = Field(
        [], description="Keys of what may know the person better, such as customer:{customer.id}; see learned."
    )
    waits: bool = Field(
        default=False, description="true: wait for the first of joins, at most join_wait_s of the source."
    )
    waits_for: Keys = Field([], description="Others of joins to wait for as well.")


class LearnedTable(_ForTypes):
    """`[[sources.<slug>.learned]]`: what notifications of these types teach about the joins of events."""

    keys: Keys = Field(min_length=1, description="The keys that get to know it, such as customer:{customer.id}.")
    marks: Types = Field([], description="Words that the keys are marked with.")
    same: bool = Field(default=False, description="true: the keys are names of one thing.")


class Declaration(_Table):
    """A source's own provider."""

    verify: VerifyTable | None = Field(None, description="A table: how a delivery proves where it comes from.")
    notification: NotificationTable | None = Field(None, description="A table: what a delivery consists of.")
    handshake: HandshakeTable | None = Field(None, description="A table: what the sender wants to hear first.")
    events: list[EventTable] = Field(min_length=1, description="At least one table [[sources.<slug>.events]].")
    learned: list[LearnedTable] = Field([], description="Tables [[sources.<slug>.learned]].")


KEYS = frozenset(Declaration.model_fields)
