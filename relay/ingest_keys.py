"""The keys with which backends post events: how one is made, and which project one opens.

In: configured keys, and the store's, of which only hashes are kept. Out: the project that a token opens, or None. What
the store says is looked up anew every second, and at once for a token that is not known: a key works from the moment
when it is made, and a revoked one for a second at most.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from relay.store.base import Store
from relay.store.intake import IngestKey

#: What a token opens that is bound to no project.
ANY = "*"
#: The beginning of a token that the relay made: callers of the events API know `oa_`.
PREFIX = "oa_relay_"
_FRESH_S = 1.0
_OF_PROJECT = re.compile(r"([\w.~-]+):(.+)")


def hash_of(token: str) -> str:
    """What is kept of a token. Tokens are long and random, so that nothing slower is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def new_key(project: str, *, name: str, made_at_ms: int, expires_at_ms: int | None) -> tuple[str, IngestKey]:
    """The token, which is shown once, and what is kept of it."""
    token = PREFIX + secrets.token_urlsafe(32)
    hashed = hash_of(token)
    key = IngestKey(
        id=f"key_{hashed[:10]}", project=project, name=name, hash=hashed, made_at_ms=made_at_ms,
        expires_at_ms=expires_at_ms,
    )  # fmt: skip
    return token, key


def projects_of(words: Iterable[str], projects: Iterable[str]) -> dict[str, frozenset[str]]:
    """By hash, what configured keys open: `PROJECT:KEY` one project, `KEY` any."""
    known = frozenset(projects)
    found: dict[str, frozenset[str]] = {}
    for word in words:
        match = _OF_PROJECT.fullmatch(word)
        opened, token = (match[1], match[2]) if match and match[1] in known else (ANY, word)
        found[hash_of(token)] = found.get(hash_of(token), frozenset()) | {opened}
    return found


@dataclass(slots=True)
class Doors:
    """Says what a token opens."""

    configured: Mapping[str, frozenset[str]]
    store: Store
    clock: Callable[[], int]
    _stored: Mapping[str, IngestKey] = field(default_factory=dict)
    _looked_at_s: float = float("-inf")
    _looking: asyncio.Task[None] | None = None

    async def opens(self, token: str, project: str) -> bool | None:
        """Whether it opens this project; None where it opens nothing. Raises `StoreUnavailableError`."""
        hashed = hash_of(token)
        opened = self.configured.get(hashed)
        if opened is not None:
            return ANY in opened or project in opened
        if hashed not in self._stored or time.monotonic() - self._looked_at_s > _FRESH_S:
            await self._look()
        key = self._stored.get(hashed)
        if key is None or not key.opens(self.clock()):
            return None
        return key.project in (project, ANY)

    async def _look(self) -> None:
        """Ask the store; all who ask meanwhile share the next look, which begins after they asked."""
        if self._looking is not None:
            await asyncio.wait([self._looking])
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_now())
        await self._looking

    async def _look_now(self) -> None:
        began_s = time.monotonic()
        self._stored = {key.hash: key for key in await self.store.intake.keys()}
        self._looked_at_s = began_s
