"""Sealing: from a draft to the event that goes out.

In: what a mapper yielded, its notification and the source's policy. Out: a `Sealed` event with its payload, whose
person is a hash, whose fields passed the guard and whose id is the same for ever; or `Withheld`, with what the guard
found. `learn` does the same for entities. Pure; raises `UnmappableError` where no valid event could be made.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal

from pydantic import ValidationError

from relay import guard
from relay.amounts import Amounts, amounts_of
from relay.contract import Draft, Forgotten, Learned, Notification, Person, Scalar, UnmappableError, Variant
from relay.event import MAX_PROPERTIES, MAX_URL, URL_PATTERN, Event, problems_of, to_json
from relay.guard import REDACTED, Finding
from relay.identity import METADATA_KEYS, NOBODY_RANK, RULES, Identity, IdentityPolicy, Rule, resolve

#: The metadata keys that tell where a person came from: they always go out.
ATTRIBUTION = (
    "utm_source",
    "utm_medium",
    "utm_campaign",
    "utm_term",
    "utm_content",
    "gclid",
    "fbclid",
    "msclkid",
    "ref",
)
#: Where an entity's attribution keeps the landing URL.
URL = "url"
#: The longest text of a property, in characters; what is longer is cut.
LONGEST_TEXT = 500
#: What the guard reads of a text: more than goes out, so that it sees in one piece what the cut would divide.
_LONGEST_READ = 4 * LONGEST_TEXT
_IS_URL = re.compile(URL_PATTERN)
#: Before a key among `Entity.names`.
FOLLOWER = ">"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePolicy:
    """What a source's settings say about its events."""

    #: The source's slug.
    source: str
    #: Its provider's name.
    provider: str
    #: The rules that tell who it was, best first.
    identity: tuple[Rule, ...] = RULES
    #: The metadata keys that may hold the site's own id, first come.
    identity_keys: tuple[str, ...] = METADATA_KEYS
    hash_key: bytes | None = field(default=None, repr=False)
    external_ids: Literal["hash", "pass"] = "hash"
    #: Metadata keys that go out beside those of attribution.
    metadata_keys: frozenset[str] = frozenset()
    guard: guard.Mode = "redact"
    #: Refunds as events with an amount, or as conversions with negative revenue.
    refunds: Literal["event", "conversion"] = "event"
    #: Revenue with its tax, or without.
    revenue: Literal["gross", "net"] = "gross"
    #: The metadata key that may hold the landing URL.
    url_key: str | None = None
    #: What amounts are in that come without a currency, in capitals; None: nobody says.
    currency: str | None = None

    #: Worked out once, for the hot path.
    allowed: tuple[str, ...] = field(init=False, repr=False)
    identity_policy: IdentityPolicy = field(init=False, repr=False)

    def __post_init__(self) -> None:
        allowed = (*ATTRIBUTION, *sorted(self.metadata_keys - {*ATTRIBUTION, self.url_key}))
        policy = IdentityPolicy(
            provider=self.provider,
            order=self.identity,
            metadata_keys=self.identity_keys,
            hash_key=self.hash_key,
            external_ids=self.external_ids,
        )
        object.__setattr__(self, "allowed", allowed)
        object.__setattr__(self, "identity_policy", policy)


@dataclass(frozen=True, slots=True)
class Adjusted:
    """What of a draft could not go out as it was, for another reason than personal data."""

    field: str
    kind: Literal["too_many_properties", "not_a_url"]


@dataclass(slots=True, kw_only=True, unsafe_hash=True)
class Sealed:
    """An event that may go out, and what is needed to complete it while it waits. Keys are those within the source."""

    #: The same for the same business fact, for ever.
    event_id: str
    #: The keys of the business fact.
    once: tuple[str, ...]
    event: Event
    #: The event as the API gets it, byte for byte.
    payload: bytes
    identity: Identity
    #: The keys of the entities that may know more, best first.
    joins: tuple[str, ...] = ()
    #: Until these are known.
    waits_for: tuple[str, ...] = ()
    #: Marks of a joined entity that make this a duplicate of what is told elsewhere.
    unless: tuple[str, ...] = ()
    variants: Mapping[str, Variant] = field(default_factory=dict)
    findings: tuple[Finding | Adjusted, ...] = ()


@dataclass(frozen=True, slots=True)
class Withheld:
    """The guard found personal data, and the source's policy is to reject."""

    #: A sentence for people; it names places and kinds, no values.
    reason: str
    findings: tuple[Finding, ...]


@dataclass(slots=True, kw_only=True, unsafe_hash=True)
class Entity:
    """What is known behind ids of the provider. No personal data: the person is a hash, the attribution was guarded."""

    #: The keys within the source.
    keys: tuple[str, ...]
    user_id: str | None
    rank: int
    #: Allow-listed metadata, and under `url` the landing URL.
    attribution: Mapping[str, str]
    marks: frozenset[str] = frozenset()
    #: The keys that name the same thing: whoever learns of one of them learns of all. Behind `FOLLOWER` stands the key
    #: of another thing, which gets to know what this one knows and tells it nothing.
    names: frozenset[str] = frozenset()
    #: The keys of what these follow. It is not kept here: what is followed names its followers.
    like: tuple[str, ...] = ()
    #: What was learned of the keys is to go.
    is_forgotten: bool = False

    def merged(self, later: Entity) -> Entity:
        """With what was learned later: a person by a rule as good or better, attribution that was lacking, marks."""
        better = later if later.user_id is not None and later.rank <= self.rank else self
        return replace(
            self,
            user_id=better.user_id,
            rank=better.rank,
            attribution={**later.attribution, **self.attribution},
            marks=self.marks | later.marks,
            names=self.names | later.names,
        )


def event_id_of(source: str, account: str, once: str) -> str:
    """The id of an event, from the first once key. Lengths keep apart what would read the same when put together."""
    said = f"{len(source)}:{source}{len(account)}:{account}{once}"
    return "evt_" + hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def within(account: str, key: str) -> str:
    """A key within the source: those of a connected account begin with it."""
    return f"{account}/{key}" if account else key


def _all_within(account: str, keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple([within(account, key) for key in keys]) if account else keys


def _variants_within(account: str, variants: Mapping[str, Variant]) -> Mapping[str, Variant]:
    if not variants or not account:
        return variants
    return {mark: replace(to, once=within(account, to.once)) for mark, to in variants.items()}


class Who:
    """Who a person is, and where from: looked up once, though a mapper says it with each thing that it yields."""

    __slots__ = ("_account", "_asked", "_policy", "attribution", "identity", "is_looked_over", "metadata")

    def __init__(self, notification: Notification, policy: SourcePolicy) -> None:
        self._account = notification.account
        self._policy = policy
        self._asked: tuple[Person, object] | None = None

    def look(self, person: Person, metadata: object) -> None:
        """Set `identity`, `metadata` and `attribution` to those of this person."""
        if self._asked is not None and self._asked[0] is person and self._asked[1] is metadata:
            return
        self.metadata = _mapping(metadata)
        self.identity = resolve(person, self.metadata, self._policy.identity_policy, account=self._account)
        self.attribution = _attribution(self.metadata, self._policy)
        self._asked = (person, metadata)
        #: The guard found nothing in the attribution.
        self.is_looked_over = False


def seal(draft: Draft, notification: Notification, policy: SourcePolicy, who: Who | None = None) -> Sealed | Withheld:
    """The event of a draft. Raises `UnmappableError` with the fields that are wrong where it would be invalid.

    `who` may be shared by all that one notification tells.
    """
    if not draft.once or not draft.at_ms:
        msg = "a draft needs a once key and a time"
        raise UnmappableError(msg)
    who = who or Who(notification, policy)
    who.look(draft.person, draft.metadata)
    account, metadata, identity = notification.account, who.metadata, who.identity
    event_id = event_id_of(policy.source, account, draft.once[0])
    amounts = amounts_of(draft, refunds=policy.refunds, revenue=policy.revenue, home=policy.currency)
    name, user_id = draft.name, identity.user_id
    given, is_long = _given(draft, amounts, notification)
    attribution = {key: text for key, text in who.attribution.items() if key not in given}
    if not who.is_looked_over:
        given |= attribution
    url, findings = _landing(draft.url, metadata, policy)

    cleaned = guard.examine(event_name=name, user_id=user_id, url=url, properties=given, hash_key=policy.hash_key)
    if cleaned is not None:
        if policy.guard == "reject":
            return Withheld(_sentence(cleaned.findings), cleaned.findings)
        name, user_id, url, given = cleaned.event_name or name, cleaned.user_id, cleaned.url, cleaned.properties
        identity = Identity(user_id, identity.rank, identity.by)
        findings += cleaned.findings
    if who.is_looked_over:
        given = {**given, **attribution}
    if is_long or any(len(text) > LONGEST_TEXT for text in attribution.values()):
        given = {key: text[:LONGEST_TEXT] if isinstance(text, str) else text for key, text in given.items()}

    own = _own(policy, event_id, notification, identity)
    properties = {**own, **given, **own}
    if len(properties) > MAX_PROPERTIES:
        findings += tuple(
            Adjusted(f"properties.{key}", "too_many_properties") for key in [*properties][MAX_PROPERTIES:]
        )
        properties = dict(islice(properties.items(), MAX_PROPERTIES))
    try:
        event = Event(
            event_type=amounts.event_type,
            event_name=name,
            user_id=user_id,
            url=url,
            properties=properties,
            revenue=amounts.revenue,
            currency=amounts.currency,
            timestamp=draft.at_ms,
        )
    except ValidationError as error:
        msg = "the event would be invalid: " + "; ".join(map(str, problems_of(error)))
        raise UnmappableError(msg) from None
    return Sealed(
        event_id=event_id,
        once=_all_within(account, draft.once),
        event=event,
        payload=to_json(event),
        identity=identity,
        joins=_all_within(account, draft.joins),
        waits_for=_all_within(account, (*draft.joins[:1], *draft.waits_for)) if draft.waits else (),
        unless=draft.unless,
        variants=_variants_within(account, draft.variants),
        findings=findings,
    )


def learn(learned: Learned, notification: Notification, policy: SourcePolicy, who: Who | None = None) -> Entity:
    """What may be kept of a fact: hashes, and attribution that the guard found nothing in. `who`: as for `seal`."""
    who = who or Who(notification, policy)
    who.look(learned.person, learned.metadata)
    account, metadata, identity, attribution = notification.account, who.metadata, who.identity, who.attribution
    user_id = identity.user_id
    url = _landing(None, metadata, policy)[0] if policy.url_key else None
    if attribution or url or policy.external_ids == "pass":
        cleaned = guard.examine(
            event_name=None, user_id=user_id, url=url, properties=attribution, hash_key=policy.hash_key
        )
        who.is_looked_over = cleaned is None
        if cleaned is not None:
            user_id, url = cleaned.user_id, cleaned.url
            attribution = {key: str(text) for key, text in cleaned.properties.items() if text != REDACTED}
        attribution = {key: text[:LONGEST_TEXT] for key, text in attribution.items()}
    keys = _all_within(account, learned.keys)
    return Entity(
        keys=keys,
        user_id=user_id,
        rank=identity.rank,
        attribution=attribution | {URL: url} if url else attribution,
        marks=frozenset(learned.marks),
        names=frozenset(keys) if learned.same else frozenset(),
        like=_all_within(account, learned.like),
    )


def forget(forgotten: Forgotten, notification: Notification) -> Entity:
    """What says that nobody may be known behind these keys any more."""
    keys = _all_within(notification.account, forgotten.keys)
    return Entity(keys=keys, user_id=None, rank=NOBODY_RANK, attribution={}, is_forgotten=True)


# --- the parts of an event --------------------------------------------------------------------------------------------


def _own(policy: SourcePolicy, event_id: str, notification: Notification, identity: Identity) -> dict[str, Scalar]:
    """What the relay itself says of an event: nothing that a provider sends takes its place."""
    own: dict[str, Scalar] = {"provider": policy.provider, "source": policy.source, "event_id": event_id}
    if notification.is_test:
        own["livemode"] = False
    if identity.is_fallback and identity.user_id is not None:
        own["identity"] = identity.by
    return own


def _given(draft: Draft, amounts: Amounts, notification: Notification) -> tuple[dict[str, Scalar], bool]:
    """What goes before attribution, in the order of precedence, and whether a text in it must be cut."""
    given: dict[str, Scalar] = {"provider_event": _readable(notification.type)} if notification.type else {}
    given |= amounts.properties
    longest = 0
    for key, value in _mapping(draft.properties).items():
        if value is None or key in given:
            continue
        if isinstance(value, str):
            given[key] = text = _readable(value)
            longest = max(longest, len(text))
        else:
            given[key] = value
    return given, longest > LONGEST_TEXT


def _attribution(metadata: Mapping[str, Any], policy: SourcePolicy) -> dict[str, str]:
    if not metadata:
        return {}
    found = {key: metadata[key] for key in policy.allowed if key in metadata}
    return {key: _readable(text) for key, value in found.items() if (text := _as_text(value))}


def _as_text(value: object) -> str:
    match value:
        case str():
            return value.strip()
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case _:
            return ""


def _readable(text: str) -> str:
    """Without the lone surrogates that JSON can carry and UTF-8 cannot."""
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= _LONGEST_READ else text[:_LONGEST_READ]


def _landing(
    url: str | None, metadata: Mapping[str, Any], policy: SourcePolicy
) -> tuple[str | None, tuple[Finding | Adjusted, ...]]:
    """The first that is a URL; a long one without its query and fragment."""
    candidates = [url, metadata.get(policy.url_key)] if policy.url_key else [url]
    texts = [text for candidate in candidates if (text := _as_text(candidate))]
    for text in texts:
        short = text if len(text) <= MAX_URL else re.split("[?#]", text, maxsplit=1)[0]
        if len(short) <= MAX_URL and short.isprintable() and _IS_URL.fullmatch(short):
            return short, ()
    return None, (Adjusted(URL, "not_a_url"),) if texts else ()


def _mapping(value: object) -> Mapping[str, Any]:
    """Metadata as it should be: some providers send null or an empty list for none."""
    return value if isinstance(value, (dict, Mapping)) else {}


def _sentence(findings: tuple[Finding, ...]) -> str:
    return "the guard found " + ", ".join(f"{finding.kind} in {finding.field}" for finding in findings)
