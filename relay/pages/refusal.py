"""One delivery whose signature was refused: why, whether it fits by now, and what it holds.

Headers and body are masked until somebody reveals them, which is put down first.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.responses import Response

from relay.contract import Delivery, Reason
from relay.diagnosing import Diagnosis, Known, diagnose
from relay.pages.finding import Content, readable
from relay.pages.masking import masked_body, masked_headers
from relay.pages.visits import Visit, refused
from relay.rejecting import judge, outcomes
from relay.store.rejected import Rejected

_GONE = "This delivery is not in the ring any more: it was taken in, or newer ones took its place."


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What today's settings say of it."""

    #: Which secret fits, from 1; None: none does.
    secret: int | None = None
    #: Why none does, where that can be said.
    why: Diagnosis | None = None


async def show(visit: Visit) -> Response:
    return await _page(visit, is_revealed=False)


async def reveal(visit: Visit, _fields: object) -> Response:
    """Headers and body as they came. Who looked is put down first."""
    await visit.note("revealed", f"refused {visit.request.path_params['row']}")
    return await _page(visit, is_revealed=True)


async def _page(visit: Visit, *, is_revealed: bool) -> Response:
    one = await visit.things.store.rejected.one(visit.request.path_params["row"])
    if one is None:
        return refused(visit, 404, _GONE)
    source = visit.things.settings.sources.get(one.source)
    return visit.page(
        "refusal_body.html" if visit.is_fragment else "refusal.html",
        one=one, content=_content(one, is_revealed=is_revealed), is_revealed=is_revealed,
        verdict=None if visit.is_fragment else await _verdict(visit, one),
        provider=visit.things.providers.get(source.provider) if source else None,
    )  # fmt: skip


def _content(one: Rejected, *, is_revealed: bool) -> Content | None:
    if one.body is None or one.headers is None:
        return None
    if is_revealed:
        return readable(one.headers, one.body)
    return Content(masked_headers(one.headers), masked_body(one.body))


async def _verdict(visit: Visit, one: Rejected) -> Verdict | None:
    """None: it cannot be judged, since its source, its body or its credential is not there."""
    things = visit.things
    source = things.settings.sources.get(one.source)
    if source is None or one.body is None or one.headers is None:
        return None
    provider = things.providers[source.provider]
    secret = judge(one, source, provider)
    if secret is not None:
        return Verdict(secret=secret + 1)
    if provider.verifier.credentials:
        return None  # what it was refused for is not kept
    url = source.public_url or ""
    delivery = Delivery(body=one.body, headers=one.headers, query=one.query,
                        url=f"{url}?{one.query}" if url and one.query else url)  # fmt: skip
    known = Known(sources=things.settings.sources, providers=things.providers, outcomes=await outcomes(things.store))
    why = await asyncio.to_thread(diagnose, source, delivery, Reason(one.reason), known=known, now_ms=one.at_ms)
    return Verdict(why=why)
