"""`relay doctor --try`: a captured body on a source, shown to a person or to a script."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from relay import terminal
from relay.terminal import FOUND, WRONG, fail, out, show_json

if TYPE_CHECKING:
    from relay.contract import Delivery
    from relay.settings import Settings
    from relay.sources import Source
    from relay.trial import Signature, Tried

#: As `curl` has it: the body comes from stdin.
_STDIN = "-"


def show(slug: str | None, file: str | None, *, headers: Sequence[str], query: str, as_json: bool) -> None:
    """Try the body in this file. Ends with exit code 1 where the signature is refused, or something is not mapped."""
    from relay.clock import unix_ms
    from relay.trial import Signature, check_signature, try_mapping

    if file is None:
        fail("--source, --header and --query go with --try FILE.", code=WRONG)
    providers = terminal.load_providers()
    settings = terminal.load_settings(providers)
    source = _source(slug, settings)
    provider, delivery, now_ms = providers[source.provider], _delivery(file, headers, query, source), unix_ms()
    signature = Signature(is_accepted=None, words="not checked; --header 'Name: value' gives what came with the body")
    if headers or query:
        signature = check_signature(provider, source, delivery, now_ms=now_ms)
    tried = list(try_mapping(provider, source, delivery, now_ms=now_ms))
    is_well = signature.is_accepted is not False and all(one.outcome in {"mapped", "ignored"} for one in tried)
    if as_json:
        told = {"ok": is_well, "source": source.slug, "signature": asdict(signature)}
        show_json({**told, "notifications": [asdict(one) for one in tried]})
    else:
        _print(source, signature, tried)
    if not is_well:
        raise typer.Exit(FOUND)


def _source(slug: str | None, settings: Settings) -> Source:
    from relay.tables import meant

    sources = settings.sources
    if slug is None and len(sources) == 1:
        return next(iter(sources.values()))
    if slug is None:
        fail(f"On which source? Name one by --source: {', '.join(sources) or 'there is none'}.", code=WRONG)
    if slug not in sources:
        known = ", ".join(sources) or "none"
        fail(f"No source is called {slug!r}.{meant(slug, sources)} There are: {known}.", code=WRONG)
    return sources[slug]


def _delivery(file: str, headers: Sequence[str], query: str, source: Source) -> Delivery:
    from pathlib import Path

    from relay.contract import Delivery

    try:
        body = sys.stdin.buffer.read() if file == _STDIN else Path(file).read_bytes()
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}.", code=WRONG)
    named: dict[str, str] = {}
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            fail(f"--header {header!r} is not of the form 'Name: value'.", code=WRONG)
        named[name.strip().lower()] = value.strip()
    url = source.public_url or ""
    return Delivery(body=body, headers=named, query=query, url=f"{url}?{query}" if url and query else url)


def _print(source: Source, signature: Signature, tried: Sequence[Tried]) -> None:
    marks = {True: "accepted: ", False: "refused: ", None: ""}
    out.print(f"source {source.slug}, provider {source.provider}", style="bold", markup=False)
    out.print(f"signature     {marks[signature.is_accepted]}{signature.words}", markup=False)
    for one in tried:
        out.print(f"\nnotification  {one.id}", style="bold", markup=False)
        out.print(f"  type        {one.type}", markup=False)
        out.print(f"  outcome     {one.outcome}{': ' if one.words else ''}{one.words}", markup=False)
        for event in one.events:
            out.print(f"  event       {event.payload}", markup=False)
            out.print(f"    once      {', '.join(event.once)}", markup=False)
            out.print(f"    person    {f'by {event.person_by}' if event.person_by else 'not known'}", markup=False)
            if event.joins:
                waits = f"; waits for {', '.join(event.waits_for)}" if event.waits_for else ""
                out.print(f"    joins     {', '.join(event.joins)}{waits}", markup=False)
            out.print(f"    guard     {', '.join(event.guard) or 'found nothing'}", markup=False)
        if one.learned:
            out.print(f"  learned     {', '.join(one.learned)}", markup=False)
        if one.forgotten:
            out.print(f"  forgotten   {', '.join(one.forgotten)}", markup=False)
    if not tried:
        out.print("\nno notification in it", markup=False)
