"""A store that very much came to, made in bulk: for what must stay fast however much there is.

`fill` writes what a month of six sources would leave behind: sales and what is left out, duplicates, dead letters,
events that wait, types that are seen once a month, and one user with thousands of events.
"""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import psycopg

from relay.contract import Provider
from relay.ids import first_at
from relay.store import is_shared, sqlite_path
from relay.store.bodies import pack, pack_all
from relay.store.schema import metadata
from relay.vault import Vault
from tests.things import DAY

#: A month.
SPAN_MS = 30 * DAY
USERS = 50_000
#: So many of the newest have their bodies.
WITH_BODY = 20_000
_BUNDLE = 50
_PIECE = 20_000
_CURRENCIES = ("EUR", "USD", "GBP", "JPY", "BRL", "SEK")
_REASONS = (
    "422: user_id is longer than 255 characters",
    "422: currency is not an ISO 4217 code",
    "422: timestamp is older than the project allows",
    "400: the event is not valid JSON",
    "older than RELAY_GIVE_UP_AFTER_DAYS",
)
_ERRORS = ("KeyError: 'amount_total'", "KeyError: 'customer'", "ValueError: no currency is called 'XXX'")


@dataclass(frozen=True, slots=True)
class Crowd:
    """Names of some that are in it."""

    notification: str
    order: str
    event_id: str
    user: str
    #: A user with very many events.
    heavy_user: str
    #: A delivery with a body, one with an event that was refused, and one that told again what was told.
    delivery: int
    dead: int
    duplicate: int
    rare_source: str
    rare_type: str


def fill(
    url: str, providers: Mapping[str, Provider], *, deliveries: int, now_ms: int, vault: Vault, destination: str
) -> Crowd:
    """Write them into a store that is migrated and empty. They end a minute before `now_ms`."""
    crowd = _Crowd(providers, deliveries, now_ms - 60_000, vault, destination)
    with _inserting(url) as insert:
        while not crowd.is_done:
            for table, rows in crowd.piece().items():
                insert(table, rows)
    return crowd.named()


Insert = Callable[[str, Sequence[tuple[Any, ...]]], None]


@contextlib.contextmanager
def _inserting(url: str) -> Iterator[Insert]:
    if is_shared(url):
        with psycopg.connect(url) as database:

            def copy(table: str, rows: Sequence[tuple[Any, ...]]) -> None:
                with database.cursor() as cursor, cursor.copy(f"COPY {table} ({_columns(table)}) FROM STDIN") as sink:
                    for row in rows:
                        sink.write_row(row)

            yield copy
        with psycopg.connect(url, autocommit=True) as database:
            database.execute("ANALYZE")
        return
    with contextlib.closing(sqlite3.connect(sqlite_path(url))) as file:
        file.execute("PRAGMA synchronous = OFF")
        file.execute("PRAGMA cache_size = -400000")

        def insert(table: str, rows: Sequence[tuple[Any, ...]]) -> None:
            marks = ",".join("?" * len(_COLUMNS[table]))
            file.executemany(f"INSERT INTO {table} ({_columns(table)}) VALUES ({marks})", rows)

        yield insert
        file.commit()


_COLUMNS = {
    "deliveries": ("id", "source", "secret", "size", "bundle"),
    "bundles": ("id", "content"),
    "notifications": ("id", "delivery", "source", "notification_id", "type", "outcome", "error", "repeats"),
    "keys": ("source", "key", "ref"),
    "events": (
        "id", "notification", "source", "destination", "event_id", "name", "state", "pieces", "due_at_ms",
        "batch", "doubts", "settled_at_ms", "reason",
    ),
    "payloads": ("id", "payload"),
    "duplicates": ("id", "notification", "source", "name", "key", "event"),
    "batches": (
        "id", "destination", "state", "idempotency_key", "events", "size", "oldest", "attempts", "due_at_ms", "doubts",
        "words",
    ),
    "audit": ("id", "actor", "action", "subject", "details", "address"),
}  # fmt: skip
assert all(set(columns) <= set(metadata.tables[table].c.keys()) for table, columns in _COLUMNS.items())


def _columns(table: str) -> str:
    return ", ".join(_COLUMNS[table])


def _pieces(event_id: str, order: str, payload: bytes) -> bytes:
    """What completing a waiting event needs, as `relay.joining` keeps it."""
    said = {"event_id": event_id, "once": [f"payment:{order}"], "payload": payload.decode(), "identity": [None, 0, ""],
            "joins": [f"customer:{order}"], "waits_for": [f"customer:{order}"], "unless": [], "variants": [],
            "findings": []}  # fmt: skip
    return json.dumps(said).encode()


class _Crowd:
    """Makes the rows, piece by piece, the same ones at each run."""

    def __init__(
        self, providers: Mapping[str, Provider], n: int, until_ms: int, vault: Vault, destination: str
    ) -> None:
        self._n = n
        self._i = 0
        self._since_ms = until_ms - SPAN_MS
        self._vault = vault
        self._destination = destination
        self._random = random.Random(42)
        self._kinds = [
            (name, kind, kind in provider.mappers)
            for name, provider in sorted(providers.items())
            for kind in sorted({*provider.mappers, *provider.ignored})
        ]
        self._random.shuffle(self._kinds)
        self._weights = [(4 if kind[2] else 1) / (place + 1) for place, kind in enumerate(self._kinds)]
        self._rare = self._kinds[-1][:2]
        self._last_event = 0
        self._bundled: list[tuple[int, bytes]] = []
        self._names: dict[str, Any] = {}

    @property
    def is_done(self) -> bool:
        return self._i >= self._n

    def piece(self) -> dict[str, list[tuple[Any, ...]]]:
        """Rows of all tables of some deliveries."""
        rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in _COLUMNS}
        upto = min(self._n, self._i + _PIECE)
        for kind in self._random.choices(self._kinds, self._weights, k=upto - self._i):
            self._one(rows, *kind)
            self._i += 1
        if self.is_done:
            self._bundle(rows)
            self._batch(rows)
        return rows

    def _one(self, rows: dict[str, list[tuple[Any, ...]]], source: str, kind: str, is_mapped: bool) -> None:  # noqa: FBT001
        if self._i == 0:  # once, and longest ago
            (source, kind), is_mapped = self._rare, True
        first = first_at(self._since_ms + self._i * SPAN_MS // self._n)
        notification_id, drawn = f"ntf_{self._i:08x}", self._random.random()
        outcome, error = ("mapped" if is_mapped else "ignored"), None
        if drawn < 0.003:
            outcome, error = "failed", f"Traceback (most recent call last):\n  ...\n{_ERRORS[self._i % 3]}"
        elif drawn < 0.008:
            outcome, kind = "not_mapped", f"{source}.new.{self._i % 7}"
        elif drawn < 0.03:
            outcome = "test"
        bundle = self._body(rows, first, notification_id)
        rows["deliveries"].append((first, source, self._i % 2, 1500, bundle))
        rows["notifications"].append(
            (first + 1, first, source, notification_id, kind, outcome, error, int(drawn > 0.98))
        )
        rows["keys"].append((source, f"n:{notification_id}", first + 1))
        if outcome == "mapped":
            self._event(rows, first, source, notification_id)
        if self._i % 1000 == 0:
            rows["audit"].append((first + 4, "mara", "revealed", str(first), "{}", "10.0.0.1"))

    def _event(self, rows: dict[str, list[tuple[Any, ...]]], first: int, source: str, notification_id: str) -> None:
        drawn, order = self._random.random(), f"order_{self._i:08x}"
        if drawn < 0.05 and self._last_event:
            rows["duplicates"].append((first + 3, first + 1, source, "purchase", f"payment:{order}", self._last_event))
            self._names["duplicate"] = first
            return
        event_id, state, reason, doubts = f"evt_{sha256(order.encode()).hexdigest()[:24]}", "sent", None, 0
        if drawn > 0.995:
            state, reason = "dead", _REASONS[self._i % len(_REASONS)]
            self._names["dead"] = first
        elif drawn > 0.994:
            state = "waiting"
        elif drawn > 0.993 and self._i > self._n * 0.9:
            state = "pending"
        elif drawn > 0.990:
            doubts = 1
        user = f"{sha256(str(self._i % USERS if self._i % 200 else -1).encode()).hexdigest()}"
        amount = f"{self._random.randrange(100, 50_000) / 100:.2f}"
        payload = json.dumps({
            "event_type": "conversion", "event_name": "purchase", "user_id": user, "revenue": float(amount),
            "currency": _CURRENCIES[self._i % 6], "timestamp": first >> 21,
            "properties": {"event_id": event_id, "order_id": order, "source": source, "plan": "yearly"},
        }, separators=(",", ":")).encode()  # fmt: skip
        done = state in {"sent", "dead"}
        pieces = _pieces(event_id, order, payload) if state == "waiting" else None
        rows["events"].append((
            first + 2, first + 1, source, self._destination, event_id, "purchase", state, pieces,
            None if done else (first >> 21) + 400 * DAY, None, doubts, (first >> 21) + 900 if done else None, reason,
        ))  # fmt: skip
        rows["payloads"].append((first + 2, payload))
        rows["keys"].append((source, f"f:payment:{order}", first + 2))
        self._last_event = first + 2
        if self._i < self._n * 0.6:
            self._names |= {"notification": notification_id, "order": order, "event_id": event_id, "user": user}

    def _batch(self, rows: dict[str, list[tuple[Any, ...]]]) -> None:
        """One that is in doubt, of the events that would be sent next."""
        place = {name: index for index, name in enumerate(_COLUMNS["events"])}
        listed = [row for row in rows["events"] if row[place["state"]] == "pending"][:20]
        if not listed:
            return
        batch = self._last_event + 1
        rows["batches"] = [(
            batch, self._destination, "held", "oaa-held", json.dumps([row[0] for row in listed]), len(listed),
            listed[0][0], 3, (batch >> 21), 1, "the answer never came",
        )]  # fmt: skip
        for row in listed:
            changed = list(row)
            changed[place["state"]], changed[place["batch"]], changed[place["doubts"]] = "batched", batch, 1
            rows["events"][rows["events"].index(row)] = tuple(changed)

    def _body(self, rows: dict[str, list[tuple[Any, ...]]], first: int, notification_id: str) -> int | None:
        if self._i < self._n - WITH_BODY:
            return None
        if len(self._bundled) == _BUNDLE:
            self._bundle(rows)
        body = {"id": notification_id, "object": "event", "customer": {"name": "Jane Doe"}, "lines": [self._i] * 200}
        headers = {"content-type": "application/json", "user-agent": "Provider/1.0"}
        self._bundled.append((first, pack(headers, json.dumps(body).encode())))
        self._names["delivery"] = first
        return self._bundled[0][0]

    def _bundle(self, rows: dict[str, list[tuple[Any, ...]]]) -> None:
        if self._bundled:
            row = self._bundled[0][0]
            rows["bundles"].append((row, self._vault.seal(pack_all(self._bundled), row=row)))
            self._bundled = []

    def named(self) -> Crowd:
        """What a test may ask for."""
        return Crowd(
            heavy_user=sha256(b"-1").hexdigest(), rare_source=self._rare[0], rare_type=self._rare[1], **self._names
        )
