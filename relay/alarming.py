"""Alarms are kept and told: in the store (whence the metrics have them), in the log, and as messages.

An alarm is told once it has held for two looks, again after some hours while it lasts, and when it is over. Several go
in one message, and few messages go in an hour, to the chat or the pager at `RELAY_ALARM_URL`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import httpx
import orjson
import structlog

from relay.alarms import ALARM, GAP, Alarm, Kind, gaps, look
from relay.sources import Source
from relay.store.base import Bookmark, Store, StoreUnavailableError

log = structlog.get_logger("relay.alarming")

_LOOK_S = 60.0
_GAPS_EVERY_MS = 600_000
#: Over only after so many looks without it.
_LOOKS_WITHOUT = 3
_MOST_MESSAGES, _HOUR_MS = 12, 3_600_000
_DAY_MS = 24 * _HOUR_MS
_PATIENCE_S = 10.0
_LEASE_MS = 150_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """Where messages go."""

    url: str = field(repr=False)
    #: `slack`: {"text": ...}, as Slack, Mattermost, Discord (/slack) and Google Chat take it; `json`: the alarms too.
    form: Literal["slack", "json"] = "slack"
    #: An alarm that lasts is told again after so long.
    repeat_ms: int = _DAY_MS


@dataclass(slots=True)
class _State:
    alarm: Alarm
    since_ms: int
    told_ms: int | None = None
    looks: int = 0
    without: int = 0

    def position(self) -> str:
        """As it stands in the store."""
        alarm = self.alarm
        return orjson.dumps({
            "severity": alarm.severity, "words": alarm.words, "remedy": alarm.remedy, "since_ms": self.since_ms,
            "told_ms": self.told_ms,
        }).decode()  # fmt: skip


class Alarming:
    """`run` looks every minute until it is cancelled; `tick` looks once. Of several replicas one does."""

    def __init__(
        self,
        *,
        store: Store,
        sources: Mapping[str, Source],
        destinations: Sequence[str],
        clock: Callable[[], int],
        trouble: Callable[[], str | None],
        owner: str,
        recipient: Recipient | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._store = store
        self._sources = sources
        self._destinations = destinations
        self._clock = clock
        self._trouble = trouble
        self._owner = owner
        self._recipient = recipient
        self._http = http
        self._states: dict[str, _State] | None = None
        self._sent: deque[int] = deque()
        self._gaps_due_ms = 0

    async def run(self) -> None:
        """For ever. Trouble is logged, and the next look tries again."""
        while True:
            try:
                await self.tick()
            except StoreUnavailableError as error:
                log.warning("the store is unavailable", error=str(error))
            except Exception:
                log.exception("looking for alarms stumbled; it goes on")
            await asyncio.sleep(_LOOK_S)

    async def tick(self) -> list[Alarm]:
        """Look, keep what holds, tell what is news. Returns what holds."""
        now_ms = self._clock()
        if not await self._store.lead("leads:alarming", owner=self._owner, lease_ms=_LEASE_MS):
            self._states = None
            return []
        if self._states is None:
            self._states = _restored(await self._store.bookmarks(ALARM))
        if now_ms >= self._gaps_due_ms:
            self._gaps_due_ms = now_ms + _GAPS_EVERY_MS
            await self._keep_gaps(now_ms)
        found = await look(
            self._store, sources=self._sources, destinations=self._destinations, now_ms=now_ms,
            trouble=self._trouble(),
        )  # fmt: skip
        over = await self._note(self._states, found, now_ms)
        await self._tell(self._states, over, now_ms)
        return found

    async def _keep_gaps(self, now_ms: int) -> None:
        found, kept = await gaps(self._store, now_ms=now_ms), await self._store.bookmarks(GAP)
        for source in {*found, *(name.removeprefix(GAP) for name in kept)}:
            new, old = found.get(source), kept.get(GAP + source)
            if new is not None and (old is None or old.position != str(new)):  # who is silent keeps what was usual
                await self._store.set_bookmark(GAP + source, str(new))

    async def _note(self, states: dict[str, _State], found: Sequence[Alarm], now_ms: int) -> list[_State]:
        """Bring the states up to date. Returns those that are over."""
        holding = {alarm.name for alarm in found}
        for alarm in found:
            state = states.get(alarm.name)
            if state is None:
                state = states[alarm.name] = _State(alarm, since_ms=now_ms)
                await self._store.set_bookmark(ALARM + alarm.name, state.position())
                log.warning("an alarm", alarm=alarm.kind.value, subject=alarm.subject, words=alarm.words,
                            remedy=alarm.remedy)  # fmt: skip
            state.alarm = alarm
            state.looks += 1
            state.without = 0
        over = []
        for name, state in list(states.items()):
            if name in holding:
                continue
            state.without += 1
            if state.without >= _LOOKS_WITHOUT or state.told_ms is None:
                over.append(states.pop(name))
                await self._store.set_bookmark(ALARM + name, None)
                log.info("an alarm is over", alarm=state.alarm.kind.value, subject=state.alarm.subject)
        return [state for state in over if state.told_ms is not None]

    async def _tell(self, states: Mapping[str, _State], over: Sequence[_State], now_ms: int) -> None:
        if self._recipient is None:
            return
        repeat_ms = self._recipient.repeat_ms
        news = [
            state
            for state in states.values()
            if not state.without
            and (state.looks > 1 or state.alarm.kind is Kind.SHADOW)
            and (state.told_ms is None or now_ms - state.told_ms >= repeat_ms)
        ]
        while self._sent and now_ms - self._sent[0] >= _HOUR_MS:
            self._sent.popleft()
        if not (news or over) or len(self._sent) >= _MOST_MESSAGES:
            return
        self._sent.append(now_ms)
        if not await self._post(self._recipient, _message(self._recipient.form, news, over)):
            return
        for state in news:
            state.told_ms = now_ms
            await self._store.set_bookmark(ALARM + state.alarm.name, state.position())

    async def _post(self, recipient: Recipient, message: bytes) -> bool:
        headers = {"content-type": "application/json"}
        try:
            if self._http is not None:
                answer = await self._http.post(recipient.url, content=message, headers=headers)
            else:
                async with httpx.AsyncClient(timeout=_PATIENCE_S) as http:
                    answer = await http.post(recipient.url, content=message, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            log.warning("an alarm could not be told; it is tried again", error=type(error).__name__)
            return False
        if not answer.is_success:
            log.warning("an alarm could not be told; it is tried again", status=answer.status_code)
        return answer.is_success


def _restored(marks: Mapping[str, Bookmark]) -> dict[str, _State]:
    """What held when the relay ended, so that a restart tells nothing twice."""
    found = {}
    for name, mark in marks.items():
        kind, _, subject = name.removeprefix(ALARM).partition(":")
        told = orjson.loads(mark.position)
        alarm = Alarm(kind=Kind(kind), subject=subject, words=told["words"], remedy=told["remedy"],
                      severity=told["severity"])  # fmt: skip
        found[alarm.name] = _State(alarm, since_ms=told["since_ms"], told_ms=told["told_ms"], looks=1)
    return found


def _message(form: Literal["slack", "json"], news: Sequence[_State], over: Sequence[_State]) -> bytes:
    lines = [f"{_mark(state.alarm)} {_line(state.alarm)}\n    {state.alarm.remedy}" for state in news]
    lines += [f":white_check_mark: over: {_line(state.alarm)}" for state in over]
    message: dict[str, object] = {"text": "\n".join(["*Webhook relay*", *lines])}
    if form == "json":
        message["alarms"] = [
            {"alarm": state.alarm.kind.value, "subject": state.alarm.subject, "severity": state.alarm.severity,
             "words": state.alarm.words, "remedy": state.alarm.remedy, "since_ms": state.since_ms,
             "is_over": is_over}
            for is_over, states in ((False, news), (True, over))
            for state in states
        ]  # fmt: skip
    return orjson.dumps(message)


def _mark(alarm: Alarm) -> str:
    return ":rotating_light:" if alarm.severity == "critical" else ":warning:"


def _line(alarm: Alarm) -> str:
    return f"{alarm.subject}: {alarm.words}" if alarm.subject else alarm.words
