"""The command `relay`: what can be asked of it, in words; what is done stands in the modules of the same names.

Only what a command needs is imported, and only when it runs, so that `relay --help` answers at once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from relay import (
    books_cli,
    desk_cli,
    explain_cli,
    keys_cli,
    outbox_cli,
    overview_cli,
    rejected_cli,
    remap_cli,
    samples_cli,
    store_cli,
    terminal,
    trial_cli,
)
from relay.outbox_cli import Json
from relay.terminal import FOUND, WRONG, err, fail, out, own_name, show_json, warn

if TYPE_CHECKING:
    from relay.contract import Provider
    from relay.doctor import Finding

app = typer.Typer(
    name="relay",
    help="Webhooks in, analytics events out: each fact once, with the right amount, and no personal data.",
    epilog='A first look: "relay serve --demo". Settings are variables (.env, see .env.example) and relay.toml.',
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_LOUD = "bold black on yellow"
_MARKS = {"ok": "[green]ok     [/]", "warning": "[bold yellow]warning[/]", "problem": "[bold red]problem[/]"}


def main() -> None:
    """The entry point."""
    app()


def _show_version(*, is_wanted: bool) -> None:
    if is_wanted:
        from relay import __version__

        out.print(f"relay {__version__}")
        raise typer.Exit


@app.callback()
def begin(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=lambda value: _show_version(is_wanted=value), is_eager=True,
                           help="Print the version."),
    ] = False,
) -> None:  # fmt: skip
    del version


# --- serving ----------------------------------------------------------------------------------------------------------


@app.command()
def serve(
    *,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Without OAA_API_KEY: start a sandbox beside it, and send one sample purchase."),
    ] = False,
    role: Annotated[
        Literal["all", "receive", "forward"],
        typer.Option(help="With PostgreSQL: what this replica does. forward: map and forward, and receive nothing."),
    ] = "all",
) -> None:
    """Take webhooks and send what they say to your project, until Ctrl-C.

    Needs OAA_API_KEY and OAA_PROJECT_ID, and the secret of a provider (RELAY_STRIPE_SECRET; "relay providers" lists
    them). Listens on RELAY_HOST and RELAY_PORT, 127.0.0.1:8000 unless set.
    """
    providers = terminal.load_providers()
    settings = terminal.load_settings(providers)
    for words in settings.warnings:
        warn(words)
    if not settings.destinations and not demo:
        fail("There is no destination. Set OAA_API_KEY and OAA_PROJECT_ID to send to your project, or try it with "
             f'"{own_name()} serve --demo", which brings a sandbox.', code=WRONG)  # fmt: skip
    from relay import demo as demonstration, logs, process

    logs.configure(settings.log_format, settings.log_level)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # the relay says itself that it is ready
    is_demo = not settings.destinations
    is_replica = settings.database_url.get_secret_value().startswith("postgres")
    if role != "all" and not is_replica:
        fail("Roles are for replicas that share a PostgreSQL: set RELAY_DATABASE_URL=postgresql://...", code=WRONG)
    if not settings.sources and not settings.ingest_keys and not is_demo:
        _warn_that_no_source_is_on(providers)
    try:
        if is_demo:
            terminal.run(demonstration.show(settings, providers, out=out, command=own_name()))
        elif settings.workers and not is_replica:
            from relay import workers

            workers.serve_until_signal(settings, providers, started=_say_where)
        else:
            terminal.run(process.serve_until_signal(settings, providers, started=_say_where, role=role))
    except process.EndedError as error:
        fail(str(error))


def _warn_that_no_source_is_on(providers: Mapping[str, Provider]) -> None:
    from relay.variables import secret_variable

    known = ", ".join(secret_variable(name) for name in providers)
    err.print(f" NO SOURCE HAS A SECRET: every webhook is answered 404. Switch one on, and start again: {known} ",
              style=_LOUD, markup=False)  # fmt: skip


def _say_where(served: Any) -> None:
    out.print(f"Listening on {served.url}", markup=False)


@app.command()
def sandbox(
    *,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0: any free one.")] = 8001,
    api_key: Annotated[
        str | None, typer.Option(help="The only API key that it takes. Unset: any that begins with oa_.")
    ] = None,
    project: Annotated[str | None, typer.Option(help="The only project that it knows. Unset: any.")] = None,
) -> None:
    """Run a local events API that takes what the real one takes, shows it, and misbehaves when told.

    GET /received shows the accepted events, DELETE /received forgets them, PUT /faults makes it fail, GET / tells more.
    """
    from relay import logs, sandbox as events_api, serving

    logs.configure("auto", "warning")

    def started(served: serving.Served) -> None:
        out.print(f"A sandbox of the events API listens on {served.url}; {served.url}/received shows what it took. "
                  f"OAA_BASE_URL={served.url} makes a relay send there.", markup=False)  # fmt: skip

    app = events_api.create_app(api_key=api_key, project_id=project)
    try:
        terminal.run(serving.serve(app, host=host, port=port, started=started))
    except serving.StartError as error:
        fail(f"{error}. Stop what listens there, or choose another --port (0: any free one).")


app.command()(samples_cli.send)


# --- looking ----------------------------------------------------------------------------------------------------------


@app.command()
def doctor(
    *,
    source: Annotated[
        str | None,
        typer.Option(help="Say why signatures of this source were refused. With --try: the source to try on."),
    ] = None,
    body: Annotated[
        str | None,
        typer.Option(
            "--try", metavar="FILE", help="Try a captured body instead (-: from stdin): what it would become."
        ),
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="'NAME: VALUE'", help="With --try: a header that came with it.")
    ] = None,
    query: Annotated[str, typer.Option(help="With --try: the query string that it came with.")] = "",
    as_json: Json = False,
) -> None:
    """Check everything between these settings and events that arrive, and say what to do. Changes nothing.

    Looks at the settings, the secrets' shape, the store, its encryption, the disk, the destination and its key, the
    clock, and the address to listen on. Exit code 1 where something is a problem.

    With --source it says why signatures of that source were refused, and whether they fit by now. With --try it shows
    what a source makes of a captured body: signature, notifications, events, what the guard did.
    """
    if any((body, source, header, query)):
        _examine_one(source, body, headers=header or [], query=query, as_json=as_json)
        return
    from relay import registry, settings as settings_of
    from relay.clock import unix_ms
    from relay.doctor import Level, examine, problem

    async def all_findings() -> list[Finding]:
        try:
            providers = settings_of.declare(registry.load_providers(settings_of.mappers_dir()))
            settings = settings_of.load(providers)
        except (registry.RegistryError, settings_of.SettingsError) as error:
            subject = "providers" if isinstance(error, registry.RegistryError) else "settings"
            found = [problem(subject, words, "") for words in error.problems]
            for finding in found:
                tell(finding)
            return found
        found = []
        async for finding in examine(settings, providers, clock=unix_ms):
            tell(finding)
            found.append(finding)
        return found

    def tell(finding: Finding) -> None:
        if not as_json:
            _show(finding)

    findings = terminal.run(all_findings())
    problems = sum(finding.level is Level.PROBLEM for finding in findings)
    warnings = sum(finding.level is Level.WARNING for finding in findings)
    if as_json:
        from dataclasses import asdict

        show_json({"ok": not problems, "findings": [asdict(finding) for finding in findings]})
    else:
        out.print(f"\n{_counted(problems, 'problem')}, {_counted(warnings, 'warning')}", style="bold")
    if problems:
        raise typer.Exit(FOUND)


def _examine_one(source: str | None, body: str | None, *, headers: list[str], query: str, as_json: bool) -> None:
    if source and not any((body, headers, query)):
        rejected_cli.diagnose_source(source, as_json=as_json)
    else:
        trial_cli.show(source, body, headers=headers, query=query, as_json=as_json)


def _show(finding: Finding) -> None:
    out.print(_MARKS[finding.level], end=" ")
    out.print(f"{finding.subject}: {finding.words}", markup=False)
    if finding.remedy:
        out.print(f"        → {finding.remedy}", markup=False)


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


@app.command()
def providers(
    name: Annotated[str | None, typer.Argument(help="Only this one.")] = None, *, as_json: Json = False
) -> None:
    """List the providers: how to switch each one on, how it signs, and which of its types become events."""
    from relay.tables import meant

    known = terminal.load_providers()
    if name is not None and name not in known:
        fail(f"No provider is called {name!r}.{meant(name, known)} There are: {', '.join(known)}.", code=WRONG)
    rows = [_described(provider) for provider in known.values() if name in (None, provider.name)]
    if as_json:
        show_json(rows)
        return
    for row in rows:
        out.print(f"{row['title']}  ({row['name']})", style="bold", markup=False)
        lines = [("docs", row["docs"]), ("URL", row["path"]), ("signature", row["signature"])]
        lines += [(setting["name"], setting["meaning"]) for setting in row["settings"]]
        lines += [(f"  {option}", meaning) for option, meaning in row["options"].items()]
        lines += [("mapped", " ".join(row["mapped"]))]
        lines += [(f"with {option}", " ".join(types)) for option, types in row["optional"].items() if types]
        lines += [("ignored", " ".join(row["ignored"]))] if row["ignored"] else []
        for label, words in lines:
            out.print(f"  {label:<24} {words}", markup=False)


def _described(provider: Provider) -> dict[str, Any]:
    from relay.sources import slug_of
    from relay.variables import api_key_variable, enable_variable, secret_variable

    settings = [{"name": secret_variable(provider.name), "meaning": provider.secret.meaning}]
    if provider.options:
        words = ", ".join(provider.options)
        settings.append({"name": enable_variable(provider.name), "meaning": f"Opt-in, separated by commas: {words}"})
    if provider.api_key:
        settings.append({"name": api_key_variable(provider.name), "meaning": provider.api_key.meaning})
    return {
        "name": provider.name,
        "title": provider.title,
        "docs": provider.docs,
        "path": f"/webhooks/{slug_of(provider.name)}",
        "signature": provider.verifier.family,
        "settings": settings,
        "options": dict(provider.options),
        "mapped": sorted(kind for kind in provider.mappers if kind not in provider.optional),
        "optional": {
            option: sorted(kind for kind, needed in provider.optional.items() if needed == option)
            for option in provider.options
        },
        "ignored": sorted(provider.ignored),
    }


@app.command(name="hash")
def hash_(
    email: Annotated[str, typer.Argument(metavar="E-MAIL", help="An e-mail address.")], *, as_json: Json = False
) -> None:
    """Show the user_id that the relay makes of an e-mail address, to compare with what your site sends.

    The address is trimmed and put into lower case, nothing else: dots and plus-tags stay. Its SHA-256 in lower-case
    hexadecimal is the user_id; with RELAY_HASH_KEY, its HMAC-SHA256 under that key.
    """
    from dataclasses import replace

    from relay.contract import Person
    from relay.identity import IdentityPolicy, hash_email, resolve

    settings = terminal.load_settings(terminal.load_providers())
    policies = {slug: source.policy.identity_policy for slug, source in settings.sources.items()}
    if not policies:
        key = settings.hash_key.get_secret_value().encode() if settings.hash_key else None
        policies = {"": IdentityPolicy(provider="", hash_key=key)}
    if resolve(Person(email=email), {}, replace(next(iter(policies.values())), order=("email",))).user_id is None:
        fail(f"{email!r} is no e-mail address of a person: the relay would look for another way to tell who it was.")
    keys: dict[bytes | None, list[str]] = {}
    for slug, policy in policies.items():
        keys.setdefault(policy.hash_key, []).append(slug)
    sent = [
        {"user_id": hash_email(email, key), "hash": "HMAC-SHA256 with RELAY_HASH_KEY" if key else "SHA-256",
         "sources": [slug for slug in slugs if slug]}
        for key, slugs in keys.items()
    ]  # fmt: skip
    plain = hash_email(email)
    if as_json:
        show_json({"normalised": email.strip().lower(), "sent": sent, "sha256": plain})
        return
    out.print(f"{'address':<12} {email.strip().lower()}  (trimmed, in lower case)", markup=False)
    for row in sent:
        whose = f", for {', '.join(row['sources'])}" if len(sent) > 1 else ""
        out.print(f"{'user_id':<12} {row['user_id']}  ({row['hash']}{whose})", markup=False)
    if plain not in [row["user_id"] for row in sent]:
        out.print(f"{'not sent':<12} {plain}  (SHA-256 without the key, to compare)", markup=False)


app.command()(overview_cli.overview)
app.command()(desk_cli.sources)
app.command()(desk_cli.deliveries)
app.command()(desk_cli.events)
app.command()(explain_cli.explain)
app.command()(explain_cli.tail)
app.command()(overview_cli.audit)
app.add_typer(outbox_cli.outbox, name="outbox")
app.add_typer(store_cli.store, name="store")
app.command()(store_cli.migrate)
app.add_typer(outbox_cli.dead, name="dead")
app.add_typer(keys_cli.keys, name="keys")
app.add_typer(rejected_cli.rejected, name="rejected")
app.command()(rejected_cli.shadow)
app.command()(outbox_cli.duplicates)
app.command()(remap_cli.remap)
app.command()(books_cli.backfill)
app.command()(books_cli.reconcile)
