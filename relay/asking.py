"""Asking the provider: the part of the contract for notifications that say too little (an id and nothing else).

A mapper stays pure. It asks its notification (`n.ask("/payments/{}", id)`), which holds the answers that are known; the
first one that is missing ends the mapping with `UnansweredError`. The relay then makes that call, keeps the answer with
the delivery, and maps again: as often as a mapper asks, and never a second time for the same answer.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal
from urllib.parse import quote

#: The header in which the relay itself says when a delivery came, in Unix milliseconds (`Api.each_is_news`).
RECEIVED = "relay-received-ms"

#: Headers that carry the API key.
Auth = Callable[[str], Mapping[str, str]]


def bearer_key(key: str) -> Mapping[str, str]:
    """`Authorization: Bearer <key>`."""
    return {"authorization": f"Bearer {key}"}


def basic_key(key: str) -> Mapping[str, str]:
    """HTTP Basic authentication with the key as user and no password; a key `user:password` is taken as both."""
    pair = key if ":" in key else f"{key}:"
    return {"authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def header_key(name: str) -> Auth:
    """The key as the whole value of a header."""
    return lambda key: {name.lower(): key}


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """Where a provider's API is, and how it is called. The source's own `api_base` goes before `base`."""

    #: `https://api.acme.example/v1`, without a slash at its end; empty where only `also` is called.
    base: str = ""
    #: By what a key begins with, another base (`{"sandbox_": "https://api.sandbox.acme.example"}`).
    bases: Mapping[str, str] = field(default_factory=dict)
    auth: Auth = bearer_key
    #: Sent with every call (`{"acme-version": "2026-01-01"}`).
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Whole URLs that may be called as well, without the key: pin host and path. For confirmations.
    also: re.Pattern[str] | None = None
    #: Its deliveries say the same, word for word, whenever something changed: each gets the header `RECEIVED`, which
    #: can be made part of the notification's id.
    each_is_news: bool = False
    #: Little can be mapped without an answer: a source without an API key is worth a warning.
    is_needed: bool = False

    def base_for(self, key: str) -> str:
        """The base for this key."""
        return next((base for prefix, base in self.bases.items() if key.startswith(prefix)), self.base)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One call of the provider's API. It only reads, or may be made again and again without harm."""

    #: Beneath the base, beginning with a slash, query included; or a whole URL that `Api.also` allows.
    path: str
    method: Literal["GET", "POST"] = "GET"
    #: JSON.
    body: bytes = b""
    #: No answer is an answer too: None, also where the source has no API key.
    is_optional: bool = False

    @property
    def key(self) -> str:
        """What the answer is kept under: the path of a GET, and what else is asked of any other."""
        return self.path if self.method == "GET" else f"{self.method} {self.path} {sha256(self.body).hexdigest()[:16]}"

    @property
    def needs_key(self) -> bool:
        return self.path.startswith("/")

    @property
    def place(self) -> str:
        """The path without its query, which may name somebody: for logs."""
        return self.path.partition("?")[0]


class UnansweredError(Exception):
    """A mapper needs an answer that is not known yet. Let it pass: the relay asks, and maps again."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        super().__init__(f"the provider is still to be asked for {ask.place}")


def path_of(template: str, ids: tuple[object, ...]) -> str:
    """`/payments/{}` with the ids in it, each as one segment whatever signs it holds."""
    if not ids:
        return template
    return template.format(*(quote(str(one), safe="-_.~:") if str(one).strip(".") else "-" for one in ids))
