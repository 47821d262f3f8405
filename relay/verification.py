"""What arrives, and what is said about its signature: the part of the contract that verifiers keep.

In: a `Delivery` and the source's secrets. Out: a `Verdict`. A verifier is a frozen value with pure methods; whatever
bytes it is given, it answers, and never raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import wraps
from typing import Any, ParamSpec, Protocol

P = ParamSpec("P")


@dataclass(slots=True, kw_only=True, unsafe_hash=True)  # not frozen: that costs a call per field
class Delivery:
    """One HTTP request of a provider, as it arrived."""

    body: bytes
    #: Header names in lower case. A header that came twice holds both values, joined by ", ".
    headers: Mapping[str, str]
    #: The URL as the provider knows it (from the configuration, never from `Host`), query included.
    url: str = ""
    method: str = "POST"
    #: The query string as it arrived, without the question mark.
    query: str = ""
    #: The certificates that the relay has fetched so far, PEM by URL, for providers that sign with one.
    certificates: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    #: What the provider's API has said about it (see `relay.asking`), by `Ask.key`; None: it was not asked.
    answers: Mapping[str, Any] | None = field(default=None, repr=False)


class Reason(StrEnum):
    """Why a signature was refused. The value is what logs, metrics and pages show."""

    MISSING = "missing"  #: the header (or field) that should carry the signature is not there
    MALFORMED = "malformed"  #: it is there, but not of the provider's form
    MISMATCH = "mismatch"  #: it does not fit the bytes under any of the source's secrets
    MISMATCH_OR_URL = "mismatch_or_url"  #: the same, where the URL is signed too and may differ from the configured one
    CERTIFICATE = "certificate"  #: it names a certificate that is not the provider's, or not valid now
    STALE = "stale"  #: it fits, but was made too long ago
    FUTURE = "future"  #: it fits, but claims to be made too far in the future
    ERROR = "error"  #: the check itself failed on these bytes; counts as refused


@dataclass(frozen=True, slots=True)
class Accepted:
    #: Which of the source's secrets fitted, from 0: tells when an old one can be deleted.
    secret: int


@dataclass(frozen=True, slots=True)
class Refused:
    reason: Reason


@dataclass(frozen=True, slots=True)
class NeedsCertificate:
    """Undecided: the check can be made once this certificate is among `Delivery.certificates`."""

    #: On a host and path that are the provider's alone.
    url: str


Verdict = Accepted | Refused | NeedsCertificate


class KeptKeyError(ValueError):
    """Only the provider can sign: it keeps the private key to itself."""


class Verifier(Protocol):
    """Checks the raw bytes in constant time. All methods are pure; `verify` never raises, whatever the bytes."""

    @property
    def family(self) -> str:
        """The signature family, in words, for `relay providers`."""

    @property
    def tolerance_s(self) -> int | None:
        """How far the signed time may lie from now, both ways; None where no time is signed or none is enforced."""

    @property
    def signs_url(self) -> bool:
        """Whether the URL is signed, so that the relay must be told what the provider calls."""

    @property
    def credentials(self) -> tuple[str, ...]:
        """Headers that carry the secret itself and not a signature, in lower case: they must not be stored."""

    def verify(
        self, delivery: Delivery, secrets: Sequence[str], *, now_ms: int, tolerance_s: int | None = None
    ) -> Verdict:
        """Accept when any of the secrets fits. `tolerance_s` None means the provider's own."""

    def fault(self, secret: str) -> str | None:
        """What is wrong with the form of a secret ("is not hexadecimal"); None where nothing is."""

    def sign(self, delivery: Delivery, secret: str, *, now_ms: int) -> Delivery:
        """The delivery as the provider would send it, for samples and tests.

        `secret` is the source's own, but with public keys and certificates, whose family says what signs. Raises
        `ValueError` where it cannot sign, `KeptKeyError` where that needs a key which only the provider has.
        """


def within(signed_ms: int | None, *, now_ms: int, tolerance_s: int | None) -> Refused | None:
    """Refuse a signed time that lies too far from now, in either direction; with no time or no limit, nothing."""
    if signed_ms is None or tolerance_s is None:
        return None
    if now_ms - signed_ms > tolerance_s * 1000:
        return Refused(Reason.STALE)
    if signed_ms - now_ms > tolerance_s * 1000:
        return Refused(Reason.FUTURE)
    return None


def never_raises(verify: Callable[P, Verdict]) -> Callable[P, Verdict]:
    """The promise of every `verify`: a `ValueError` is about the form of the bytes, anything else is a failed check."""

    @wraps(verify)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Verdict:
        try:
            return verify(*args, **kwargs)
        except ValueError:
            return Refused(Reason.MALFORMED)
        except Exception:  # noqa: BLE001  strangers choose the bytes
            return Refused(Reason.ERROR)

    return guarded
