"""Enriching: a provider is asked for what its notification did not say, and then the notification is mapped.

In: what the store has to do. Out: the answers, kept with the delivery, and its events under the same keys as ever. A
call is short, small and goes to the provider's own API only. What comes of it is one of:

    Answered(value)              kept; the mapping goes on
    Later(words, wait, ...)      not now: 429, 5xx, no answer, a key that is refused; tried again, up to three days
    Refused(words)               never: the notification is parked with these words
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, assert_never
from urllib.parse import urlsplit

import httpx
import orjson
import structlog

from relay import __version__
from relay.contract import Api, Ask, Delivery, Provider
from relay.mapping import MOST_ANSWERS, can_ask, map_delivery
from relay.metrics import Metrics
from relay.retry import Breaker, Closed, Open, ask as may_call, backoff_ms, failed, succeeded, wait_ms
from relay.sources import Source
from relay.store.base import Kept, Mapped, PutOff, Store, StoreUnavailableError, ToDo
from relay.store.schema import Outcome
from relay.trust import trusted

log = structlog.get_logger("relay.enriching")

_TICK_S = 0.5
_DAY_MS = 86_400_000
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
#: An API may know what it told us only a moment later.
_PATIENCE_WITH_NOTHING = 6
_KEY_REFUSED_MS = 60_000
_LONGEST_RETRY_AFTER_MS = 3_600_000
_UNKNOWN, _GONE, _UNAUTHORIZED, _FORBIDDEN = 404, 410, 401, 403
_NOT_NOW = frozenset({408, 409, 423, 425, 429})


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingRules:
    #: All that one call may take, name lookup and a slow answer included.
    patience_s: float = 10.0
    largest: int = 1_048_576
    at_once: int = 4
    #: Notifications that are worked on together.
    claim: int = 50
    lease_ms: int = 120_000
    backoff_base_ms: int = 2_000
    backoff_cap_ms: int = 3_600_000
    give_up_ms: int = 3 * _DAY_MS
    #: For what is only good to know.
    give_up_optional_ms: int = 3_600_000
    #: An answer may serve other notifications for so long, if it was asked for after they had come.
    fresh_ms: int = 30_000


@dataclass(frozen=True, slots=True)
class Answered:
    value: Any


@dataclass(frozen=True, slots=True)
class Later:
    words: str
    #: Asked for by the API, or left of a pause.
    wait_ms: int | None = None
    #: False where no call was made.
    is_try: bool = True
    #: The API has no such thing, so far.
    is_nothing: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    words: str


Result = Answered | Later | Refused


def url_of(api: Api, source: Source, ask: Ask) -> str | None:
    """Where the call goes; None where that is none of the provider's own places."""
    if not ask.needs_key:
        return ask.path if api.also is not None and api.also.fullmatch(ask.path) else None
    key = source.api_key.get_secret_value() if source.api_key else ""
    base = source.api_base or api.base_for(key)
    segments = ask.place[1:].removesuffix("/").split("/")
    is_plain = not {"", ".", ".."} & set(segments) and "\\" not in ask.path
    return base + ask.path if base and is_plain and ask.path.isprintable() and "#" not in ask.path else None


class Asker:
    """Asks for one source. `tick` does what is due, `run` ticks until it is cancelled."""

    def __init__(
        self,
        source: Source,
        provider: Provider,
        *,
        store: Store,
        metrics: Metrics,
        clock: Callable[[], int],
        wake: Callable[[str], None],
        random: Callable[[], float],
        rules: AskingRules,
    ) -> None:
        self._source = source
        self._provider = provider
        self._api = provider.api or Api()
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._wake = wake
        self._random = random
        self._rules = rules
        self._breaker: Breaker = Closed()
        self._slots = asyncio.Semaphore(rules.at_once)
        self._calls: OrderedDict[str, tuple[int, asyncio.Task[Result]]] = OrderedDict()
        here = urlsplit(source.api_base or self._api.base).hostname in _LOOPBACK
        self._http = httpx.AsyncClient(
            timeout=rules.patience_s, follow_redirects=False, trust_env=not here, verify=trusted()
        )

    async def close(self) -> None:
        """End calls under way and close connections."""
        for _, call in self._calls.values():
            call.cancel()
        await self._http.aclose()

    async def run(self) -> None:
        """Tick for ever. Trouble is logged, and the next tick tries again."""
        while True:
            done = 0
            try:
                done = await self.tick()
            except StoreUnavailableError as error:
                log.warning("the store is unavailable", error=str(error))
            except Exception:
                log.exception("asking stumbled; it goes on", source=self._source.slug)
            await asyncio.sleep(0 if done else _TICK_S)

    async def tick(self) -> int:
        """Ask about what is due. Returns how many notifications were worked on."""
        if wait_ms(self._breaker, now_ms=self._clock()):
            return 0
        limit = self._rules.claim if isinstance(self._breaker, Closed) else 1
        claimed = await self._store.claim_to_do(self._source.slug, limit=limit, lease_ms=self._rules.lease_ms)
        await asyncio.gather(*map(self._work, claimed))
        return sum(len(todo.kept.notifications) for todo in claimed)

    async def _work(self, todo: ToDo) -> None:
        """Map, ask for what is missing, and map again, until nothing is missing or nothing more can be had now."""
        kept, answers = todo.kept, dict(todo.kept.answers)
        fresh: dict[str, dict[str, Any]] = {name: {} for name in kept.notifications}
        trouble: dict[str, Later | Refused] = {}
        for _ in range(MOST_ANSWERS):
            mapped = self._map(kept, answers)
            missing = [(name, ask) for name, one in mapped.items() if name not in trouble and (ask := one.ask)]
            if not missing:
                break
            results = await asyncio.gather(*(self._result(todo, name, ask) for name, ask in missing))
            for (name, ask), result in zip(missing, results, strict=True):
                if isinstance(result, Answered):
                    answers[ask.key] = fresh[name][ask.key] = result.value
                else:
                    trouble[name] = result
        else:
            trouble |= {name: Refused(f"it asks for more than {MOST_ANSWERS} answers") for name, _ in missing}
        await self._settle(todo, mapped, trouble, fresh)

    def _map(self, kept: Kept, answers: Mapping[str, Any]) -> dict[str, Mapped]:
        """By notification id. One that has another id now is none of the claimed, and is left as it is."""
        url = self._source.public_url or ""
        delivery = Delivery(body=kept.body, headers=kept.headers, url=url, answers=answers)
        mapped = map_delivery(self._provider, self._source, delivery, received_at_ms=kept.received_at_ms)
        return {one.notification_id: one for one in mapped if one.notification_id in kept.notifications}

    async def _settle(
        self,
        todo: ToDo,
        mapped: Mapping[str, Mapped],
        trouble: Mapping[str, Later | Refused],
        fresh: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Commit what is mapped and what is given up; put off the rest."""
        later: dict[str, PutOff] = {}
        done: list[Mapped] = []
        for name, one in mapped.items():
            reason = trouble.get(name)
            if isinstance(reason, Later):
                reason = self._put_off(todo, name, reason, later)
            if isinstance(reason, Refused):
                log.error("could not be asked about, kept", source=self._source.slug, delivery=todo.kept.delivery,
                          notification=name, type=one.type, error=reason.words)  # fmt: skip
                done.append(replace(one, outcome=Outcome.FAILED, error=reason.words, ask=None, events=(), learned=()))
            elif name not in later:
                done.append(one)
        if later:
            await self._store.put_off(todo.kept, later, answers={name: fresh[name] for name in later})
        rest = {name: row for name, row in todo.kept.notifications.items() if name not in later}
        if not rest:
            return
        told = {one.notification_id: fresh[one.notification_id] for one in done}
        receipt = await self._store.remap(replace(todo.kept, notifications=rest), done, answers=told)
        self._metrics.events.labels(self._source.slug).inc(receipt.events)
        self._metrics.duplicates.labels(self._source.slug).inc(receipt.duplicates)
        for one in done if receipt.new else ():
            self._metrics.notifications.labels(self._source.slug, one.outcome.value).inc()
        for destination in receipt.destinations:
            self._wake(destination)

    def _put_off(self, todo: ToDo, name: str, reason: Later, later: dict[str, PutOff]) -> Refused | None:
        """Note when to ask again; what was tried for too long is refused."""
        now_ms, rules, attempts = self._clock(), self._rules, todo.attempts[name] + 1
        if reason.is_nothing and attempts >= _PATIENCE_WITH_NOTHING:
            return Refused(reason.words)
        if reason.is_try and now_ms - todo.began_at_ms[name] >= rules.give_up_ms:
            return Refused(f"{reason.words}; given up after {rules.give_up_ms // _DAY_MS} days")
        wait = reason.wait_ms or 0
        if reason.is_try:
            wait = backoff_ms(attempts, base_ms=rules.backoff_base_ms, cap_ms=rules.backoff_cap_ms,
                              random=self._random, retry_after_ms=reason.wait_ms)  # fmt: skip
        later[name] = PutOff(due_at_ms=now_ms + wait, words=reason.words, is_try=reason.is_try)
        return None

    # --- one call ---

    async def _result(self, todo: ToDo, name: str, ask: Ask) -> Result:
        """The API's word; that it has no such thing is an answer to whoever can do without."""
        try:
            url = url_of(self._api, self._source, ask)
            if not can_ask(self._provider, self._source, ask):
                words = f"{self._provider.title} is to be asked for {ask.place}, and the source has no API key or base"
                return Later(words, wait_ms=self._rules.backoff_cap_ms, is_try=False)
            if url is None:
                result: Result = Refused(
                    f"{ask.place} is none of {self._provider.title}'s own places; it is not called"
                )
            else:
                result = await self._shared(ask, url, todo.kept.received_at_ms)
        except Exception as error:
            log.exception("asking stumbled", source=self._source.slug, delivery=todo.kept.delivery, notification=name)
            return Later(f"{type(error).__name__}: {error}")
        if isinstance(result, Answered) or not ask.is_optional:
            return result
        waited_ms = self._clock() - todo.began_at_ms[name]
        is_later = isinstance(result, Later) and not result.is_nothing
        return result if is_later and waited_ms < self._rules.give_up_optional_ms else Answered(None)

    async def _shared(self, ask: Ask, url: str, received_at_ms: int) -> Result:
        """One call for all that need it at the same time, or need it now and came before it was made."""
        now_ms = self._clock()
        while self._calls and now_ms - next(iter(self._calls.values()))[0] > self._rules.fresh_ms:
            self._calls.popitem(last=False)
        began_ms, call = self._calls.get(ask.key, (0, None))
        if call is None or not _serves(call, began_ms=began_ms, received_at_ms=received_at_ms):
            call = asyncio.create_task(self._call(ask, url))
            self._calls[ask.key] = (now_ms, call)
            self._calls.move_to_end(ask.key)
        return await asyncio.shield(call)

    async def _call(self, ask: Ask, url: str) -> Result:
        async with self._slots:
            now_ms = self._clock()
            self._breaker, may = may_call(self._breaker, now_ms=now_ms)
            if not may:
                return Later("after failures, calls are held back", wait_ms=wait_ms(self._breaker, now_ms=now_ms),
                             is_try=False)  # fmt: skip
            try:
                async with asyncio.timeout(self._rules.patience_s):
                    result, label = await self._answer(ask, url)
            except (httpx.HTTPError, TimeoutError) as error:
                result, label = Later(f"{urlsplit(url).hostname} does not answer: {type(error).__name__}"), "no answer"
        self._metrics.asks.labels(self._source.slug, label).inc()
        self._note(result)
        return result

    def _note(self, result: Result) -> None:
        match result:
            case Answered() | Refused():
                self._breaker = succeeded(self._breaker)
            case Later(is_nothing=True):
                self._breaker = succeeded(self._breaker)
            case Later(words, pause_ms):
                was_closed = isinstance(self._breaker, Closed)
                self._breaker = failed(self._breaker, now_ms=self._clock(), retry_after_ms=pause_ms)
                if was_closed and isinstance(self._breaker, Open):
                    log.warning("the provider's API cannot be asked now", source=self._source.slug, why=words)
            case _:
                assert_never(result)

    async def _answer(self, ask: Ask, url: str) -> tuple[Result, str]:
        """What the API says, and the label under which it is counted."""
        headers = {"user-agent": f"relay/{__version__}", "accept": "application/json"}
        if ask.needs_key and self._source.api_key is not None:
            headers |= {**self._api.headers, **self._api.auth(self._source.api_key.get_secret_value())}
        if ask.body:
            headers["content-type"] = "application/json"
        async with self._http.stream(ask.method, url, headers=headers, content=ask.body or None) as response:
            status, what = response.status_code, f"{self._provider.title}'s API"
            words = f"{what} answered {status} when asked for {ask.place}"
            if not response.is_success:
                return self._failure(response, words, ask), str(status)
            raw = b""
            async for chunk in response.aiter_bytes():
                raw += chunk
                if len(raw) > self._rules.largest:
                    return Refused(f"{what} answered with more than {self._rules.largest} bytes"), "too_large"
        if not ask.needs_key:
            return Answered(value=True), str(status)
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return Later(f"{what} answered with something that is not JSON when asked for {ask.place}"), "no_json"
        return (Refused(f"{what} answered with nothing") if value is None else Answered(value)), str(status)

    def _failure(self, response: httpx.Response, words: str, ask: Ask) -> Result:
        status = response.status_code
        asked_ms = min(_retry_after_ms(response.headers, self._clock()), _LONGEST_RETRY_AFTER_MS) or None
        if status in {_GONE, _UNKNOWN}:
            return Later(words, is_nothing=True)
        if response.is_redirect:
            return Later(f"{words}, a redirect, which is not followed")
        if status in {_UNAUTHORIZED, _FORBIDDEN} and ask.needs_key:
            return Later(f"{words}: it refuses the API key", wait_ms=asked_ms or _KEY_REFUSED_MS)
        if status in _NOT_NOW or response.is_server_error:
            return Later(words, wait_ms=asked_ms)
        return Refused(words)


def _serves(call: asyncio.Task[Result], *, began_ms: int, received_at_ms: int) -> bool:
    """Whether its answer holds for a notification of that time: what was asked for before may have changed since."""
    if not call.done():
        return began_ms >= received_at_ms
    is_answer = not call.cancelled() and call.exception() is None and isinstance(call.result(), Answered)
    return is_answer and began_ms > received_at_ms


def _retry_after_ms(headers: httpx.Headers, now_ms: int) -> int:
    """What the header asks for, seconds or a date; 0 where it asks for nothing."""
    said = headers.get("retry-after", "").strip()
    if said.isdecimal():
        return int(said[:9]) * 1000
    with contextlib.suppress(ValueError):
        return max(0, int(parsedate_to_datetime(said).timestamp() * 1000) - now_ms) if said else 0
    return 0


@contextlib.asynccontextmanager
async def asking(
    sources: Sequence[Source],
    providers: Mapping[str, Provider],
    *,
    store: Store,
    metrics: Metrics,
    clock: Callable[[], int],
    wake: Callable[[str], None],
    random: Callable[[], float],
    rules: AskingRules | None = None,
) -> AsyncIterator[Sequence[Asker]]:
    """While the block runs, ask for every source that can; say of the others what waits for their key."""
    waiting = await store.to_do()
    askers: list[Asker] = []
    for source in sources:
        provider = providers[source.provider]
        if provider.api is not None and (source.api_key is not None or provider.api.also is not None):
            askers.append(
                Asker(source, provider, store=store, metrics=metrics, clock=clock, wake=wake, random=random,
                      rules=rules or AskingRules())
            )  # fmt: skip
        elif waiting.get(source.slug):
            log.warning("notifications wait for the API key of their source", source=source.slug,
                        notifications=waiting[source.slug])  # fmt: skip
    tasks = [asyncio.create_task(asker.run(), name="asking") for asker in askers]
    try:
        yield askers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for asker in askers:
            await asker.close()
