"""The signature doctor: why the signature of a delivery was refused, and what to do about it.

In: a refused delivery, the verifier's reason, and the sources with their secrets. Out: a `Diagnosis`, the first cause
that fits. Nearly all causes are proved: what is supposed is tried, and the signature then fits. Pure; it takes up to
some hundred checks, so that it has no place on the way of a webhook. No secret is ever part of its words.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from urllib.parse import unquote, urlsplit

from relay.changed_bodies import likely_originals
from relay.contract import Accepted, Delivery, Item, Provider, Reason, Verifier
from relay.sources import Source, slug_of
from relay.variables import secret_variable

_FOREVER_S = 10**9
#: A larger body is not tried in other forms.
_MOST_BYTES = 262_144
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


class Cause(StrEnum):
    """Why a signature does not fit. The value is what logs, metrics and pages show."""

    OTHER_SOURCE = "other_source"  #: a secret of another source fits
    OTHER_PROVIDER = "other_provider"  #: another provider sends such headers
    TEST_OR_LIVE = "test_or_live"  #: it is of the mode whose secret the source does not have
    API_KEY = "api_key"  #: the source's secret is another kind of key
    SECRET_FORM = "secret_form"  # noqa: S105  #: the secret was not pasted as it is
    BODY_CHANGED = "body_changed"  #: something on the way wrote the body anew
    CLOCK = "clock"  #: it fits, and its time is too far from ours
    URL = "url"  #: the URL that was signed is not the configured one
    MISSING = "missing"  #: nothing that could be the signature came
    MALFORMED = "malformed"  #: it is not of the provider's form
    CERTIFICATE = "certificate"  #: it names a certificate that is not the provider's
    UNKNOWN = "unknown"  #: nothing that was tried fits


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    cause: Cause
    #: What was found, in one sentence.
    words: str
    remedy: str
    #: Whether it was tried and fits; else it is what the signs point to.
    is_proved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the doctor knows besides the delivery."""

    sources: Mapping[str, Source]
    providers: Mapping[str, Provider]
    #: By source, the outcomes of what was taken so far: tells of which mode its secret is.
    outcomes: Mapping[str, Collection[str]]


def diagnose(source: Source, delivery: Delivery, reason: Reason, *, known: Known, now_ms: int) -> Diagnosis:
    """The cause that fits best. Never raises."""
    provider = known.providers[source.provider]
    found = (
        _other_source(source, delivery, known, now_ms)
        if reason not in {Reason.STALE, Reason.FUTURE}
        else _clock(source, provider, delivery, reason, now_ms)
    )
    if found is not None:
        return found
    if reason is Reason.MISSING:
        return _missing(provider, delivery, known)
    tries = (
        _secret(source, provider, delivery, now_ms),
        _url(source, provider, delivery, now_ms),
        _body(source, provider, delivery, now_ms),
        _wrong_key(source, provider),
        _mode(source, provider, delivery, known),
    )
    return next(filter(None, tries), None) or _unknown(source, provider, delivery, reason)


def fits(source: Source, verifier: Verifier, delivery: Delivery, *, now_ms: int) -> bool:
    """Whether one of the source's secrets fits, whatever the time."""
    return _fits(verifier, delivery, _secrets(source), now_ms)


def headers_of(verifier: Verifier) -> tuple[str, ...]:
    """The headers in which the verifier looks for a signature or a credential, in lower case."""
    found = list(verifier.credentials)
    for one in (verifier, *getattr(verifier, "verifiers", ()), getattr(verifier, "signature", None)):
        if one is None:
            continue
        found += [place.removeprefix("header:") for place in _places(one) if place.startswith("header:")]
        if one is not verifier:
            found += headers_of(one)
    return tuple(dict.fromkeys(name.lower() for name in found))


def asks_query(verifier: Verifier) -> bool:
    """Whether the secret itself stands in the URL, so that its query must not be kept."""
    inner = getattr(verifier, "verifiers", ())
    return any(place.startswith("query:") for place in _places(verifier)) or any(map(asks_query, inner)) or (
        type(verifier).__name__ == "SalesforceToken"
    )  # fmt: skip


def _places(verifier: object) -> Sequence[str]:
    place, header = getattr(verifier, "place", None), getattr(verifier, "header", None)
    return (
        *getattr(verifier, "places", ()),
        *((place,) if isinstance(place, str) else ()),
        *((f"header:{header}",) if isinstance(header, str) else ()),
    )


def _secrets(source: Source) -> list[str]:
    return [secret.get_secret_value() for secret in source.secrets]


def _fits(
    verifier: Verifier, delivery: Delivery, secrets: Sequence[str], now_ms: int, within_s: int = _FOREVER_S
) -> bool:
    return isinstance(verifier.verify(delivery, secrets, now_ms=now_ms, tolerance_s=within_s), Accepted)


# --- what is tried ----------------------------------------------------------------------------------------------------


def _other_source(source: Source, delivery: Delivery, known: Known, now_ms: int) -> Diagnosis | None:
    for other in known.sources.values():
        verifier = known.providers[other.provider].verifier
        if other.slug == source.slug or not fits(other, verifier, delivery, now_ms=now_ms):
            continue
        if other.provider == source.provider:
            return Diagnosis(
                cause=Cause.OTHER_SOURCE,
                words=f"the secret of source {other.slug} fits{_of_mode(known.providers[other.provider], delivery)}",
                remedy=f"Let this endpoint call /webhooks/{other.slug}, or give source {source.slug} its own secret: "
                "the two were mixed up.",
                is_proved=True,
            )
        title = known.providers[other.provider].title
        return Diagnosis(
            cause=Cause.OTHER_SOURCE,
            words=f"it comes from {title}: the secret of source {other.slug} fits",
            remedy=f"Correct the URL at {title}: it must end in /webhooks/{other.slug}.",
            is_proved=True,
        )
    return None


def _clock(source: Source, provider: Provider, delivery: Delivery, reason: Reason, now_ms: int) -> Diagnosis:
    off_s = _offset(source, provider.verifier, delivery, now_ms)
    limit_s = source.tolerance_s or provider.verifier.tolerance_s
    if reason is Reason.FUTURE:
        words = f"it fits, but was signed {_span(off_s)} ({off_s} s) in the future; {limit_s} s are allowed"
        return Diagnosis(
            cause=Cause.CLOCK, words=words, is_proved=True,
            remedy="This machine's clock is behind: set it by NTP. `relay doctor` compares it with the destination's.",
        )  # fmt: skip
    words = f"it fits, but was signed {_span(off_s)} ({off_s} s) before it came; {limit_s} s are allowed"
    remedy = (
        "This machine's clock is ahead (set it by NTP; `relay doctor` compares it), or something on the way held the "
        "delivery up."
    )
    if off_s >= _DAY:
        remedy = (
            "An old delivery was sent once more with its old signature: by a tool that replays what it captured, or by "
            "a stranger. Have the provider resend it, or take the facts from its API: `relay backfill`."
        )
    return Diagnosis(cause=Cause.CLOCK, words=words, remedy=remedy, is_proved=True)


def _offset(source: Source, verifier: Verifier, delivery: Delivery, now_ms: int) -> int:
    """By how many seconds the signed time is off: the smallest tolerance that would accept it."""
    low, high = 0, _FOREVER_S
    while low < high:
        middle = (low + high) // 2
        if _fits(verifier, delivery, _secrets(source), now_ms, middle):
            high = middle
        else:
            low = middle + 1
    return low


def _secret(source: Source, provider: Provider, delivery: Delivery, now_ms: int) -> Diagnosis | None:
    """The secret in another form: as it should have been pasted."""
    for number, secret in enumerate(_secrets(source), 1):
        for words, other in _forms(secret, provider.secret.prefix):
            if other and other != secret and _fits(provider.verifier, delivery, [other], now_ms):
                return Diagnosis(
                    cause=Cause.SECRET_FORM,
                    words=f"secret {number} fits {words}",
                    remedy=f"Correct {_where(source)}: paste it once more, exactly as {provider.title} shows it.",
                    is_proved=True,
                )
    return None


def _forms(secret: str, prefix: str) -> Iterator[tuple[str, str]]:
    yield "without the quotation marks around it", secret.strip().strip("\"'")
    yield "without the white space in it", "".join(secret.split())
    yield "without the line break at its end", secret.replace("\\n", "").replace("\\r", "")
    if prefix:
        yield f"with {prefix} in front of it", prefix + secret
        yield f"without {prefix} in front of it", secret.removeprefix(prefix)
        yield f"without what stands before {prefix}", secret[max(0, secret.find(prefix)) :]
    yield "once its percent signs are decoded", unquote(secret)
    yield "with = at its end", secret + "="
    yield "with == at its end", secret + "=="
    yield "without $$ for each dollar sign", secret.replace("$$", "$")


def _url(source: Source, provider: Provider, delivery: Delivery, now_ms: int) -> Diagnosis | None:
    if not provider.verifier.signs_url:
        return None
    configured = delivery.url.partition("?")[0]
    for base in _urls(source, delivery):
        for url in (base, f"{base}?{delivery.query}" if delivery.query else base):
            if url != delivery.url and fits(source, provider.verifier, replace(delivery, url=url), now_ms=now_ms):
                return Diagnosis(
                    cause=Cause.URL,
                    words=f"{provider.title} signed the URL {base}, and the settings say {configured or 'nothing'}",
                    remedy=f"Set public_url of source {source.slug} (or RELAY_PUBLIC_URL, without /webhooks/...) to "
                    f"{base}, or type {configured or 'the other'} at {provider.title}.",
                    is_proved=True,
                )
    return None


def _urls(source: Source, delivery: Delivery) -> Iterator[str]:
    """What the provider may have called: by the settings, and by what proxies say."""
    headers, path = delivery.headers, f"/webhooks/{source.slug}"
    told = urlsplit(delivery.url)
    hosts = [told.netloc, told.hostname or ""]
    for name in ("x-forwarded-host", "x-original-host", "host"):
        host = headers.get(name, "").partition(",")[0].strip()
        hosts += [host, host.partition(":")[0]]
    prefix = headers.get("x-forwarded-prefix", "").partition(",")[0].strip().rstrip("/")
    paths = [path, told.path, f"{prefix}{path}", headers.get("x-original-uri", "").partition("?")[0]]
    paths += [f"{one.rstrip('/')}/" for one in paths] + [one.rstrip("/") for one in paths] + [""]
    for host in dict.fromkeys(filter(None, hosts)):
        for scheme in ("https", "http"):
            for one in dict.fromkeys(paths):
                yield f"{scheme}://{host}{one}"


def _body(source: Source, provider: Provider, delivery: Delivery, now_ms: int) -> Diagnosis | None:
    if not delivery.body or len(delivery.body) > _MOST_BYTES:
        return None
    for words, body in likely_originals(delivery.body):
        if fits(source, provider.verifier, replace(delivery, body=body), now_ms=now_ms):
            return Diagnosis(
                cause=Cause.BODY_CHANGED,
                words=f"the body was changed on its way: it fits {words}",
                remedy="Something in front of the relay (a proxy, a gateway, a function) reads the body and writes it "
                "anew. Let it pass the raw bytes on.",
                is_proved=True,
            )
    return None


# --- what the signs point to ------------------------------------------------------------------------------------------


def _missing(provider: Provider, delivery: Delivery, known: Known) -> Diagnosis:
    wanted = headers_of(provider.verifier)
    for other in known.providers.values():
        theirs = [name for name in headers_of(other.verifier) if name in delivery.headers and name not in wanted]
        if other.name != provider.name and theirs and theirs[0] != "authorization":
            return Diagnosis(
                cause=Cause.OTHER_PROVIDER,
                words=f"there is no signature of {provider.title}, but {theirs[0]}, as {other.title} sends it",
                remedy=f"Correct the URL at {other.title}: its source is /webhooks/{slug_of(other.name)} "
                f"({secret_variable(other.name)} switches it on).",
                is_proved=False,
            )
    agent = delivery.headers.get("user-agent", "nobody who says its name")[:60]
    where = " or ".join(wanted) or "the URL or the body"
    return Diagnosis(
        cause=Cause.MISSING,
        words=f"nothing stands where the signature belongs ({where}); sent by {agent}",
        remedy=f"If it came from {provider.title}: set a signing secret there, and see that no proxy drops the header. "
        "Else somebody tries: nothing was taken.",
        is_proved=True,
    )


def _wrong_key(source: Source, provider: Provider) -> Diagnosis | None:
    for number, secret in enumerate(_secrets(source), 1):
        what = next((what for prefix, what in provider.secret.mistaken.items() if secret.startswith(prefix)), None)
        if what is not None:
            return Diagnosis(
                cause=Cause.API_KEY,
                words=f"secret {number} is {what}, and not the signing secret",
                remedy=f"Correct {_where(source)}. {provider.secret.meaning}",
                is_proved=False,
            )
        fault = provider.verifier.fault(secret)
        if fault is not None:
            return Diagnosis(
                cause=Cause.SECRET_FORM,
                words=f"secret {number} {fault}",
                remedy=f"Correct {_where(source)}. {provider.secret.meaning}",
                is_proved=False,
            )
    return None


def _mode(source: Source, provider: Provider, delivery: Delivery, known: Known) -> Diagnosis | None:
    is_test = _is_test(provider, delivery)
    seen = set(known.outcomes.get(source.slug, ()))
    took_test, took_live = "test" in seen, bool(seen - {"test"})
    if is_test is None or (is_test and took_test) or (not is_test and (took_live or not took_test)):
        return None
    its, ours = ("test", "live") if is_test else ("live", "test")
    return Diagnosis(
        cause=Cause.TEST_OR_LIVE,
        words=f"it is of {its} mode, and nothing of {its} mode was ever taken here: the secret is probably that of "
        f"{ours} mode",
        remedy=f"Test and live have an endpoint and a secret each. Add the secret of {its} mode to {_where(source)}, "
        f"behind a comma, or remove the endpoint of {its} mode at {provider.title}.",
        is_proved=False,
    )


def _is_test(provider: Provider, delivery: Delivery) -> bool | None:
    """Whether it says that it is of test mode; None where it cannot be read."""
    if len(delivery.body) > _MOST_BYTES:
        return None
    with contextlib.suppress(Exception):  # nobody vouches for these bytes
        items = provider.split(delivery)[:20]
        return bool(items) and all(provider.is_test(Item(item, delivery.headers)) for item in items)
    return None


def _of_mode(provider: Provider, delivery: Delivery) -> str:
    return ", and the delivery is of test mode" if _is_test(provider, delivery) else ""


def _unknown(source: Source, provider: Provider, delivery: Delivery, reason: Reason) -> Diagnosis:
    if reason is Reason.MALFORMED:
        return Diagnosis(
            cause=Cause.MALFORMED,
            words=f"what stands there is no signature as {provider.title} writes it",
            remedy=f"See whether it comes from {provider.title} at all, and whether a proxy rewrites headers.",
            is_proved=True,
        )
    if reason is Reason.CERTIFICATE:
        return Diagnosis(
            cause=Cause.CERTIFICATE,
            words=f"it names a certificate that is not one of {provider.title}'s, or not valid now",
            remedy="Nothing was taken. See that this machine's clock is right; else somebody tries.",
            is_proved=True,
        )
    passed = [name for name in ("via", "x-forwarded-for", "cf-ray", "x-amzn-trace-id") if name in delivery.headers]
    through = f" It came through a proxy ({', '.join(passed)}), which may change bodies." if passed else ""
    count = len(source.secrets)
    return Diagnosis(
        cause=Cause.UNKNOWN,
        words=f"{'the secret' if count == 1 else f'none of the {count} secrets'} of {source.slug} "
        f"{'does not fit' if count == 1 else 'fits'} in any form that was tried, nor does one of another source",
        remedy=f"Most likely the secret belongs to another endpoint: copy the one of this URL into {_where(source)}. "
        f"{provider.secret.meaning}.{through}",
        is_proved=False,
    )


def _where(source: Source) -> str:
    if source.slug == slug_of(source.provider):
        return f"{secret_variable(source.provider)} (or secrets of source {source.slug} in relay.toml)"
    return f"secrets of source {source.slug} in relay.toml"


def _span(seconds: int) -> str:
    for size, name in ((_DAY, "days"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {name}"
    return f"{seconds} s"
