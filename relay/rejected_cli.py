"""Deliveries whose signature was refused: `relay rejected`, `relay shadow`, and `relay doctor --source`.

They say why, and take in after all what fits once the secret is right. They work beside a running relay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay import terminal
from relay.outbox_cli import Json, print_table
from relay.terminal import FOUND, WRONG, ago, fail, instant, out, show_json

if TYPE_CHECKING:
    from relay.settings import Settings
    from relay.sources import Source as SourceValue
    from relay.store.base import Store
    from relay.store.rejected import Cause, Rejected

rejected = typer.Typer(help="Deliveries whose signature was refused: the newest of each source.", no_args_is_help=True)

Source = Annotated[str | None, typer.Option(help="Only of this source.")]

_ALL = 10_000


@rejected.command("list")
def list_rejected(
    *,
    source: Source = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 50,
    as_json: Json = False,
) -> None:
    """List them, newest first, each with the cause that fits."""

    async def read() -> Sequence[Rejected]:
        async with terminal.opened(_settings()[0]) as store:
            return await store.rejected.listing(source=source, limit=limit)

    rows = [_row(one) for one in terminal.run(read())]
    if as_json:
        show_json(rows)
    elif not rows:
        out.print("No signature was refused.")
    else:
        print_table(rows, ("id", "time", "source", "reason", "cause", "bytes"))


@rejected.command("show")
def show_rejected(
    row: Annotated[int, typer.Argument(metavar="ID", help="Its id in the list.")],
    *,
    reveal: Annotated[bool, typer.Option("--reveal", help="Headers and body too; the audit log will say so.")] = False,
    as_json: Json = False,
) -> None:
    """Show one: why it was refused, and what to do."""

    async def read() -> Rejected:
        async with terminal.opened(_settings()[0], reads_bodies=True) as store:
            found = await store.rejected.one(row)
            if found is None:
                fail(f'There is no refused delivery {row}. "relay rejected list" lists them.')
            if reveal:
                await terminal.note(store, "revealed", f"rejected {row}")
            return found

    found = terminal.run(read())
    told = _row(found)
    if reveal:
        told["headers"] = dict(found.headers or {})
        told["body"] = None if found.body is None else found.body.decode("utf-8", "replace")
    if as_json:
        show_json(told)
        return
    for label, value in told.items():
        out.print(f"{label:<10} {'' if value is None else value}", markup=False)


@rejected.command("retry")
def retry_rejected(
    *,
    source: Source = None,
    yes: Annotated[bool, typer.Option("--yes", help="Take them in. Without it: only say which fit.")] = False,
    as_json: Json = False,
) -> None:
    """Take in after all what fits by now: after a secret was added or corrected, and the provider gave up.

    Each is checked with the secrets of now, its signed time against that of its arrival. What the provider has sent
    again meanwhile is not counted twice.
    """
    settings, providers = _settings()

    async def take() -> tuple[int, int, int]:
        from relay.rejecting import fitting, take_after_all

        async with terminal.opened(settings, reads_bodies=True) as store:
            rows = [*reversed(await store.rejected.listing(source=source, limit=_ALL, opened=True))]
            secrets = fitting(rows, sources=settings.sources, providers=providers)
            if yes and secrets:
                await terminal.note(store, "took refused deliveries", source or "all", n=len(secrets))
                for one in rows:
                    if one.id in secrets:
                        await take_after_all(store, one, secrets[one.id])
        kept = sum(one.body is not None for one in rows)
        return kept, len(secrets), len(secrets) if yes else 0

    kept, fit, taken = terminal.run(take())
    if as_json:
        show_json({"kept": kept, "fit": fit, "taken": taken})
    elif yes:
        out.print(f"{taken} of {kept} fit now and are in the inbox; a running relay maps them within the second.")
    else:
        out.print(f"{fit} of {kept} fit now. --yes takes them in.")


def shadow(
    name: Annotated[str | None, typer.Argument(metavar="[SOURCE]", help="One of your sources.")] = None,
    *,
    span: Annotated[str | None, typer.Option("--for", help="For how long: 30m, 2h; a day at most.")] = None,
    off: Annotated[bool, typer.Option("--off", help="End it now.")] = False,
    as_json: Json = False,
) -> None:
    """DANGEROUS: take webhooks of a source whatever their signature, for a limited time. Without options: list.

    For the hour in which a provider's signature cannot be made to fit and nothing may be lost. Anybody who knows the
    URL can send you events meanwhile. Each one is logged as an error, metrics and alarms say so, and it ends by itself.
    """
    from relay.clock import unix_ms
    from relay.rejecting import LONGEST_SHADOW_MS, set_shadow, shadows

    settings, _ = _settings()
    if name is not None:
        _source(settings, name)
    if (name is None and (span is not None or off)) or (span is not None and off):
        fail("Say: relay shadow SOURCE --for 1h, or relay shadow SOURCE --off.", code=WRONG)
    ms = ago(span, "--for") if span is not None else None
    if ms is not None and not 0 < ms <= LONGEST_SHADOW_MS:
        fail("--for: a day (1d) at most.", code=WRONG)

    async def change() -> dict[str, int]:
        async with terminal.opened(settings) as store:
            if name is not None and (ms is not None or off):
                until_ms = None if ms is None else unix_ms() + ms
                await set_shadow(store, name, until_ms)
                await terminal.note(store, "shadow mode off" if off else "shadow mode", name, until=instant(until_ms))
            return {slug: until for slug, until in (await shadows(store)).items() if until > unix_ms()}

    active = {slug: until for slug, until in terminal.run(change()).items() if name in (None, slug)}
    if as_json:
        show_json([{"source": slug, "until": instant(until)} for slug, until in sorted(active.items())])
    elif not active:
        out.print("No source is in shadow mode." if name is None else f"{name} is not in shadow mode.")
    for slug, until in sorted(active.items()) if not as_json else ():
        terminal.warn(f"{slug} takes webhooks whatever their signature until {instant(until)}. "
                      f"relay shadow {slug} --off ends it.")  # fmt: skip


# --- the doctor -------------------------------------------------------------------------------------------------------


def diagnose_source(name: str, *, as_json: bool) -> None:
    """What was refused at this source and why, judged with the settings of now. Exit code 1 where there is any."""
    settings, providers = _settings()
    source = _source(settings, name)

    async def read() -> tuple[Sequence[Cause], list[dict[str, Any]]]:
        async with terminal.opened(settings, reads_bodies=True) as store:
            causes = await store.rejected.causes(source=name)
            return causes, [await _verdict_of_now(store, source, settings, providers, cause) for cause in causes]

    causes, verdicts = terminal.run(read())
    if as_json:
        show_json({"ok": not causes, "source": name, "refused": [
            {"reason": cause.reason, "cause": cause.cause, "n": cause.n, "oldest": instant(cause.oldest_ms),
             "newest": instant(cause.newest_ms), "then": cause.words, **verdict}
            for cause, verdict in zip(causes, verdicts, strict=True)
        ]})  # fmt: skip
    elif not causes:
        out.print(f"source {name}: no signature was refused within the last week.")
    for cause, verdict in zip(causes, verdicts, strict=True) if not as_json else ():
        out.print(f"source {name}: {cause.n} refused, {instant(cause.oldest_ms)} to {instant(cause.newest_ms)} "
                  f"({cause.reason})", style="bold", markup=False)  # fmt: skip
        out.print(f"  cause   {cause.cause}", markup=False)
        out.print(f"  then    {cause.words}", markup=False)
        if verdict["now"]:
            out.print(f"  now     {verdict['now']}", markup=False)
    if causes:
        raise typer.Exit(FOUND)


async def _verdict_of_now(
    store: Store, source: SourceValue, settings: Settings, providers: Any, cause: Cause
) -> dict[str, Any]:
    """The newest of this cause, looked at with the settings of now, to say whether it was repaired."""
    from relay.contract import Delivery, Reason
    from relay.diagnosing import Known, diagnose
    from relay.rejecting import judge, outcomes

    rows = await store.rejected.listing(source=source.slug, since_ms=cause.newest_ms, limit=_ALL, opened=True)
    newest = next((row for row in reversed(rows) if row.cause == cause.cause and row.body is not None), None)
    if newest is None or newest.headers is None:
        return {"now": "", "fits_now": False}
    provider = providers[source.provider]
    if judge(newest, source, provider) is not None:
        words = f"it fits with the settings of now: relay rejected retry --source {source.slug} --yes takes it in"
        return {"now": words, "fits_now": True}
    if provider.verifier.credentials:
        return {"now": "", "fits_now": False}  # what it was refused for is not kept
    url = source.public_url or ""
    delivery = Delivery(body=newest.body or b"", headers=newest.headers, query=newest.query,
                        url=f"{url}?{newest.query}" if url and newest.query else url)  # fmt: skip
    known = Known(sources=settings.sources, providers=providers, outcomes=await outcomes(store))
    found = diagnose(source, delivery, Reason(newest.reason), known=known, now_ms=newest.at_ms)
    same = f"{found.words}. {found.remedy}" == cause.words
    return {"now": "" if same else f"{found.words}. {found.remedy}", "fits_now": False}


def _row(one: Rejected) -> dict[str, Any]:
    return {"id": str(one.id), "time": instant(one.at_ms), "source": one.source, "reason": one.reason,
            "cause": one.cause, "bytes": one.size, "words": one.words}  # fmt: skip


def _source(settings: Settings, name: str) -> SourceValue:
    from relay.tables import meant

    if name not in settings.sources:
        known = ", ".join(settings.sources) or "none"
        fail(f"No source is called {name!r}.{meant(name, settings.sources)} There are: {known}.", code=WRONG)
    return settings.sources[name]


def _settings() -> tuple[Settings, Any]:
    providers = terminal.load_providers()
    return terminal.load_settings(providers), providers
