"""Deliveries: the list with its search, and one delivery's whole story."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import orjson
from starlette.responses import Response

from relay.identity import hash_email
from relay.pages.masking import masked_body, masked_headers
from relay.pages.rendering import STATUSES, pretty
from relay.pages.visits import HOME, Visit, refused
from relay.store.rejected import Rejected
from relay.store.schema import Outcome
from relay.store.search import EVENT_STATUSES, Page, Wanted
from relay.store.telling import Story
from relay.tellings import tellings

LIST = f"{HOME}/deliveries"
_PAGE = 50
#: The newest refused deliveries among which a name is looked for.
_MOST_REFUSED = 200
_FILTERS = ("source", "type", "status", "since", "until")


async def find(visit: Visit, fields: Sequence[tuple[str, str]]) -> Response:
    """The search at the top of each page. What is found alone is shown at once; an address is turned into its hash."""
    text = dict(fields).get("q", "").strip()
    if not text:
        return visit.go(LIST)
    if "@" in text:
        return visit.go(f"{LIST}?{urlencode([('user', user) for user in _hashes(visit, text)])}")
    found = await visit.console.find(text)
    if len({told.delivery for told in found}) == 1:
        return visit.go(f"{LIST}/{found[0].delivery}")
    return visit.go(f"{LIST}?{urlencode({'q': text})}")


def _hashes(visit: Visit, address: str) -> list[str]:
    """The users that the sources make of an address; it goes no further than here."""
    keys = {source.policy.hash_key for source in visit.things.settings.sources.values()} | {None}
    return sorted({hash_email(address, key) for key in keys})


async def show_list(visit: Visit) -> Response:
    text, users = visit.query.get("q", "").strip(), visit.request.query_params.getlist("user")
    kinds = [] if visit.is_fragment else await visit.console.kinds()  # for the filters, which stand as they are
    before = visit.query.get("before", "")
    if "@" in text:
        return visit.go(f"{LIST}?{urlencode([('user', user) for user in _hashes(visit, text)])}")
    if text or users:
        page = Page(await visit.console.find(text or users[0], users=users))
    else:
        wanted = Wanted(
            source=visit.query.get("source") or None,
            type=visit.query.get("type") or None,
            status=_status(visit.query.get("status", "")),
            since_ms=_moment(visit.query.get("since", "")),
            until_ms=_moment(visit.query.get("until", "")),
        )
        page = await visit.console.listing(wanted, before=int(before) if before.isdecimal() else None, limit=_PAGE)
    given = {name: visit.query[name] for name in _FILTERS if visit.query.get(name)}
    older = f"{LIST}?{urlencode({**given, 'before': str(page.before)})}" if page.before else None
    return visit.page(
        "deliveries_rows.html" if visit.is_fragment else "deliveries.html",
        rows=page.rows, older=older, text=text, users=users, given=given,
        sources=sorted({kind.source for kind in kinds} | set(visit.things.settings.sources)),
        types=sorted({kind.type for kind in kinds if given.get("source") in (None, kind.source)}),
        choices=[(status, STATUSES[status][1]) for status in (*Outcome, *EVENT_STATUSES)],
        newest=f"{LIST}?{urlencode(given)}" if before else None,
        live=None if before or text or users else f"{LIST}?{urlencode(given)}",
        sales=tellings(page.rows) if text else [],
        refused=await _refused(visit, text) if text and not page.rows else [],
    )  # fmt: skip


async def _refused(visit: Visit, text: str) -> Sequence[Rejected]:
    """What was refused for its signature, and has this name in its body."""
    wanted = text.encode()
    found = await visit.things.store.rejected.listing(limit=_MOST_REFUSED, opened=True)
    return [one for one in found if wanted in (one.body or b"")]


def _status(given: str) -> str | None:
    return given if given in {*Outcome, *EVENT_STATUSES} else None


def _moment(given: str) -> int | None:
    """What a field for date and time holds, in UTC."""
    try:
        return int(datetime.fromisoformat(given).replace(tzinfo=UTC).timestamp() * 1000) if given else None
    except ValueError:
        return None


# --- one delivery -----------------------------------------------------------------------------------------------------


async def show_story(visit: Visit) -> Response:
    return await _story(visit, is_revealed=False)


async def reveal(visit: Visit, _fields: object) -> Response:
    """Headers and body as they came. Who looked is put down first."""
    await visit.note("revealed", str(visit.request.path_params["delivery"]))
    return await _story(visit, is_revealed=True)


async def _story(visit: Visit, *, is_revealed: bool) -> Response:
    story = await visit.console.story(visit.request.path_params["delivery"])
    if story is None:
        words = (
            "No delivery has this id: it is older than the retention, or it is not mapped yet and comes in a moment."
        )
        return refused(visit, 404, words)
    source = visit.things.settings.sources.get(story.source)
    secrets = len(source.secrets) if source else 0
    provider = visit.things.providers.get(source.provider) if source else None
    content = _content(story, is_revealed=is_revealed)
    return visit.page(
        "delivery_body.html" if visit.is_fragment else "delivery.html",
        story=story, content=content, is_revealed=is_revealed, secrets=secrets, provider=provider,
        can_remap=any(one.told.outcome in {Outcome.FAILED, Outcome.NOT_MAPPED} for one in story.notifications),
        properties=_properties,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Content:
    headers: dict[str, str]
    body: str


def _content(story: Story, *, is_revealed: bool) -> Content | None:
    if story.body is None or story.headers is None:
        return None
    if not is_revealed:
        return Content(masked_headers(story.headers), masked_body(story.body))
    return readable(story.headers, story.body)


def readable(headers: Mapping[str, str], body: bytes) -> Content:
    """As it came: JSON with an indent, and whatever else it is as text."""
    return Content(dict(sorted(headers.items())), pretty(body))


def _properties(payload: bytes) -> dict[str, Any]:
    """An event as the API gets it."""
    found: dict[str, Any] = orjson.loads(payload)
    return found


async def show_event(visit: Visit) -> Response:
    """By the id of an event, the delivery that it came from."""
    found = await visit.console.find(str(visit.request.path_params["event"]))
    if not found:
        return refused(visit, 404, "No event has this id.")
    first = min(found, key=lambda told: told.id)
    return visit.go(f"{LIST}/{first.delivery}")
