"""The signature doctor: each cause is told from the others, and what can be proved is proved."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from relay.changed_bodies import likely_originals
from relay.contract import Accepted, Delivery, Provider, Reason, Refused, Verifier
from relay.diagnosing import Cause, Diagnosis, Known, diagnose
from relay.registry import load_providers
from relay.settings import load
from relay.sources import Source
from tests.subjects import SUBJECTS, Subject

PROVIDERS = load_providers(None)
NOW = 1_795_000_000_000
SECRET = "whsec_of_the_shop_in_live_mode"
PAYMENT = {"id": "evt_1", "type": "charge.succeeded", "livemode": True, "amount": 10.5, "name": "Jürgen", "url": "a/b"}
BODY = orjson.dumps(PAYMENT)

OURS = {
    "RELAY_STRIPE_SECRET": SECRET,
    "RELAY_GITHUB_SECRET": "octocat's own",
    "RELAY_SQUARE_SECRET": "the key of square",
    "RELAY_PUBLIC_URL": "https://relay.example",
}


def sources(tmp_path: Path, **variables: str) -> dict[str, Source]:
    config = tmp_path / "relay.toml"
    config.write_text('[sources.stripe-eu]\nprovider = "stripe"\nsecrets = ["whsec_of_the_shop_in_europe"]\n')
    environ = {**OURS, **variables}
    return dict(load(PROVIDERS, environ=environ, env_file=tmp_path / "none", config=config).sources)


@pytest.fixture
def known(tmp_path: Path) -> Known:
    return Known(sources=sources(tmp_path), providers=PROVIDERS, outcomes={})


def signed(
    body: bytes = BODY,
    *,
    secret: str = SECRET,
    provider: str = "stripe",
    now_ms: int = NOW,
    url: str = "",
    **headers: str,
) -> Delivery:
    url = url or f"https://relay.example/webhooks/{provider}"
    delivery = Delivery(body=body, headers={"content-type": "application/json", **headers}, url=url)
    return PROVIDERS[provider].verifier.sign(delivery, secret, now_ms=now_ms)


def refusal(source: Source, delivery: Delivery, now_ms: int = NOW) -> Reason:
    secrets = [secret.get_secret_value() for secret in source.secrets]
    verdict = PROVIDERS[source.provider].verifier.verify(
        delivery, secrets, now_ms=now_ms, tolerance_s=source.tolerance_s
    )
    assert isinstance(verdict, Refused)
    return verdict.reason


def why(known: Known, delivery: Delivery, slug: str = "stripe", now_ms: int = NOW) -> Diagnosis:
    source = known.sources[slug]
    return diagnose(source, delivery, refusal(source, delivery, now_ms), known=known, now_ms=now_ms)


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_the_secret_of_another_source_is_named(known: Known) -> None:
    found = why(known, signed(secret="whsec_of_the_shop_in_europe"))

    assert (found.cause, found.is_proved) == (Cause.OTHER_SOURCE, True)
    assert "stripe-eu" in found.words


def test_a_delivery_at_the_wrong_url_is_told_by_whose_it_is(known: Known) -> None:
    found = why(known, signed(b'{"zen": "x"}', provider="github", secret=OURS["RELAY_GITHUB_SECRET"]))

    assert found.cause is Cause.OTHER_SOURCE
    assert "GitHub" in found.words
    assert "/webhooks/github" in found.remedy


def test_an_api_key_in_place_of_the_secret_is_told(tmp_path: Path) -> None:
    given = sources(tmp_path, RELAY_STRIPE_SECRET="sk_live_abcdefgh")
    found = why(Known(sources=given, providers=PROVIDERS, outcomes={}), signed())

    assert found.cause is Cause.API_KEY
    assert "sk_live_abcdefgh" not in found.words + found.remedy


@pytest.mark.parametrize("pasted", [f'"{SECRET}"', SECRET.removeprefix("whsec_"), f"{SECRET[:9]} {SECRET[9:]}"])
def test_a_secret_that_was_pasted_wrongly_is_told(tmp_path: Path, pasted: str) -> None:
    given = sources(tmp_path, RELAY_STRIPE_SECRET=pasted)
    found = why(Known(sources=given, providers=PROVIDERS, outcomes={}), signed())

    assert (found.cause, found.is_proved) == (Cause.SECRET_FORM, True)


def test_no_words_hold_a_secret(known: Known, tmp_path: Path) -> None:
    deliveries = [signed(secret="whsec_of_the_shop_in_europe"), signed(secret="whsec_nobody_knows_this"), signed(b"x")]
    for delivery in (*deliveries, replace(signed(), body=BODY + b"\n")):
        if delivery.body != b"x":
            found = why(known, delivery)
            assert "whsec_of" not in found.words + found.remedy


def test_a_secret_that_nobody_knows_stays_unknown(known: Known) -> None:
    found = why(known, signed(secret="whsec_nobody_knows_this", via="1.1 proxy"))

    assert (found.cause, found.is_proved) == (Cause.UNKNOWN, False)
    assert "via" in found.remedy


@pytest.mark.parametrize(
    "livemode, outcomes, cause",
    [
        (False, {"mapped"}, Cause.TEST_OR_LIVE),
        (False, set[str](), Cause.TEST_OR_LIVE),
        (True, {"test"}, Cause.TEST_OR_LIVE),
        (False, {"mapped", "test"}, Cause.UNKNOWN),
        (True, {"mapped"}, Cause.UNKNOWN),
        (True, set[str](), Cause.UNKNOWN),
    ],
)
def test_the_other_modes_secret_is_supposed(
    known: Known,
    livemode: bool,  # noqa: FBT001
    outcomes: set[str],
    cause: Cause,
) -> None:
    body = orjson.dumps({**PAYMENT, "livemode": livemode})
    told = replace(known, outcomes={"stripe": outcomes})

    assert cause is why(told, signed(body, secret="whsec_nobody_knows_this")).cause


# --- bodies -----------------------------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "parsed and written with spaces": lambda raw: json.dumps(json.loads(raw)).encode(),
    "parsed and written with an indent": lambda raw: json.dumps(json.loads(raw), indent=2, ensure_ascii=False).encode(),
    "a line break added": lambda raw: raw + b"\n",
    "line breaks changed": lambda raw: raw.replace(b"\n", b"\r\n"),
    "written in Latin-1": lambda raw: raw.decode().encode("latin-1"),
    "encoded twice": lambda raw: raw.decode("cp1252").encode(),
    "compressed": lambda raw: gzip.compress(raw, mtime=0),
    "a byte order mark added": lambda raw: b"\xef\xbb\xbf" + raw,
}
BODIES = {
    "compact": BODY,
    "stripe's own": json.dumps(PAYMENT, indent=2, ensure_ascii=False).encode(),
    "ascii": json.dumps(PAYMENT).encode(),
    "with slashes": json.dumps(PAYMENT, separators=(",", ":")).replace("/", "\\/").encode(),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_body_that_was_changed_on_its_way_is_told(
    known: Known, body: bytes, change: Callable[[bytes], bytes]
) -> None:
    delivery = signed(body)
    try:
        changed = change(body)
    except UnicodeEncodeError:
        return
    if changed == body:
        return

    found = why(known, replace(delivery, body=changed))

    assert (found.cause, found.is_proved) == (Cause.BODY_CHANGED, True)


def test_numbers_keep_their_digits() -> None:
    originals = {body for _, body in likely_originals(b'{"amount": 10.00, "big": 12345678901234567890}')}

    assert b'{"amount":10.00,"big":12345678901234567890}' in originals


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[" * 5000, b"a=1&b=%zz", b"null", b'"\\ud800"', b"\x1f\x8bx"])
def test_no_body_is_too_odd(known: Known, body: bytes) -> None:
    delivery = replace(signed(), body=body)

    assert why(known, delivery).cause in {Cause.UNKNOWN, Cause.BODY_CHANGED}


# --- time, place, and what is not there -------------------------------------------------------------------------------


@pytest.mark.parametrize("off_s, words", [(301, "301 s"), (4000, "4000 s"), (-700, "in the future")])
def test_a_clock_that_is_off_is_told_to_the_second(known: Known, off_s: int, words: str) -> None:
    found = why(known, signed(now_ms=NOW - off_s * 1000))

    assert (found.cause, found.is_proved) == (Cause.CLOCK, True)
    assert words in found.words
    assert str(abs(off_s)) in found.words


def test_an_old_signature_is_told_from_a_clock(known: Known) -> None:
    assert "sent once more" in why(known, signed(now_ms=NOW - 5 * 86_400_000)).remedy


@pytest.mark.parametrize(
    "url",
    [
        "http://relay.example/webhooks/square",
        "https://relay.example/webhooks/square/",
        "https://hooks.shop.example/webhooks/square",
        "https://relay.example/webhooks/square?a=1",
    ],
)
def test_the_url_that_was_signed_is_found(known: Known, url: str) -> None:
    delivery = signed(provider="square", secret=OURS["RELAY_SQUARE_SECRET"], url=url, host="hooks.shop.example")
    came = replace(delivery, url="https://relay.example/webhooks/square", query="a=1" if "?" in url else "")

    found = why(known, came, "square")

    assert (found.cause, found.is_proved) == (Cause.URL, True)
    assert url.partition("?")[0] in found.words


def test_a_header_that_is_not_there_is_named(known: Known) -> None:
    found = why(known, Delivery(body=BODY, headers={"user-agent": "curl/8"}))

    assert found.cause is Cause.MISSING
    assert "stripe-signature" in found.words
    assert "curl/8" in found.words


def test_another_providers_header_is_recognised(known: Known) -> None:
    found = why(known, Delivery(body=BODY, headers={"paddle-signature": "ts=1;h1=ab"}))

    assert found.cause is Cause.OTHER_PROVIDER
    assert "Paddle" in found.words


def test_something_else_in_the_header_is_malformed(known: Known) -> None:
    assert why(known, Delivery(body=BODY, headers={"stripe-signature": "Bearer abc"})).cause is Cause.MALFORMED


@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
def test_no_family_makes_the_doctor_stumble(subject: Subject, known: Known) -> None:
    """Whatever the family and however it was refused, there is a diagnosis."""
    shop = known.sources["stripe"]
    provider = _with(PROVIDERS["stripe"], subject.verifier)
    told = replace(known, providers={**PROVIDERS, "stripe": provider}, sources={"stripe": shop})
    bare, sent = subject.delivery(), subject.signed()
    for delivery in (bare, sent, replace(sent, body=sent.body + b" "), subject.saying("x"), subject.saying("")):
        secrets = [secret.get_secret_value() for secret in shop.secrets]
        verdict = subject.verifier.verify(delivery, secrets, now_ms=NOW)
        if isinstance(verdict, Refused):
            assert diagnose(shop, delivery, verdict.reason, known=told, now_ms=NOW).words
        else:
            assert not isinstance(verdict, Accepted)


def _with(provider: Provider, verifier: Verifier) -> Provider:
    other: Any = replace(provider, verifier=verifier)
    return other  # type: ignore[no-any-return]
