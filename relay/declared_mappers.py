"""What a declared source makes of a notification: events and learned facts, by the expressions of its tables.

In: `[[sources.<slug>.events]]` and `[[sources.<slug>.learned]]`, their form checked. Out: functions from a notification
to a draft, to something learned, or to nothing. They raise `UnmappableError` and nothing else, with the path of the
expression that did not find what it must.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from relay.contract import Draft, EventType, Learned, Notification, Person, Scalar, UnmappableError
from relay.declarations import ARRIVAL, EventTable, LearnedTable, NotificationTable
from relay.expressions import Expression, Key, NameOf, Told, is_true, kind_of, moment
from relay.money import exponent, from_major, from_minor

Say = Callable[[Notification], Draft | Learned | None]

_CODE = re.compile(r"[A-Z]{3}")
_NO_NAME = re.compile(r"[^a-z0-9]+")


def saying(table: EventTable | LearnedTable, notification: NotificationTable, name_of: NameOf) -> Say:
    """The function of one table. `notification` has the time for events that do not say it themselves."""
    if isinstance(table, EventTable):
        return _event(table, notification, name_of).draft
    return _fact(table, name_of).learned


def is_code(text: str) -> bool:
    """Whether this is meant as a currency itself, and not as an expression that finds one."""
    return _CODE.fullmatch(text) is not None


def is_currency(code: str) -> bool:
    """Whether ISO 4217 has it, in any case."""
    try:
        exponent(code)
    except UnmappableError:
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Who:
    """What events and facts have in common: for which notifications they are, and who it was."""

    when: Expression | None
    email: Expression | None
    external_id: Expression | None
    customer_id: Expression | None
    metadata: Expression | None

    def is_meant(self, told: Told) -> bool:
        return self.when is None or is_true(self.when.value(told))

    def person(self, told: Told) -> Person:
        return Person(
            email=_text(self.email, told),
            external_id=_text(self.external_id, told),
            customer_id=_text(self.customer_id, told),
        )

    def known(self, told: Told) -> Mapping[str, Any]:
        if self.metadata is None or (found := self.metadata.value(told)) is None:
            return {}
        return found if isinstance(found, dict) else self.metadata.fail(f"finds {kind_of(found)}, which is no object")


def _who(table: EventTable | LearnedTable, name_of: NameOf) -> _Who:
    return _Who(
        when=_made(table.when, name_of("when")),
        email=_made(table.email, name_of("email")),
        external_id=_made(table.external_id, name_of("external_id")),
        customer_id=_made(table.customer_id, name_of("customer_id")),
        metadata=_made(table.metadata, name_of("metadata")),
    )


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Event:
    """`[[events]]`, ready to be evaluated."""

    who: _Who
    event_type: EventType
    name: str | Expression
    once: tuple[Key, ...]
    #: None: the time of arrival.
    time: Expression | None
    time_format: str
    revenue: Expression | None
    is_minor: bool
    currency: str | Expression
    tax: Expression | None
    url: Expression | None
    properties: Mapping[str, Expression]
    joins: tuple[Key, ...]
    waits: bool
    waits_for: tuple[Key, ...]

    def draft(self, told: Notification) -> Draft | None:
        if not self.who.is_meant(told):
            return None
        currency = revenue = tax = None
        if self.revenue is not None:
            currency = self._currency(told)
            revenue = self._amount(self.revenue, currency, self.revenue.required(self.revenue.value(told)))
            if self.tax is not None and (found := self.tax.value(told)) is not None:
                tax = self._amount(self.tax, currency, found)
        joins = _found(self.joins, told)
        return Draft(
            event_type=self.event_type,
            name=self._name(told),
            once=_once(self.once, told),
            at_ms=self._at_ms(told),
            person=self.who.person(told),
            revenue=revenue,
            currency=currency,
            tax=tax,
            url=_text(self.url, told),
            properties={key: _scalar(expression, told) for key, expression in self.properties.items()},
            metadata=self.who.known(told),
            joins=joins,
            waits=self.waits and bool(joins),
            waits_for=_found(self.waits_for, told),
        )

    def _name(self, told: Told) -> str:
        if isinstance(self.name, str):
            return self.name
        found = str(self.name.required(self.name.text_of(told)))
        name = _NO_NAME.sub("_", found.lower()).strip("_")
        return name if name[:1].isalpha() else self.name.fail("finds no text that an event could be called by")

    def _at_ms(self, told: Told) -> int:
        if self.time is None:
            return 0
        found = self.time.required(self.time.value(told))
        try:
            return moment(found, self.time_format)
        except (ValueError, OverflowError, OSError, TypeError):
            self.time.fail(f"finds {kind_of(found)} that is no time in {self.time_format}")

    def _currency(self, told: Told) -> str:
        if isinstance(self.currency, str):
            return self.currency
        found = str(self.currency.required(self.currency.text_of(told)))
        return found if is_currency(found) else self.currency.fail("finds no ISO 4217 currency")

    def _amount(self, expression: Expression, currency: str, found: Any) -> Decimal:
        try:
            if not self.is_minor:
                return from_major(found)
            return from_minor(int(found) if isinstance(found, float) and found.is_integer() else found, currency)
        except UnmappableError:
            expression.fail(
                f"finds {kind_of(found)} that is no amount in {'minor' if self.is_minor else 'major'} units"
            )


def _event(table: EventTable, notification: NotificationTable, name_of: NameOf) -> _Event:
    name, currency, time = table.name, table.currency or "", table.time or notification.time or ""
    if table.event_type == "identify":
        name = "identify"
    return _Event(
        who=_who(table, name_of),
        event_type=table.event_type,
        name=name or Expression(table.name_from or "", name_of("name_from")),
        once=_keys(table.once, name_of("once")),
        time=None if time == ARRIVAL else Expression(time, name_of("time")),
        time_format=table.time_format or notification.time_format,
        revenue=_made(table.revenue, name_of("revenue")),
        is_minor=table.unit == "minor",
        currency=currency if is_code(currency) or not currency else Expression(currency, name_of("currency")),
        tax=_made(table.tax, name_of("tax")),
        url=_made(table.url, name_of("url")),
        properties={key: Expression(text, name_of(f"properties.{key}")) for key, text in table.properties.items()},
        joins=_keys(table.joins, name_of("joins")),
        waits=table.waits,
        waits_for=_keys(table.waits_for, name_of("waits_for")),
    )


# --- facts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fact:
    """`[[learned]]`, ready to be evaluated."""

    who: _Who
    keys: tuple[Key, ...]
    marks: tuple[str, ...]
    same: bool

    def learned(self, told: Notification) -> Learned | None:
        if not self.who.is_meant(told) or not (keys := _found(self.keys, told)):
            return None
        return Learned(
            keys=keys, person=self.who.person(told), metadata=self.who.known(told), marks=self.marks, same=self.same
        )


def _fact(table: LearnedTable, name_of: NameOf) -> _Fact:
    keys = _keys(table.keys, name_of("keys"))
    return _Fact(who=_who(table, name_of), keys=keys, marks=tuple(table.marks), same=table.same)


# --- their values -----------------------------------------------------------------------------------------------------


def _made(text: str | None, place: str) -> Expression | None:
    return None if text is None else Expression(text, place)


def _keys(texts: Sequence[str], place: str) -> tuple[Key, ...]:
    return tuple(Key(text, place) for text in texts)


def _found(keys: Sequence[Key], told: Told) -> tuple[str, ...]:
    return tuple(found for key in keys if (found := key.of(told)) is not None)


def _once(keys: Sequence[Key], told: Told) -> tuple[str, ...]:
    found = _found(keys, told)
    if not found:
        msg = f"{keys[0].place}: `{', '.join(key.text for key in keys)}` finds nothing"
        raise UnmappableError(msg)
    return found


def _text(expression: Expression | None, told: Told) -> str | None:
    return None if expression is None else expression.text_of(told)


def _scalar(expression: Expression, told: Told) -> Scalar | None:
    found = expression.value(told)
    if isinstance(found, (list, dict)):
        expression.fail(f"finds {kind_of(found)} where a text, a number, true or false is needed")
    scalar: Scalar | None = found
    return scalar
