"""Who is at the console: signed cookies, tokens against forged forms, and who may say a name in a header.

Nothing is kept on the server: every process and replica that knows `RELAY_ADMIN_TOKEN` knows its sessions, and a new
token ends them all.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

COOKIE = "relay_console"
FLASH = "relay_said"
SESSION_S = 12 * 3600
#: Tries with a wrong token from one address within `WINDOW_MS`, and from all of them together.
TRIES, TRIES_OF_ALL = 5, 100
WINDOW_MS = 15 * 60_000


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who has signed in."""

    actor: str
    #: Against forged forms: it stands in each form.
    csrf: str
    #: Whether a proxy said who it is: then there is nothing to sign out of.
    is_named: bool = False


class Sessions:
    """Makes and reads what is signed. Two with the same token understand each other."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._key = hashlib.sha256(b"relay console\0" + self._token).digest()

    def fits(self, given: str) -> bool:
        """Whether this is the token, in constant time."""
        return hmac.compare_digest(hashlib.sha256(given.encode()).digest(), hashlib.sha256(self._token).digest())

    def begin(self, actor: str, *, now_ms: int) -> str:
        """A cookie for a new session."""
        return self.seal(
            {"who": actor, "id": secrets.token_urlsafe(12), "until": now_ms // 1000 + SESSION_S}, "session"
        )

    def visitor(self, cookie: str | None, *, now_ms: int) -> Visitor | None:
        """Whose cookie this is; None where it is not ours, or old."""
        said = self.open(cookie, "session")
        until = said.get("until") if said is not None else None
        if said is None or not isinstance(until, int) or until * 1000 < now_ms:
            return None
        return Visitor(str(said.get("who")), self._csrf(str(said.get("id"))))

    def named(self, name: str) -> Visitor:
        """Somebody whom the proxy names."""
        return Visitor(name, self._csrf(f"named:{name}"), is_named=True)

    def _csrf(self, session: str) -> str:
        return base64.urlsafe_b64encode(self._mac(f"csrf:{session}".encode(), "csrf")).decode().rstrip("=")

    def seal(self, said: dict[str, object], use: str) -> str:
        raw = orjson.dumps(said)
        return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (raw, self._mac(raw, use)))

    def open(self, sealed: str | None, use: str) -> dict[str, object] | None:
        """What `seal` was given; None where it was not ours."""
        try:
            raw, mac = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in (sealed or "").split("."))
        except (ValueError, binascii.Error):
            return None
        if not hmac.compare_digest(mac, self._mac(raw, use)):
            return None
        found: dict[str, object] = orjson.loads(raw)
        return found

    def _mac(self, raw: bytes, use: str) -> bytes:
        return hmac.digest(self._key, use.encode() + b"\0" + raw, "sha256")


def is_from(address: str, networks: Sequence[str]) -> bool:
    """Whether the address lies in one of these networks."""
    try:
        given = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(given in ipaddress.ip_network(network, strict=False) for network in networks)
