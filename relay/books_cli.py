"""The commands `relay backfill` and `relay reconcile`: the provider's own books, read with the source's API key.

They work beside a running relay. `reconcile` ends with 0 where all is equal, 1 where it is not, and 2 where it could
not be compared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from relay import terminal
from relay.outbox_cli import Json
from relay.terminal import FOUND, WRONG, err, fail, instant, moment, out, own_name, show_json, warn

if TYPE_CHECKING:
    from relay.backfilling import Backfilled
    from relay.books import Line, Report, Total
    from relay.contract import Provider
    from relay.settings import Settings
    from relay.sources import Source

_DAY_MS = 86_400_000
_INTERRUPTED = 130
#: Lines of a table; --json has them all.
_MOST_LINES = 100

Name = Annotated[str, typer.Argument(metavar="SOURCE", help="One of your sources (stripe).")]
Since = Annotated[str, typer.Option(help="From when on: 7d, 36h, 90m ago, or 2026-11-01, or 2026-11-01T12:00Z.")]
Until = Annotated[str, typer.Option(help="Until when, in the same words; now, unless said.")]
Accounts = Annotated[
    list[str] | None, typer.Option("--account", metavar="ACCOUNT", help="A connected account too; may be repeated.")
]


def backfill(
    name: Name,
    *,
    since: Since,
    until: Until = "now",
    types: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="TYPE", help="Only this type (invoice.paid); may be repeated."),
    ] = None,
    accounts: Accounts = None,
    as_json: Json = False,
) -> None:
    """Ask the provider what it said in some time, and send what is missing.

    It goes the way of every webhook under the same keys, so that nothing counts twice. Interrupted, the same command
    goes on where it stopped. Needs the source's API key (RELAY_STRIPE_API_KEY).

    Example: relay backfill stripe --since 7d
    """
    from relay import backfilling, bookkeeping
    from relay.backfilling import Stretch
    from relay.books import BooksError
    from relay.clock import unix_ms

    providers, settings, source = _source_of(name)
    since_ms, until_ms = _time(since, until, unix_ms())
    stretch = Stretch(
        since_ms=since_ms // 1000 * 1000,
        until_ms=-(-until_ms // 1000) * 1000,
        types=tuple(types or ()),
        accounts=tuple(accounts or ()),
    )

    async def work() -> Backfilled:
        books = bookkeeping.books_of(source, accounts=stretch.accounts)
        _warn_of_test_mode(source, is_test=books.is_test)
        if books.keeps_days and since_ms < unix_ms() - books.keeps_days * _DAY_MS:
            warn(f"{provider.title} keeps what it said for {books.keeps_days} days; what is older is not found")
        async with terminal.opened(settings, reads_bodies=True) as store, bookkeeping.opened(books) as opened:
            with _bar(since_ms, until_ms) as show:
                return await backfilling.backfill(
                    opened, store, source=source, provider=provider, stretch=stretch, clock=unix_ms,
                    keep_bodies=settings.retain_bodies_days > 0, progress=show,
                )  # fmt: skip

    provider = providers[source.provider]
    again = "What was done is kept: the same command goes on where this one stopped."
    try:
        done = terminal.run(work())
    except BooksError as error:
        fail(f"{error} {again}")
    except KeyboardInterrupt:
        fail(f"Interrupted. {again}", code=_INTERRUPTED)
    if as_json:
        from dataclasses import asdict

        counts = {key: count for key, count in asdict(done).items() if key != "since_ms"}
        show_json(
            {"source": source.slug, "since": instant(done.since_ms), "until": instant(stretch.until_ms), **counts}
        )
        return
    if done.since_ms > stretch.since_ms:
        out.print(f"Went on where an interrupted backfill had stopped: {instant(done.since_ms)}.")
    out.print(
        f"{provider.title} gave {done.seen} notifications: {done.new} were missing, {done.left_out} are of types that "
        f"become no events, {done.parked} could not be mapped and are kept, {done.tests} were dropped as test mode.\n"
        f"{done.events} new events are in the outbox; {done.duplicates} more had been told already."
    )
    if done.events:
        out.print("A running relay sends them within seconds, or when it is known who it was (RELAY_JOIN_WAIT_S).")


@contextlib.contextmanager
def _bar(since_ms: int, until_ms: int) -> Iterator[Callable[[int, Backfilled], None]]:
    """Shows how far in time a backfill is."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    with Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[words]}"),
        console=err, transient=True, disable=not err.is_terminal,
    ) as progress:  # fmt: skip
        task = progress.add_task("", total=max(1, until_ms - since_ms), words="")

        def show(at_ms: int, done: Backfilled) -> None:
            words = f"{done.seen} seen, {done.new} new, {done.events} events"
            progress.update(task, completed=at_ms - since_ms, description=str(instant(at_ms)), words=words)

        yield show


def reconcile(
    name: Name,
    *,
    since: Since,
    until: Until = "now",
    accounts: Accounts = None,
    tolerance: Annotated[str, typer.Option(help="By how much an amount may differ, in major units (0.01).")] = "0",
    as_json: Json = False,
) -> None:
    """Compare the provider's own payments and refunds with what your project accepted, line by line.

    missing: no event tells it (relay backfill sends it). not_accepted: in the outbox, in doubt, or a dead letter.
    differs: another amount. extra: accepted, but not in the books. Exit code 0: equal, 1: not, 2: could not be
    compared. Needs the source's API key (RELAY_STRIPE_API_KEY).

    Example: relay reconcile stripe --since 7d
    """
    from rich.status import Status

    from relay import bookkeeping, reconciling
    from relay.books import BooksError
    from relay.clock import unix_ms

    providers, settings, source = _source_of(name)
    now_ms = unix_ms()
    since_ms, until_ms = _time(since, until, now_ms)
    if since_ms < now_ms - settings.retain_keys_days * _DAY_MS:
        warn(f"the relay forgets what is older than {settings.retain_keys_days} days (RELAY_RETAIN_KEYS_DAYS): it will "
             "look missing")  # fmt: skip
    question = reconciling.Question(
        since_ms=since_ms, until_ms=until_ms, accounts=tuple(accounts or ()), tolerance=_amount(tolerance)
    )

    async def work() -> Report:
        books = bookkeeping.books_of(source, accounts=question.accounts)
        _warn_of_test_mode(source, is_test=books.is_test)
        async with terminal.opened(settings) as store, bookkeeping.opened(books) as opened:
            with Status("reading the books", console=err) if err.is_terminal else contextlib.nullcontext() as status:
                show = status.update if status else lambda _words: None
                return await reconciling.reconcile(opened, store, source=source, question=question, progress=show)

    try:
        report = terminal.run(work())
    except BooksError as error:
        fail(str(error), code=WRONG)
    except KeyboardInterrupt:
        fail("Interrupted: nothing was compared.", code=_INTERRUPTED)
    if report.unread_accounts:
        warn(f"connected accounts were left out: {', '.join(report.unread_accounts)}. Name them with --account.")
    if as_json:
        show_json(_as_json(report, source.slug, since_ms, until_ms))
    else:
        _show(report, providers[source.provider], source, since=since)
    if not report.is_equal:
        raise typer.Exit(FOUND)


# --- what was asked ---------------------------------------------------------------------------------------------------


def _source_of(name: str) -> tuple[Mapping[str, Provider], Settings, Source]:
    """By slug, or by provider where it has one source; with an API key, or the end with how to get one."""
    from relay.tables import meant

    providers = terminal.load_providers()
    settings = terminal.load_settings(providers)
    of_provider = [source for source in settings.sources.values() if source.provider == name]
    source = settings.sources.get(name) or (of_provider[0] if len(of_provider) == 1 else None)
    if source is None:
        known = ", ".join(settings.sources) or "none"
        fail(f"No source is called {name!r}.{meant(name, settings.sources)} There are: {known}.", code=WRONG)
    if source.api_key is None:
        _fail_without_key(source, providers[source.provider])
    return providers, settings, source


def _fail_without_key(source: Source, provider: Provider) -> NoReturn:
    from relay.sources import slug_of
    from relay.variables import api_key_variable

    if provider.api_key is None:
        fail(f"The relay cannot ask {provider.title}'s API.", code=WRONG)
    variable = api_key_variable(provider.name)
    where = variable if source.slug == slug_of(provider.name) else f"api_key of sources.{source.slug} in relay.toml"
    fail(f"{source.slug} has no API key: set {where}. {provider.api_key.meaning}.", code=WRONG)


def _warn_of_test_mode(source: Source, *, is_test: bool) -> None:
    if is_test and source.test_destination is None:
        warn("the API key is of the test mode, whose notifications the source drops (RELAY_TEST_MODE)")


def _time(since: str, until: str, now_ms: int) -> tuple[int, int]:
    since_ms, until_ms = moment(since, "--since", now_ms), moment(until, "--until", now_ms)
    if since_ms >= until_ms:
        fail("--since must lie before --until, and in the past.", code=WRONG)
    return since_ms, until_ms


def _amount(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("nan")
    if not amount.is_finite() or amount < 0:
        fail(f"--tolerance {text!r} is no amount: write 0.01, for example.", code=WRONG)
    return amount


# --- what came out ----------------------------------------------------------------------------------------------------


def _show(report: Report, provider: Provider, source: Source, *, since: str) -> None:
    from relay.books import Outcome

    others = [line for line in report.lines if line.outcome is not Outcome.OK]
    if others:
        columns = ("outcome", "of", "id", "at", "books", "accepted", "told by")
        _print_table(columns, [_cells(line) for line in others[:_MOST_LINES]])
        if len(others) > _MOST_LINES:
            out.print(f"... and {len(others) - _MOST_LINES} more; --json has them all.")
        out.print()
    totals = {
        "payments": report.totals("payment"),
        "refunds": report.totals("refund"),
        "together": report.totals(),
    }
    rows = [
        (currency, kind, *map(_plain, (total.books, total.accepted, total.drift)))
        for currency in report.totals()
        for kind, of_kind in totals.items()
        if (total := of_kind.get(currency)) is not None
    ]
    if rows:
        _print_table(("currency", "of", "books", "accepted", "drift"), rows)
    counts = report.counts
    words = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "nothing to compare"
    out.print(f"\n{'Equal' if report.is_equal else 'Not equal'}: {words}.", style="bold")
    if counts[Outcome.MISSING]:
        out.print(f'"{own_name()} backfill {source.slug} --since {since}" sends what is missing, as long as '
                  f"{provider.title} keeps it.", markup=False)  # fmt: skip
        off = [option for option in provider.options if option not in source.enabled]
        if off:
            out.print(f"What it tells only by an option that is off ({', '.join(off)}) stays missing.")


def _cells(line: Line) -> tuple[str, ...]:
    accepted = ", ".join(f"{_plain(amount)} {currency}" for currency, amount in line.accepted.items())
    told = ", ".join(f"{one.name} {one.event_id} ({one.where})" for one in line.told)
    books = f"{_plain(line.books)} {line.currency}" if line.books else ""
    where = f"{line.account} " if line.account else ""
    return line.outcome, line.kind, where + line.id, str(instant(line.at_ms)), books, accepted, told


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column, justify="right" if column in {"books", "accepted", "drift"} else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*map(Text, row))
    out.print(table, soft_wrap=False)


def _as_json(report: Report, slug: str, since_ms: int, until_ms: int) -> dict[str, Any]:
    payments, refunds = report.totals("payment"), report.totals("refund")
    return {
        "source": slug,
        "since": instant(since_ms),
        "until": instant(until_ms),
        "equal": report.is_equal,
        "counts": report.counts,
        "currencies": {
            currency: {
                **_total(total),
                "payments": _total(payments.get(currency)),
                "refunds": _total(refunds.get(currency)),
            }
            for currency, total in report.totals().items()
        },
        "unread_accounts": report.unread_accounts,
        "lines": [_line(line) for line in report.lines],
    }


def _total(total: Total | None) -> dict[str, str]:
    from relay.books import Total

    total = total or Total()
    return {name: _plain(getattr(total, name)) for name in ("books", "accepted", "drift")}


def _line(line: Line) -> dict[str, Any]:
    return {
        "outcome": line.outcome,
        "of": line.kind,
        "id": line.id,
        "account": line.account,
        "at": instant(line.at_ms),
        "currency": line.currency,
        "books": _plain(line.books),
        "accepted": {currency: _plain(amount) for currency, amount in line.accepted.items()},
        "told": [
            {"id": str(one.row), "event_id": one.event_id, "name": one.name, "state": one.where,
             "amount": _plain(one.amount), "currency": one.currency}
            for one in line.told
        ],
    }  # fmt: skip


def _plain(amount: Decimal) -> str:
    """Digit for digit, never as a power of ten."""
    return format(amount, "f")
