"""Sources: each with its address, how it is doing, how to set it up, and a test that changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import Response

from relay.contract import Accepted, Delivery, Provider
from relay.openanalytics import Finding, OpenAnalytics
from relay.pages.health import SourceHealth
from relay.pages.overview import healths
from relay.pages.visits import Visit, refused
from relay.source_states import DAY_MS
from relay.sources import Source, slug_of
from relay.variables import enable_variable, secret_variable

_ORDER = ("bad", "warn", "ok", "quiet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    source: Source
    provider: Provider
    health: SourceHealth
    url: str
    #: What came in the last day.
    day: int
    tick: Sequence[str]
    opt_in: Sequence[tuple[str, str, bool, Sequence[str]]]
    secret_variable: str
    enable_variable: str


@dataclass(frozen=True, slots=True)
class Check:
    tone: str
    words: str
    remedy: str = ""


async def show(visit: Visit) -> Response:
    settings, providers = visit.things.settings, visit.things.providers
    day = await visit.console.counted(width_ms=DAY_MS, since_ms=visit.now_ms - DAY_MS)
    came: dict[str, int] = {}
    for count in day.counts:
        if count.measure == "deliveries":
            came[count.source] = came.get(count.source, 0) + count.n
    shown = [
        _shown(visit, settings.sources[health.slug], health, came.get(health.slug, 0))
        for health in await healths(visit)
    ]
    used = {source.provider for source in settings.sources.values()}
    others = [
        (provider, secret_variable(provider.name), f"/webhooks/{slug_of(provider.name)}")
        for name, provider in sorted(providers.items())
        if name not in used
    ]
    shown.sort(key=lambda one: (_ORDER.index(one.health.tone), one.source.slug))
    return visit.page("sources.html", sources=shown, others=others)


def _shown(visit: Visit, source: Source, health: SourceHealth, day: int) -> Shown:
    provider = visit.things.providers[source.provider]
    base = visit.things.settings.public_url or str(visit.request.base_url).rstrip("/")
    optional = {
        option: sorted(kind for kind, needs in provider.optional.items() if needs == option)
        for option in provider.options
    }
    return Shown(
        source=source,
        provider=provider,
        health=health,
        url=source.public_url or f"{base}/webhooks/{source.slug}",
        day=day,
        tick=sorted(kind for kind in provider.mappers if provider.optional.get(kind) in {None, *source.enabled}),
        opt_in=[(name, meaning, name in source.enabled, optional[name]) for name, meaning in provider.options.items()],
        secret_variable=secret_variable(provider.name),
        enable_variable=enable_variable(provider.name),
    )


async def test(visit: Visit, _fields: object) -> Response:
    """Everything of a source that can be tried without a sale in the books: nothing is stored, nothing is sent."""
    slug = str(visit.request.path_params["slug"])
    source = visit.things.settings.sources.get(slug)
    if source is None:
        return refused(visit, 404, "No source has this name.")
    await visit.note("tested a source", slug)
    provider = visit.things.providers[source.provider]
    checks = [*_secrets(source, provider), *_signature(visit, source, provider), await _destination(visit, source)]
    return visit.page("source_test.html", slug=slug, checks=checks)


def _secrets(source: Source, provider: Provider) -> list[Check]:
    found = []
    for position, secret in enumerate(source.secrets, 1):
        fault = provider.verifier.fault(secret.get_secret_value())
        if fault is not None:
            found.append(Check("bad", f"Secret {position} {fault}.", provider.secret.meaning))
    if provider.verifier.signs_url and not source.public_url:
        words = f"{provider.title} signs the URL that it calls, and the relay is not told what that is."
        found.append(Check("bad", words, "Set RELAY_PUBLIC_URL, or public_url of the source in relay.toml."))
    return found or [Check("ok", "The secret has the right shape.")]


def _signature(visit: Visit, source: Source, provider: Provider) -> list[Check]:
    """A delivery signed with each secret must be accepted with it."""
    found = []
    for position, hidden in enumerate(source.secrets, 1):
        secret = hidden.get_secret_value()
        try:
            unsigned = Delivery(body=b"{}", headers={}, url=source.public_url or "")
            signed = provider.verifier.sign(unsigned, secret, now_ms=visit.now_ms)
        except ValueError:
            found.append(Check("info", f"{provider.title} signs with a key of its own, which only it can try."))
            break
        verdict = provider.verifier.verify(signed, (secret,), now_ms=visit.now_ms)
        if isinstance(verdict, Accepted):
            found.append(Check("ok", f"A delivery signed with secret {position} is accepted."))
        else:
            found.append(Check("warn", f"A delivery signed with secret {position} is not accepted.", str(verdict)))
    return found


async def _destination(visit: Visit, source: Source) -> Check:
    destination = visit.things.settings.destinations[source.destination]
    client = OpenAnalytics(
        destination.base_url, destination.project_id, destination.api_key.get_secret_value(), timeout_s=5.0,
        batch_body=destination.batch_body,
    )  # fmt: skip
    async with client:
        check = await client.check()
    tone = {Finding.READY: "ok", Finding.UNREACHABLE: "warn"}.get(check.finding, "bad")
    return Check(tone, f"Destination {destination.name} {check.words}", "" if tone == "ok" else "Check its settings.")
