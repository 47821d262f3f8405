"""The command `relay send`: samples of a provider's types, signed and posted as the provider would."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay import terminal
from relay.outbox_cli import Json
from relay.terminal import FOUND, WRONG, fail, out, own_name, show_json, warn

if TYPE_CHECKING:
    from relay.contract import Delivery, Provider
    from relay.samples import Case
    from relay.settings import Settings
    from relay.sources import Source


def send(
    provider: Annotated[
        str | None, typer.Argument(metavar="PROVIDER", help="A provider (stripe), or one of your sources.")
    ] = None,
    kind: Annotated[
        str | None, typer.Argument(metavar="TYPE", help="The provider's type (checkout.session.completed).")
    ] = None,
    *,
    to: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The relay, or its webhook's whole URL. Unset: RELAY_HOST:RELAY_PORT."),
    ] = None,
    secret: Annotated[
        str | None, typer.Option(help="Sign with this. Unset: the source's first secret in the settings.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many to send, one after the other.")] = 1,
    id: Annotated[  # noqa: A002  it is the option's name
        str | None, typer.Option(help="The notification's id. The same one again is a repeat, which counts once.")
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Another sample of this type; --list shows them.")] = None,
    list_them: Annotated[bool, typer.Option("--list", help="List the samples instead.")] = False,
    as_json: Json = False,
) -> None:
    """Send signed samples, as the provider would: any mapped type, with fresh ids and the time of now.

    Example: relay send stripe checkout.session.completed
    """
    from relay.sources import slug_of

    providers = terminal.load_providers()
    settings = terminal.load_settings(providers)
    if list_them or provider is None:
        if provider is None and not list_them:
            fail(f'Of which provider? "{own_name()} send --list" lists all samples.', code=WRONG)
        _list_samples(provider, kind, settings, providers, as_json=as_json)
        return
    source, known = _source_of(provider, settings, providers)
    case = _case_of(known, kind, variant, settings)
    slug = source.slug if source else slug_of(known.name)
    secret = secret or _secret_of(source, known, settings)
    url = _webhook_url(to, slug, settings)
    if case.is_test and source and source.test_destination is None:
        warn("this sample is of the provider's test mode, which the source drops (RELAY_TEST_MODE)")
    answers = _post_all(url, case, known, source, secret, count=count, id=id)
    if as_json:
        show_json(answers)
    for answer in answers if not as_json else []:
        out.print(f"{answer['status']} {answer['answer']}  {known.name} {case.type} {answer['id']}", markup=False)
    if not all(200 <= answer["status"] < 300 for answer in answers):  # noqa: PLR2004
        raise typer.Exit(FOUND)


def _secret_of(source: Source | None, provider: Provider, settings: Settings) -> str:
    """The source's first; without a source, that of the demonstration."""
    from relay.demo_secret import PROVIDER, demo_secret
    from relay.variables import secret_variable

    if source is not None:
        return source.secrets[0].get_secret_value()
    found = demo_secret(settings) if provider.name == PROVIDER else None
    if found is None:
        fail(f"No source of {provider.title} has a secret to sign with: set {secret_variable(provider.name)}, or pass "
             "--secret.", code=WRONG)  # fmt: skip
    return found


def _source_of(name: str, settings: Settings, providers: Mapping[str, Provider]) -> tuple[Source | None, Provider]:
    """By slug, or by provider: then its first source, if it has one."""
    from relay.tables import meant

    source = settings.sources.get(name) or next((s for s in settings.sources.values() if s.provider == name), None)
    provider = providers.get(source.provider if source else name)
    if provider is None:
        known = [*settings.sources, *providers]
        fail(f"No provider and no source is called {name!r}.{meant(name, known)} "
             f'"{own_name()} providers" lists them.', code=WRONG)  # fmt: skip
    return source, provider


def _cases(provider: Provider, settings: Settings) -> list[Case]:
    from relay import samples

    try:
        return samples.cases_of(provider, settings.mappers_dir)
    except samples.SampleError as error:
        fail(str(error))


def _case_of(provider: Provider, kind: str | None, variant: str | None, settings: Settings) -> Case:
    from relay import samples
    from relay.tables import meant

    cases = _cases(provider, settings)
    types = list(dict.fromkeys(case.type for case in cases))
    if kind not in types:
        asked = f"There is no sample of {kind!r}.{meant(kind, types)}" if kind else "Of which type?"
        fail(f"{asked} {provider.title} has:\n  " + "\n  ".join(types or ["none"]), code=WRONG)
    case = samples.choose(cases, kind, variant)
    if case is None:
        variants = [case.variant for case in cases if case.type == kind]
        fail(f"{kind} has no variant {variant!r}.{meant(str(variant), variants)} It has: {', '.join(variants)}.",
             code=WRONG)  # fmt: skip
    return case


def _webhook_url(to: str | None, slug: str, settings: Settings) -> str:
    from urllib.parse import urlsplit

    base = (to or terminal.base_url(settings)).rstrip("/")
    parts = urlsplit(base)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        fail(f"--to {to} is no URL; it begins with http:// or https://.", code=WRONG)
    return base if parts.path else f"{base}/webhooks/{slug}"


def _post_all(
    url: str,
    case: Case,
    provider: Provider,
    source: Source | None,
    secret: str,
    *,
    count: int,
    id: str | None,  # noqa: A002
) -> list[dict[str, Any]]:
    import secrets
    from dataclasses import replace

    import httpx

    from relay import samples
    from relay.clock import unix_ms

    answers: list[dict[str, Any]] = []
    address, _, query = url.partition("?")
    public, asked = (source and source.public_url) or address, f"?{query}" if query else ""
    with httpx.Client(trust_env=not terminal.is_here(httpx.URL(url).host)) as http:
        for _ in range(count):
            now_ms = unix_ms()
            try:
                delivery = samples.fresh(case, id=id, now_ms=now_ms, token=secrets.token_hex(16))
                delivery = replace(delivery, url=public + asked, query=query)
                if delivery.answers is not None:
                    _lend(delivery.answers, provider, source)
                sent = _signed(delivery, provider, source, secret, now_ms=now_ms, warns=not answers)
                to = f"{address}?{sent.query}" if sent.query else address
                answer = http.post(to, content=sent.body, headers=dict(sent.headers))
            except samples.SampleError as error:
                fail(str(error), code=WRONG)
            except httpx.HTTPError as error:
                fail(f"No answer from {url}: {error}. Does the relay run there? --to names another address.")
            answers.append({
                "id": samples.notification_id(provider, sent),
                "status": answer.status_code,
                "answer": answer.text,
            })  # fmt: skip
    return answers


def _signed(
    delivery: Delivery, provider: Provider, source: Source | None, secret: str, *, now_ms: int, warns: bool
) -> Delivery:
    """As it is to be sent: unsigned, where only the provider can sign."""
    from relay import samples
    from relay.verification import KeptKeyError

    try:
        return samples.signed(delivery, provider, secret, now_ms=now_ms)
    except KeptKeyError:
        if warns:
            name = source.slug if source else provider.name
            warn(f"only {provider.title} has the key that signs, so this sample goes unsigned. Where nobody else sends "
                 f'anything, let the relay take it all the same: "{own_name()} shadow {name} --for 10m".')  # fmt: skip
        return delivery


def _lend(answers: Mapping[str, Any], provider: Provider, source: Source | None) -> None:
    """Whoever is asked about a sample must know it: the sandbox, where the source asks that; the provider does not."""
    import httpx

    from relay.variables import api_base_variable, api_key_variable

    base = source.api_base if source else None
    if base is None or not terminal.is_here(httpx.URL(base).host):
        key, to = api_key_variable(provider.name), api_base_variable(provider.name)
        warn(f"the relay will ask {provider.title} about this sample, and it knows nothing of it. To try it whole, "
             f"start relay serve with {to}=http://127.0.0.1:8001 (a relay sandbox) and any {key}.")  # fmt: skip
        return
    try:
        with httpx.Client(trust_env=False) as http:
            http.put(f"{base}/answers", json=dict(answers)).raise_for_status()
    except httpx.HTTPError as error:
        fail(f"No sandbox at {base} that could answer for {provider.title}: {error}. Start one: relay sandbox.")


def _list_samples(
    provider: str | None, kind: str | None, settings: Settings, providers: Mapping[str, Provider], *, as_json: bool
) -> None:
    chosen = [_source_of(provider, settings, providers)[1]] if provider else list(providers.values())
    rows = [
        {"provider": one.name, "type": case.type, "variant": case.variant, "about": case.about,
         "option": one.optional.get(case.type)}
        for one in chosen for case in _cases(one, settings) if kind in (None, case.type)
    ]  # fmt: skip
    if as_json:
        show_json(rows)
        return
    for row in rows:
        option = f" (opt-in: {row['option']})" if row["option"] else ""
        out.print(f"{row['provider']} {row['type']} --variant {row['variant']}{option}", style="bold", markup=False)
        out.print(f"    {row['about']}", markup=False)
