"""Templates, the words and numbers in them, and the headers that every page goes out with."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from relay.store.counting import MICROS

_HERE = Path(__file__).parent
STATIC = _HERE / "static"

#: Nothing but what comes from here, no inline scripts or styles, and no page of ours in a frame.
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_DIGITS = re.compile(r'"\\u0000([-+.0-9eE]+)\\u0000"')

#: How each status looks and is called, wherever it stands.
STATUSES: dict[str, tuple[str, str]] = {
    "mapped": ("ok", "mapped"),
    "ignored": ("quiet", "left out"),
    "test": ("quiet", "test mode"),
    "not_mapped": ("warn", "not mapped"),
    "failed": ("bad", "mapper failed"),
    "to_do": ("info", "to be asked"),
    "sent": ("ok", "sent"),
    "pending": ("info", "pending"),
    "batched": ("info", "in a batch"),
    "waiting": ("info", "waiting"),
    "dead": ("bad", "dead letter"),
    "doubted": ("warn", "was in doubt"),
    "in_doubt": ("warn", "in doubt"),
    "held": ("warn", "held in doubt"),
    "retry": ("warn", "to be tried again"),
    "sending": ("info", "being sent"),
    "done": ("ok", "done"),
    "duplicate": ("quiet", "duplicate"),
}

#: Why a verifier refuses.
REASONS = {
    "missing": "no signature came",
    "malformed": "the signature cannot be read",
    "stale": "the signed time is too old",
    "future": "the signed time is still to come",
    "mismatch": "the signature does not fit",
    "mismatch_or_url": "the signature does not fit, or the URL is another one",
    "certificate": "its certificate is not of the provider",
    "error": "the check itself failed",
}


#: What `relay.diagnosing` found, in a word or two.
CAUSES = {
    "other_source": "secret of another source",
    "other_provider": "another provider",
    "test_or_live": "test and live mixed up",
    "api_key": "not a signing secret",
    "secret_form": "secret not pasted whole",
    "body_changed": "body changed on the way",
    "clock": "clock",
    "url": "another URL",
    "missing": "no signature",
    "malformed": "signature unreadable",
    "certificate": "wrong certificate",
    "unknown": "no secret fits",
}


def sentence(words: str) -> str:
    """With a capital at its beginning."""
    return words[:1].upper() + words[1:]


def ago(at_ms: int | None, now_ms: int) -> str:
    """How long ago, in the largest unit that says enough."""
    if at_ms is None:
        return "never"
    return f"{span(max(0, now_ms - at_ms) / 1000)} ago"


def span(seconds: float) -> str:
    """`42 s`, `5 min`, `3 h`, `12 days`."""
    whole = int(seconds)
    if whole < 2 * _MINUTE:
        return f"{whole} s"
    if whole < 2 * _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < 2 * _DAY:
        return f"{whole // _HOUR} h"
    return f"{whole // _DAY} days"


def instant(at_ms: int | None) -> str:
    return "" if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def iso(at_ms: int | None) -> str:
    return "" if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def number(n: float) -> str:
    """With thin spaces between the thousands."""
    return f"{n:,}".replace(",", "\u202f")


def short(n: int) -> str:
    """`1.2 k`, `3.4 M`: for tiles and axes."""
    for limit, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (10_000, "k")):
        if abs(n) >= limit:
            return f"{n / (1000 if unit == 'k' else limit):.1f}".removesuffix(".0") + f"\u202f{unit}"
    return number(n)


def money(micros: int, currency: str) -> str:
    """`1 234.50 EUR`, with as many digits as the currency has."""
    from relay.money import exponent  # noqa: PLC0415  only pages with money need the table of currencies

    try:
        digits = exponent(currency)
    except ValueError:
        digits = 2
    amount = (Decimal(micros) / MICROS).quantize(Decimal(1).scaleb(-digits))
    return f"{amount:,}".replace(",", "\u202f")


def pretty(raw: object) -> str:
    """JSON with an indent, its decimals with every digit; anything else as the text that it is."""
    if isinstance(raw, str):
        return raw
    if isinstance(raw, bytes):
        try:
            raw = json.loads(raw, parse_float=lambda digits: f"\0{digits}\0")
        except ValueError:
            return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else ""
    return _DIGITS.sub(r"\1", json.dumps(raw, indent=2, ensure_ascii=False, default=str))


def pill(status: str, words: str | None = None) -> Markup:
    """A status as a coloured word."""
    tone, called = STATUSES.get(status, ("quiet", status))
    return Markup('<span class="pill {}">{}</span>').format(tone, words or called)


def tone_pill(tone: str, words: str) -> Markup:
    """Any word as a coloured one."""
    return Markup('<span class="pill {}">{}</span>').format(tone, words)


def when(at_ms: int | None, now_ms: int) -> Markup:
    """A moment: how long ago, with the exact time as its title."""
    if at_ms is None:
        return Markup('<span class="muted">never</span>')
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(iso(at_ms), instant(at_ms), ago(at_ms, now_ms))


@cache
def static_url(name: str) -> str:
    """Where a file of ours is, with what it holds in its name, so that it can be kept for ever."""
    return f"/admin/static/{name}?v={hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"


@cache
def templates() -> Environment:
    """The templates. Everything that is put into one is escaped."""
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined, auto_reload=False,
    )  # fmt: skip
    environment.filters |= {
        "number": number, "short": short, "instant": instant, "iso": iso, "pretty": pretty, "money": money,
        "span": span, "sentence": sentence,
    }  # fmt: skip
    environment.globals |= {
        "pill": pill,
        "tone_pill": tone_pill,
        "static": static_url,
        "statuses": STATUSES,
        "reasons": REASONS,
        "causes": CAUSES,
        "ago": ago,
        "when": when,
    }
    return environment


def render(template: str, **values: Any) -> str:
    return templates().get_template(template).render(**values)


__all__ = ["HEADERS", "STATIC", "STATUSES", "ago", "escape", "render", "span"]
