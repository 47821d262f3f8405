"""A signature over bytes of the delivery: the family to which nearly all providers belong, as one value.

It says where the signature stands and in what form, which bytes are signed, with what kind of key, and where the
signed time is. `Either` is for providers with two schemes.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Protocol

from relay.keys import Mac, PublicKey, known
from relay.moments import Unit, read_ms, write
from relay.places import Reading, Template, put, reading
from relay.verification import (
    Accepted,
    Delivery,
    NeedsCertificate,
    Reason,
    Refused,
    Verdict,
    Verifier,
    never_raises,
    within,
)

#: Each of them costs a check, and strangers choose how many there are.
_MOST_SIGNATURES = 16

# --- the forms in which a signature is written ------------------------------------------------------------------------


class Form(Protocol):
    """How signatures, and the signed time where it stands beside them, are written in one text."""

    def read(self, text: str) -> tuple[str | None, list[str]]:
        """The time and the signatures. Raises `ValueError` for a text that is not of this form."""

    def write(self, timestamp: str, signature: str) -> str:
        """One signature as the provider would write it."""


@dataclass(frozen=True, slots=True)
class Plain:
    """The signature alone, behind a prefix that must be there; several only where a separator is given."""

    prefix: str = ""
    separator: str = ""

    def read(self, text: str) -> tuple[str | None, list[str]]:
        found = [one.strip() for one in text.split(self.separator)] if self.separator else [text]
        return None, [one.removeprefix(self.prefix) for one in found if one.startswith(self.prefix)]

    def write(self, timestamp: str, signature: str) -> str:
        del timestamp
        return self.prefix + signature


@dataclass(frozen=True, slots=True)
class Pairs:
    """`t=<time>,v1=<signature>[,v1=<signature>]`: one time, any number of signatures, other keys left alone."""

    time: str = "t"
    signature: str = "v1"
    separator: str = ","

    def read(self, text: str) -> tuple[str | None, list[str]]:
        times: set[str] = set()
        signatures: list[str] = []
        for pair in text.split(self.separator.strip()):
            key, _, value = pair.strip().partition("=")
            if key == self.time:
                times.add(value)
            elif key == self.signature:
                signatures.append(value)
        if len(times) > 1:
            msg = "two times, and no telling which is signed"
            raise ValueError(msg)
        return next(iter(times), None), signatures

    def write(self, timestamp: str, signature: str) -> str:
        return f"{self.time}={timestamp}{self.separator}{self.signature}={signature}"


@dataclass(frozen=True, slots=True)
class Listed:
    """`<time>,<signature>[,<signature>]`."""

    def read(self, text: str) -> tuple[str | None, list[str]]:
        timestamp, *signatures = (one.strip() for one in text.split(","))
        return timestamp, signatures

    def write(self, timestamp: str, signature: str) -> str:
        return f"{timestamp},{signature}"


@dataclass(frozen=True, slots=True)
class Versioned:
    """`v1,<signature> [v1,<signature>]`, as in Standard Webhooks; lists joined by ", " are taken too."""

    version: str = "v1"

    def read(self, text: str) -> tuple[str | None, list[str]]:
        found = [one.strip(",").partition(",") for one in text.split()]
        return None, [signature for version, _, signature in found if version == self.version]

    def write(self, timestamp: str, signature: str) -> str:
        del timestamp
        return f"{self.version},{signature}"


# --- the family -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A signature over a template of the delivery. Raises `ValueError` for a place, template or word that is none."""

    #: Where it may stand: one that fits is enough, and a time beside it is that of the first place.
    places: tuple[str, ...]
    form: Form = field(default_factory=Plain)
    message: Template = field(default_factory=lambda: Template("{body}"))
    check: Mac | PublicKey = field(default_factory=Mac)
    #: How the signed time is written; None where none is signed.
    unit: Unit | None = None
    #: Where the signed time stands; None: beside the signature.
    time: str | None = None
    #: Enforced both ways; None: not enforced unless a source asks for it.
    tolerance_s: int | None = None
    #: Pairs of places that must say the same where both say something: the first is signed, a mapper reads the other.
    same: tuple[tuple[str, str], ...] = ()
    #: Where one of a pair says something, the other must.
    is_same_asked: bool = False
    credentials = ()
    _places: tuple[Reading, ...] = field(init=False, compare=False, repr=False)
    _time: Reading | None = field(init=False, compare=False, repr=False)
    _same: tuple[tuple[Reading, Reading], ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.unit is not None:
            known(self.unit, Unit)
        object.__setattr__(self, "_places", tuple(reading(place) for place in self.places))
        object.__setattr__(self, "_time", None if self.time is None else reading(self.time))
        object.__setattr__(self, "_same", tuple((reading(one), reading(other)) for one, other in self.same))

    @property
    def family(self) -> str:
        places = " or ".join(place.removeprefix("header:") for place in self.places)
        return f"{self.check.words} of {self.message.words}, {self.check.encoding}, in {places}"

    @property
    def signs_url(self) -> bool:
        return self.message.signs_url

    @never_raises
    def verify(
        self, delivery: Delivery, secrets: Sequence[str], *, now_ms: int, tolerance_s: int | None = None
    ) -> Verdict:
        sent = [found for place in self._places if (found := place(delivery)) is not None]
        if not sent:
            return Refused(Reason.MISSING)
        timestamp, texts = self.form.read(sent[0])
        for other in sent[1:]:
            texts = [*texts, *self._texts(other)]
        if self._time is not None and (timestamp := self._time(delivery)) is None:
            return Refused(Reason.MISSING)
        signed_ms = None if self.unit is None else read_ms(timestamp or "", self.unit)
        signatures = self._decoded(texts)
        message = self.message.compose(delivery, timestamp or "")
        if message is None:
            return Refused(Reason.MISSING)
        for index, secret in enumerate(secrets):
            if secret and self.check.fits(secret, message, signatures):
                if not all(self._agree(delivery, one, other) for one, other in self._same):
                    return Refused(Reason.MISMATCH)
                limit_s = self.tolerance_s if tolerance_s is None else tolerance_s
                return within(signed_ms, now_ms=now_ms, tolerance_s=limit_s) or Accepted(index)
        return Refused(Reason.MISMATCH_OR_URL if self.message.signs_url else Reason.MISMATCH)

    def _texts(self, sent: str) -> list[str]:
        """Those of another place than the first, which need not be of the form."""
        try:
            return self.form.read(sent)[1]
        except ValueError:
            return []

    def _decoded(self, texts: list[str]) -> list[bytes]:
        """Those that can be signatures. Raises `ValueError` where none can, and where there are far too many."""
        if len(texts) > _MOST_SIGNATURES:
            msg = "more signatures than any rotation needs"
            raise ValueError(msg)
        found = []
        for text in texts:
            try:
                found.append(self.check.decode(text))
            except ValueError:
                if len(texts) == 1:
                    raise
        if not found:
            msg = "no signature of this form"
            raise ValueError(msg)
        return found

    def _agree(self, delivery: Delivery, one: Reading, other: Reading) -> bool:
        signed = one(delivery)
        try:
            told = other(delivery)
        except ValueError:  # an unreadable body says nothing
            told = None
        if signed is None or told is None:
            return signed is told or not self.is_same_asked
        return signed.lower() == told.lower()

    def fault(self, secret: str) -> str | None:
        return self.check.fault(secret)

    def sign(self, delivery: Delivery, secret: str, *, now_ms: int) -> Delivery:
        timestamp = write(now_ms, self.unit) if self.unit else ""
        for one, other in self.same:
            if reading(one)(delivery) is None and (told := reading(other)(delivery)) is not None:
                delivery = put(delivery, one, told)
        for place in self.message.needs:
            if reading(place)(delivery) is None:
                delivery = put(delivery, place, hashlib.sha256(delivery.body).hexdigest()[:50])
        if self.time is not None:
            delivery = put(delivery, self.time, timestamp)
        signature = self.check.sign(secret, self.message.compose(delivery, timestamp) or b"")
        return put(delivery, self.places[0], self.form.write(timestamp, self.check.encode(signature)))


# --- Stripe's ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StripeSignature:
    """Stripe's `t=<unix s>,v1=<hex>[,v1=<hex>]` over `{t}.{body}`, checked by Stripe's own `WebhookSignature`.

    What that leaves open is closed here: a time in the future, and bytes that make it raise.
    https://docs.stripe.com/webhooks#verify-manually (read 2026-11-20)
    """

    header: str = "Stripe-Signature"
    tolerance_s: int = 300
    signs_url = False
    credentials = ()

    @property
    def family(self) -> str:
        return f"HMAC-SHA256 of time and body, in {self.header} (Stripe)"

    @never_raises
    def verify(
        self, delivery: Delivery, secrets: Sequence[str], *, now_ms: int, tolerance_s: int | None = None
    ) -> Verdict:
        sent = delivery.headers.get(self.header.lower())
        if not sent:
            return Refused(Reason.MISSING)
        signed_s = next((int(part[2:]) for part in sent.split(",") if part.startswith("t=")), None)
        if signed_s is None or "v1=" not in sent:
            return Refused(Reason.MALFORMED)
        for index, secret in enumerate(secrets):
            if secret and self._fits(delivery.body, sent, secret):
                tolerance = self.tolerance_s if tolerance_s is None else tolerance_s
                return within(signed_s * 1000, now_ms=now_ms, tolerance_s=tolerance) or Accepted(index)
        return Refused(Reason.MISMATCH)

    @staticmethod
    def _fits(body: bytes, sent: str, secret: str) -> bool:
        try:
            return _stripe_check()(body, sent, secret)
        except Exception:  # noqa: BLE001  beside its own error it raises UnicodeDecodeError and TypeError
            return False

    def fault(self, secret: str) -> str | None:
        return None if secret.strip() else "is empty"

    def sign(self, delivery: Delivery, secret: str, *, now_ms: int) -> Delivery:
        t = now_ms // 1000
        mac = hmac.digest(secret.encode(), b"%d." % t + delivery.body, "sha256")
        headers = {**delivery.headers, self.header.lower(): f"t={t},v1={mac.hex()}"}
        return replace(delivery, headers=headers)


@cache
def _stripe_check() -> Callable[[bytes, str, str], bool]:
    import stripe  # noqa: PLC0415  a fifth of a second and 20 MB, for those who use it

    return stripe.WebhookSignature.verify_header


# --- two schemes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Either:
    """Accepts what one of them accepts. It signs as the first one that can: with this secret, what the delivery is."""

    verifiers: tuple[Verifier, ...]
    #: The family in words; empty: those of the verifiers.
    words: str = ""

    @property
    def family(self) -> str:
        return self.words or "; or ".join(verifier.family for verifier in self.verifiers)

    @property
    def tolerance_s(self) -> int | None:
        return next((verifier.tolerance_s for verifier in self.verifiers if verifier.tolerance_s is not None), None)

    @property
    def signs_url(self) -> bool:
        return any(verifier.signs_url for verifier in self.verifiers)

    @property
    def credentials(self) -> tuple[str, ...]:
        return tuple({name for verifier in self.verifiers for name in verifier.credentials})

    def verify(
        self, delivery: Delivery, secrets: Sequence[str], *, now_ms: int, tolerance_s: int | None = None
    ) -> Verdict:
        best: Verdict = Refused(Reason.MISSING)
        for verifier in self.verifiers:
            verdict = verifier.verify(delivery, secrets, now_ms=now_ms, tolerance_s=tolerance_s)
            if isinstance(verdict, Accepted):
                return verdict
            best = max(best, verdict, key=_telling)
        return best

    def fault(self, secret: str) -> str | None:
        faults = [verifier.fault(secret) for verifier in self.verifiers]
        return None if None in faults else faults[0]

    def sign(self, delivery: Delivery, secret: str, *, now_ms: int) -> Delivery:
        *others, last = [one for one in self.verifiers if one.fault(secret) is None] or self.verifiers[:1]
        for verifier in others:
            with suppress(ValueError):
                return verifier.sign(delivery, secret, now_ms=now_ms)
        return last.sign(delivery, secret, now_ms=now_ms)


#: The least telling first.
_REASONS = (
    Reason.MISSING,
    Reason.ERROR,
    Reason.MALFORMED,
    Reason.MISMATCH,
    Reason.MISMATCH_OR_URL,
    Reason.CERTIFICATE,
    Reason.STALE,
    Reason.FUTURE,
)


def _telling(verdict: Verdict) -> int:
    match verdict:
        case Refused(reason):
            return _REASONS.index(reason)
        case NeedsCertificate() | Accepted():
            return len(_REASONS)
