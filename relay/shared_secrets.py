"""The secret itself instead of a signature: what providers offer that sign nothing.

Whoever reads such a delivery can send others, so the header that carries it is a credential and is not stored.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from relay.places import Reading, put, reading
from relay.verification import Accepted, Delivery, Reason, Refused, Verdict, Verifier, never_raises

_AUTHORIZATION = "authorization"


def _first(sent: bytes, secrets: Sequence[str]) -> Verdict:
    for index, secret in enumerate(secrets):
        if secret and hmac.compare_digest(sent, secret.encode()):
            return Accepted(index)
    return Refused(Reason.MISMATCH)


def _bytes(text: str) -> bytes:
    """A header's bytes as they came; the text of anything else in UTF-8."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


@dataclass(frozen=True, slots=True)
class Token:
    """The secret at a place: a header, a parameter of the query, a field of the body."""

    place: str
    #: What stands before it in the header, in any case: `Bearer`.
    scheme: str = ""
    tolerance_s = None
    signs_url = False
    _read: Reading = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_read", reading(self.place))

    @property
    def family(self) -> str:
        kind, _, name = self.place.partition(":")
        where = {"header": "", "query": "the URL's "}.get(kind, "the body's ")
        return f"no signature: {'bearer' if self.scheme else 'shared'} token in {where}{name}"

    @property
    def credentials(self) -> tuple[str, ...]:
        kind, _, name = self.place.partition(":")
        return (name.lower(),) if kind == "header" else ()

    @never_raises
    def verify(
        self, delivery: Delivery, secrets: Sequence[str], *, now_ms: int, tolerance_s: int | None = None
    ) -> Verdict:
        del now_ms, tolerance_s  # nothing says when
        sent = self._read(delivery)
        if sent is None:
            return Refused(Reason.MISSING)
        if self.scheme:
            scheme, _, sent = sent.partition(" ")
            if scheme.lower() != self.scheme.lower() or not sent:
                return Refused(Reason.MALFORMED)
        return _first(_bytes(sent) if self.place.startswith("header:") else sent.encode(), secrets)

    def fault(self, secret: str) -> str | None:
        return None if secret else "is empty"

    def sign(self, delivery: Delivery, secret: str, *, now_ms: int) -> Delivery:
        del now_ms
        value = secret.encode().decode("latin-1") if self.place.startswith("header:") else secret
        return put(delivery, self.place, f"{self.scheme} {value}".lstrip())


#: A token and the organization that it is for.
_FOR_ORGANIZATION = re.compile(r"(.+):(00D[0-9A-Za-z]{12})(?:[0-9A-Za-z]{3})?", re.DOTALL)
#: The element of an outbound message, whatever its prefix. Of its 18 characters the last three are a checksum.
_ORGANIZATION = re.compile(rb"<(?:[\w.-]+:)?OrganizationId[^<>]{0,200}>\s*([0-9A-Za-z]{15})(?:[0-9A-Za-z]{3})?\s*<")


@dataclass(frozen=True, slots=True)
class SalesforceToken:
    """A token in the URL. A secret `token:00D...` asks for that organization as well, which the message names.

    Organizations are no secret: this tells apart two that know one token, and stops nobody who has read it.
    """

    tolerance_s = None
    signs_url = False
    credentials = ()

    @property
    def family(self) -> str:
        return (
            "no signature: shared token in the URL's token; with a secret token:00D..., the message's organization too"
        )

    @never_raises
    def verify(
        self, delivery: Delivery, secrets: Sequence[str], *, now_ms: int, tolerance_s: int | None = None
    ) -> Verdict:
        del tolerance_s
        tokens = [self._parts(secret) for secret in secrets]
        found = Token("query:token").verify(delivery, [token for token, _ in tokens], now_ms=now_ms)
        if not isinstance(found, Accepted):
            return found
        fitting, told = tokens[found.secret][0], {one.decode() for one in _ORGANIZATION.findall(delivery.body)}
        for index, (token, organization) in enumerate(tokens):
            if token == fitting and (not organization or told == {organization}):
                return Accepted(index)
        return Refused(Reason.MISMATCH)

    @staticmethod
    def _parts(secret: str) -> tuple[str, str]:
        found = _FOR_ORGANIZATION.fullmatch(secret)
        return (found[1], found[2]) if found else (secret, "")

    def fault(self, secret: str) -> str | None:
        return None if secret else "is empty"

    def sign(self, delivery: Delivery, secret: str, *, now_ms: int) -> Delivery:
        return Token("query:token").sign(delivery, self._parts(secret)[0], now_ms=now_ms)


@dataclass(frozen=True, slots=True)
class Basic:
    """HTTP Basic authentication. The secret is `user:password`."""

    tolerance_s = None
    signs_url = False
    credentials = (_AUTHORIZATION,)

    @property
    def family(self) -> str:
        return "no signature: user and password (Basic) in Authorization"

    @never_raises
    def verify(
        self, delivery: Delivery, secrets: Sequence[str], *, now_ms: int, tolerance_s: int | None = None
    ) -> Verdict:
        del now_ms, tolerance_s
        sent = delivery.headers.get(_AUTHORIZATION)
        if not sent:
            return Refused(Reason.MISSING)
        scheme, _, encoded = sent.partition(" ")
        if scheme.lower() != "basic":
            return Refused(Reason.MALFORMED)
        logins = [secret if self.fault(secret) is None else "" for secret in secrets]
        return _first(base64.b64decode(encoded.strip(), validate=True), logins)

    def fault(self, secret: str) -> str | None:
        return None if secret.partition(":")[2] else "is not of the form user:password"

    def sign(self, delivery: Delivery, secret: str, *, now_ms: int) -> Delivery:
        del now_ms
        if words := self.fault(secret):
            msg = f"the secret {words}"
            raise ValueError(msg)
        return put(delivery, f"header:{_AUTHORIZATION}", f"Basic {base64.b64encode(secret.encode()).decode()}")


@dataclass(frozen=True, slots=True)
class AndBasic:
    """A signature that leaves a part of the delivery open, and Basic authentication for the rest.

    A secret `key:user:password` demands both; a secret `key`, which must have no colon in it, the signature alone.
    """

    signature: Verifier

    @property
    def family(self) -> str:
        return f"{self.signature.family}; with a secret key:user:password, Basic authentication too"

    @property
    def tolerance_s(self) -> int | None:
        return self.signature.tolerance_s

    @property
    def signs_url(self) -> bool:
        return self.signature.signs_url

    @property
    def credentials(self) -> tuple[str, ...]:
        return (*self.signature.credentials, _AUTHORIZATION)

    def verify(
        self, delivery: Delivery, secrets: Sequence[str], *, now_ms: int, tolerance_s: int | None = None
    ) -> Verdict:
        keys = [secret.partition(":") for secret in secrets]
        verdict = self.signature.verify(delivery, [key for key, _, _ in keys], now_ms=now_ms, tolerance_s=tolerance_s)
        if not isinstance(verdict, Accepted):
            return verdict
        fitting = keys[verdict.secret][0]
        refused: Verdict = verdict
        for index, (key, _, login) in enumerate(keys):
            if key == fitting:
                refused = Basic().verify(delivery, [login], now_ms=now_ms) if login else Accepted(index)
                if isinstance(refused, Accepted):
                    return Accepted(index)
        return refused

    def fault(self, secret: str) -> str | None:
        key, colon, login = secret.partition(":")
        return self.signature.fault(key) or (Basic().fault(login) if colon else None)

    def sign(self, delivery: Delivery, secret: str, *, now_ms: int) -> Delivery:
        key, _, login = secret.partition(":")
        signed = self.signature.sign(delivery, key, now_ms=now_ms)
        return Basic().sign(signed, login, now_ms=now_ms) if login else signed
