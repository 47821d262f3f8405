"""A provider that `relay.toml` declares: from a source's tables to a value like those of `mappers/`.

In: the table of one source. Out: a `Provider` whose readers and mappers evaluate the table's expressions, or the
complaints about it, each with its path. What an expression does not find, where it is needed, parks the notification
with the path and the expression; nothing else can go wrong at run time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from relay.contract import (
    Draft,
    Item,
    Learned,
    Notification,
    Provider,
    Reader,
    SecretShape,
    composed,
    digest_of,
    parse_json,
)
from relay.declarations import (
    KEYS,
    STANDARD_WEBHOOKS,
    Declaration,
    EventTable,
    LearnedTable,
    NotificationTable,
    VerifyTable,
)
from relay.declared_handshakes import Greeted, challenge_of, greeting_of
from relay.declared_mappers import Say, is_code, is_currency, saying
from relay.declared_verifiers import faults, verifier_of
from relay.expressions import Expression, is_true, kind_of
from relay.signatures import form_of
from relay.tables import Complaints, NameOf, Table, meant, sentences

#: Where to look it up: the sender's own page is not ours to know.
_DOCS = "https://jmespath.org/specification.html"
#: Headers that the relay never keeps, whoever sends them.
CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key"})
_A_HEADER = re.compile(r"(?:^|\{)\s*header:([^{}\s]+)")


def declares(table: Table) -> bool:
    """Whether the table of a source brings its own provider."""
    return table.get("provider") == STANDARD_WEBHOOKS or not KEYS.isdisjoint(table)


def provider_name(slug: str) -> str:
    """The name of the provider that the source of this slug declares."""
    return slug.replace("-", "_")


def without_declaration(slug: str, table: Table) -> Table:
    """The table of a source that declares its provider, as that of one that names it."""
    rest = {key: value for key, value in table.items() if key not in KEYS}
    return {**rest, "provider": provider_name(slug)}


def declare(slug: str, table: Table, *, name_of: NameOf, complaints: Complaints) -> Provider | None:
    """The provider of this source; None where it cannot be made, and then every problem is told."""
    problems = complaints.problems
    before, named = len(problems), table.get("provider")
    is_standard = named == STANDARD_WEBHOOKS
    if named is not None and not is_standard:
        given = ", ".join(sorted(KEYS & set(table)))
        problems.append(
            f"{name_of('provider')}: {named!r} has a signature and a mapping of its own, and this source says {given} "
            f"as well.{meant(str(named), [STANDARD_WEBHOOKS])} Remove provider to declare your own, or the others."
        )
    try:
        declaration = Declaration.model_validate({key: value for key, value in table.items() if key in KEYS})
    except ValidationError as error:
        problems.extend(sentences(error, Declaration, name_of))
        return None
    verify = declaration.verify or (VerifyTable(scheme="standard_webhooks") if is_standard else None)
    notification = _with_defaults(declaration.notification, verify)
    problems.extend(_misfits(declaration, verify, notification, name_of))
    if is_standard and verify is not None and verify.scheme != "standard_webhooks":
        problems.append(
            f"{name_of('verify.scheme')} is not what provider = {STANDARD_WEBHOOKS!r} says. Remove one of the two."
        )
    if verify is None or notification is None or len(problems) > before:
        return None
    return _provider(slug, declaration, verify, notification, name_of)


def _with_defaults(given: NotificationTable | None, verify: VerifyTable | None) -> NotificationTable | None:
    """With what Standard Webhooks lay down, where that is how the source signs."""
    if verify is None or verify.scheme != "standard_webhooks":
        return given
    known = given or NotificationTable()
    return known.model_copy(update={"type": known.type or "type", "time": known.time or "timestamp"})


# --- what does not fit together ---------------------------------------------------------------------------------------


def _misfits(
    declaration: Declaration, verify: VerifyTable | None, notification: NotificationTable | None, name_of: NameOf
) -> Iterator[str]:
    if verify is None:
        yield f"{name_of('verify')} is missing. Say in a table how a delivery proves where it comes from."
    else:
        yield from (f"{name_of(f'verify.{key}')} {words}" for key, words in faults(verify))
    if notification is None:
        yield f"{name_of('notification')} is missing. Say in a table what a delivery consists of: at least its type."
    elif notification.type is None:
        yield f"{name_of('notification.type')} is missing. Give an expression; for one and the same: \"'order'\"."
    if notification is not None and notification.shared and notification.items is None:
        yield f"{name_of('notification.shared')} has no effect without items. Set items, or remove it."
    handshake = declaration.handshake
    if handshake and (handshake.when is None) is not (handshake.answer is None):
        yield f"{name_of('handshake')} needs both when and answer, to tell a handshake and to answer it. Set the other."
    yield from _unkept_headers(declaration, verify, name_of)
    ignored = set(notification.ignore) if notification else set()
    has_time = notification is not None and notification.time is not None
    for number, event in enumerate(declaration.events):
        path = f"events[{number}]"
        yield from (f"{name_of(f'{path}.{key}')} {words}" for key, words in _misfits_of_event(event, has_time=has_time))
        for kind in sorted(ignored & set(event.types)):
            yield f"{name_of(f'{path}.types')} has {kind!r}, which notification.ignore leaves out. Remove one of them."


def _unkept_headers(declaration: Declaration, verify: VerifyTable | None, name_of: NameOf) -> Iterator[str]:
    """Expressions that read a header which is gone by then, because it is or may be a secret."""
    own = set() if verify is None or list(faults(verify)) else set(verifier_of(verify).credentials)
    for path, text in _texts("", declaration.model_dump(include={"notification", "events", "learned"})):
        for name in _A_HEADER.findall(text):
            if name.lower() in own | CREDENTIALS:
                yield f"{name_of(path)} reads the header {name}, which may be a secret and is never kept. Remove it."


def _texts(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """All texts of a table, with their paths."""
    match value:
        case str():
            yield path, value
        case dict():
            for key, inner in value.items():
                yield from _texts(f"{path}.{key}" if path else str(key), inner)
        case list():
            for number, inner in enumerate(value):
                yield from _texts(f"{path}[{number}]", inner)
        case _:
            return


def _misfits_of_event(event: EventTable, *, has_time: bool) -> Iterator[tuple[str, str]]:
    has_money, currency = event.revenue is not None, event.currency or ""
    yield from _misfits_of_name(event)
    checks = [
        (
            event.time is None and not has_time,
            "time",
            "is missing, and notification.time too. Give an expression, or arrival.",
        ),
        (has_money and event.unit is None, "unit", "is missing. Say of revenue: minor (1999 cents) or major (19.99)."),
        (has_money and not currency, "currency", "is missing. Give an expression, or a code in capitals such as EUR."),
        (
            is_code(currency) and not is_currency(currency),
            "currency",
            f"is {currency!r}, which is not an ISO 4217 currency. Correct it.",
        ),
        ((event.waits or event.waits_for) and not event.joins, "joins", "is missing. Say what the event waits for."),
    ]
    yield from ((key, words) for is_wrong, key, words in checks if is_wrong)
    for key in ("unit", "currency", "tax"):
        if not has_money and getattr(event, key) is not None:
            yield key, "has no effect without revenue. Set revenue, or remove it."


def _misfits_of_name(event: EventTable) -> Iterator[tuple[str, str]]:
    given = [key for key in ("name", "name_from") if getattr(event, key) is not None]
    if event.event_type == "identify":
        useless = [*given, *(["revenue"] if event.revenue is not None else [])]
        yield from ((key, "has no effect where event_type is identify. Remove it.") for key in useless)
    elif len(given) != 1:
        yield "name", "must be set, such as purchase, or name_from: one of the two."


# --- the provider -----------------------------------------------------------------------------------------------------


def _provider(
    slug: str, declaration: Declaration, verify: VerifyTable, notification: NotificationTable, name_of: NameOf
) -> Provider:
    def reader(key: str, text: str) -> Reader:
        return Expression(text, name_of(f"notification.{key}")).text_of

    provider = Provider(
        name=provider_name(slug),
        title=slug.replace("-", " ").title(),
        docs=_DOCS,
        verifier=verifier_of(verify),
        notification_type=reader("type", notification.type or ""),
        notification_id=_id_reader(notification, verify, reader),
        secret=SecretShape(meaning=f"The sender's signing secret, for the source {slug} that relay.toml declares."),
        parse={"json": parse_json, "json_lines": _lines, "form": form_of}[notification.format],
        items=_items(notification, verify, name_of),
    )
    if notification.account:
        provider.account = reader("account", notification.account)
    if notification.test:
        test = Expression(notification.test, name_of("notification.test"))
        provider.is_test = lambda item: is_true(test.value(item))
    if declaration.handshake:
        provider.handshake = greeting_of(declaration.handshake, name_of)
        provider.challenge = challenge_of(declaration.handshake)
        if declaration.handshake.when:
            provider.verifier = Greeted(provider.verifier, provider.handshake)
    for kind, sayings in _sayings(declaration, notification, name_of).items():
        provider.on(kind)(_mapper(sayings))
    provider.ignores(*dict.fromkeys(notification.ignore))
    return provider


def _sayings(declaration: Declaration, notification: NotificationTable, name_of: NameOf) -> dict[str, list[Say]]:
    """By type, what is said of its notifications: facts first."""
    tables: list[tuple[str, EventTable | LearnedTable]] = [
        *((f"learned[{number}]", fact) for number, fact in enumerate(declaration.learned)),
        *((f"events[{number}]", event) for number, event in enumerate(declaration.events)),
    ]
    found: dict[str, list[Say]] = {}
    for path, table in tables:
        say = saying(table, notification, _below(name_of, path))
        for kind in dict.fromkeys(table.types):
            found.setdefault(kind, []).append(say)
    return found


def _below(name_of: NameOf, path: str) -> NameOf:
    return lambda key: name_of(f"{path}.{key}")


def _mapper(sayings: Sequence[Say]) -> Callable[[Notification], Iterable[Draft | Learned]]:
    return lambda notification: [thing for say in sayings if (thing := say(notification)) is not None]


def _id_reader(
    notification: NotificationTable, verify: VerifyTable, reader: Callable[[str, str], Reader]
) -> Reader | None:
    if notification.id:
        own = composed(*(reader("id", text) for text in notification.id))
    elif verify.scheme == "standard_webhooks":
        own = _standard_id
    else:
        return None
    if not (_is_of_delivery(notification, verify) and _has_several(notification)):
        return own
    return lambda item: f"{found}:{digest_of(item.body)}" if (found := own(item)) else None


def _standard_id(item: Item) -> str | None:
    return item.headers.get("webhook-id") or item.headers.get("svix-id")


def _is_of_delivery(notification: NotificationTable, verify: VerifyTable) -> bool:
    """Whether the id is the same for all items of a delivery."""
    if not notification.id:
        return verify.scheme == "standard_webhooks"
    return all(text.startswith("header:") for text in notification.id)


def _has_several(notification: NotificationTable) -> bool:
    return notification.items is not None or notification.format == "json_lines"


def _lines(body: bytes) -> Any:
    return [parse_json(line) for line in body.splitlines() if line.strip()]


def _items(notification: NotificationTable, verify: VerifyTable, name_of: NameOf) -> Callable[[Any], Sequence[Any]]:
    if _is_of_delivery(notification, verify) and not _has_several(notification):
        return lambda body: (body,)
    if notification.items is None:
        return lambda body: body if isinstance(body, list) else (body,)
    expression = Expression(notification.items, name_of("notification.items"))
    shared = Expression(notification.shared, name_of("notification.shared")) if notification.shared else None

    def split(body: Any) -> Sequence[Any]:
        whole = Item(body, {})
        found = expression.required(expression.value(whole))
        items = found if isinstance(found, list) else (found,)
        beside = None if shared is None else shared.value(whole)
        if shared is None or beside is None:
            return items
        if not isinstance(beside, dict):
            shared.fail(f"finds {kind_of(beside)}, which is no object")
        return [{**beside, **item} if isinstance(item, dict) else item for item in items]

    return split
