"""Who it was, as a pseudonym: from the candidates of a draft to one user id that names nobody.

In: a `Person`, the provider's free metadata and a source's policy. Out: an `Identity`, by the first rule of the policy
that found something. The same input gives the same user id for ever; an e-mail address leaves only as a hash.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, assert_never

from relay.contract import Person

Rule = Literal["metadata", "external_id", "email", "customer_id"]

RULES: tuple[Rule, ...] = ("metadata", "external_id", "email", "customer_id")
#: The metadata keys in which a site leaves its own id, unless the source names others.
METADATA_KEYS = ("user_id", "oa_user_id", "openanalytics_user_id")

LAST_RESORT: Rule = "customer_id"
#: The rank of a customer id that stands last in the policy: a user whom the site does not know. Worse than any rule.
FALLBACK_RANK = 90
NOBODY_RANK = 99

LONGEST_OPAQUE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityPolicy:
    """How a source tells who it was."""

    #: The provider's name: part of the hash of its customer ids.
    provider: str
    #: The rules, best first.
    order: tuple[Rule, ...] = RULES
    #: Where the rule `metadata` looks, first come.
    metadata_keys: tuple[str, ...] = METADATA_KEYS
    #: With a key, hashes are HMAC-SHA256 under it, otherwise SHA-256. The site must use the same.
    hash_key: bytes | None = None
    #: Whether ids that the site gave are hashed or go out as they are.
    external_ids: Literal["hash", "pass"] = "hash"


@dataclass(slots=True, unsafe_hash=True)
class Identity:
    user_id: str | None
    #: The place of the rule in the policy; 0 is the best.
    rank: int
    #: The rule that found it; empty when none did.
    by: str

    @property
    def is_fallback(self) -> bool:
        """Whether the site would not know this user."""
        return self.rank >= FALLBACK_RANK


NOBODY = Identity(None, NOBODY_RANK, "")

#: The lengths of digests, in hexadecimal digits.
_DIGESTS = frozenset({32, 40, 64, 96, 128})
_IN_BRACKETS = re.compile(r"<\s*([^<>]*@[^<>]*?)\s*>")
_EMAIL = re.compile(r"[^\s@<>]+@[^\s@<>]+")
_WORDS_FOR_NOTHING = """
none null nil undefined nan n/a na unknown anonymous guest false true test (none) not_set not-set no_email noemail -1
"""
_PLACEHOLDERS = frozenset(_WORDS_FOR_NOTHING.split()) | {"[object object]", "(not set)", "not set"}
_NOBODYS_MAILBOXES = frozenset(
    (
        "noreply",
        "no-reply",
        "no_reply",
        "donotreply",
        "do-not-reply",
        "none",
        "null",
        "undefined",
        "unknown",
        "anonymous",
    )
)


def is_hash(text: str) -> bool:
    """Whether it is a hash already: the hexadecimal digits of 16, 20, 32, 48 or 64 bytes."""
    if len(text) not in _DIGESTS:
        return False
    try:
        return 2 * len(bytes.fromhex(text)) == len(text)  # blanks are read over
    except ValueError:
        return False


def hash_text(text: str, key: bytes | None = None) -> str:
    """The SHA-256 of the text in lower-case hexadecimal; under a key, its HMAC-SHA256."""
    raw = text.encode("utf-8", "surrogatepass")
    return hmac.digest(key, raw, "sha256").hex() if key else hashlib.sha256(raw).hexdigest()


def hash_email(email: str, key: bytes | None = None) -> str:
    """The hash of the trimmed, lower-cased address; of `Jane <jane@example.com>`, the part in brackets.

    Nothing else is folded (dots, plus-tags, Unicode forms), because the site's own code does not fold it either.
    """
    bracketed = _IN_BRACKETS.search(email)
    return hash_text((bracketed[1] if bracketed else email).strip().lower(), key)


def resolve(person: Person, metadata: Mapping[str, Any], policy: IdentityPolicy, *, account: str = "") -> Identity:
    """The identity by the first rule that finds one, else `NOBODY`.

    Empty texts and known placeholders (`null`, `0`, `{{user_id}}`) count as absent.
    """
    last = len(policy.order) - 1
    for rank, rule in enumerate(policy.order):
        match rule:
            case "metadata":
                found = _first_site_id(metadata, policy) if metadata else None
            case "external_id":
                found = _site_id(person.external_id, policy)
            case "email":
                found = _mail_id(_text(person.email), policy)
            case "customer_id":
                found = _customer_id(_text(person.customer_id), policy, account)
                rank = FALLBACK_RANK if rank == last > 0 else rank  # noqa: PLW2901  the last resort ranks after all
            case _:
                assert_never(rule)
        if found:
            return Identity(found, rank, rule)
    return NOBODY


def _first_site_id(metadata: Mapping[str, Any], policy: IdentityPolicy) -> str | None:
    for key in policy.metadata_keys:
        if key in metadata and (found := _site_id(metadata[key], policy)):
            return found
    return None


def _text(value: object) -> str:
    """What a candidate says, trimmed; empty for a placeholder and for whatever is no id."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return ""
    text = value.strip()
    is_template = text[:1] in "{%<" and text[-1:] in "}%>" and text[:1] != "" and "@" not in text
    return "" if is_template or not text.strip("0-") or text.lower() in _PLACEHOLDERS else text


def _site_id(value: object, policy: IdentityPolicy) -> str | None:
    text = _text(value)
    if not text:
        return None
    if is_hash(text):
        return text
    if "@" in text and (mail := _mail_id(text, policy)):
        return mail
    if policy.external_ids == "pass" and len(text) <= LONGEST_OPAQUE and text.isascii() and " " not in text:
        return text if text.isprintable() else hash_text(text, policy.hash_key)
    return hash_text(text, policy.hash_key)


def _mail_id(text: str, policy: IdentityPolicy) -> str | None:
    if not text:
        return None
    if "@" not in text:
        return text if is_hash(text) else None
    bracketed = _IN_BRACKETS.search(text) if "<" in text else None
    address = (bracketed[1] if bracketed else text).lower()
    if not _EMAIL.fullmatch(address) or address.endswith(".invalid") or address.split("@")[0] in _NOBODYS_MAILBOXES:
        return None
    return hash_text(address, policy.hash_key)


def _customer_id(text: str, policy: IdentityPolicy, account: str) -> str | None:
    if not text:
        return None
    within = f"{policy.provider}:{account}" if account else policy.provider
    return hash_text(f"{within}:{text}", policy.hash_key)
