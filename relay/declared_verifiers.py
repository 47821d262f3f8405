"""The verifier of a declared source: from `[sources.<slug>.verify]` to one of the signature families.

In: the table, its form checked. Out: a verifier, or the keys that do not fit together, each with a sentence about it. A
signature that would prove less than it seems to (an unsigned time, an unsigned body) is refused like a misspelt key.
"""

from __future__ import annotations

from collections.abc import Iterator

from relay.declarations import VerifyTable
from relay.keys import Mac, PublicKey
from relay.places import Template
from relay.schemes import Form, Listed, Pairs, Plain, Signature, Versioned
from relay.shared_secrets import Token
from relay.signatures import basic_auth, bearer, standard_webhooks
from relay.verification import Verifier

#: Beside the signature.
_BESIDE = "signature"
_OF_SCHEMES = {
    "signature": set(VerifyTable.model_fields) - {"token"},
    "standard_webhooks": {"scheme", "key", "tolerance_s"},
    "basic": {"scheme"},
    "bearer": {"scheme", "token"},
    "token": {"scheme", "token"},
}
_OF_FORMS = {
    "prefix": {"plain"},
    "separator": {"plain", "pairs"},
    "time_key": {"pairs"},
    "signature_key": {"pairs", "versions"},
}
_STANDARD_KEYS = {None, "standard", "standard_text", "standard_or_text"}


def faults(table: VerifyTable) -> Iterator[tuple[str, str]]:
    """The keys that do not fit the others, with what to do: first those that have no effect."""
    given = table.model_fields_set
    useless = sorted(given - _OF_SCHEMES[table.scheme])
    yield from ((key, f"has no effect where scheme is {table.scheme}. Remove one of the two.") for key in useless)
    match table.scheme:
        case "signature":
            yield from _faults_of_signature(table)
        case "standard_webhooks" if table.key not in _STANDARD_KEYS:
            yield "key", "must be standard, standard_text or standard_or_text where scheme is standard_webhooks."
        case "token" if table.token is None:
            yield "token", "is missing. Say where the secret stands, such as header:X-Token."
        case "bearer" if table.token is not None and not table.token.startswith("header:"):
            yield "token", "must be a header where scheme is bearer. Use scheme token for other places."
        case _:
            return


def _faults_of_signature(table: VerifyTable) -> Iterator[tuple[str, str]]:
    given, message, time = table.model_fields_set, message_of(table), table.timestamp
    useless = [(key, f"form is {table.form}") for key, forms in _OF_FORMS.items() if table.form not in forms]
    if time is None:
        useless += [(key, "there is no timestamp") for key in ("timestamp_format", "tolerance_s", "enforce_time")]
    if not _is_mac(table):
        words = f"algorithm is {table.algorithm}: the secret is the sender's public key"
        useless += [(key, words) for key in ("key", "key_prefix")]
    yield from ((key, f"has no effect where {words}. Remove it.") for key, words in useless if key in given)
    checks = [
        (
            table.signature is None,
            "signature",
            "is missing. Say where the signature stands, such as header:X-Signature.",
        ),
        (
            time == _BESIDE and table.form not in {"pairs", "list"},
            "timestamp",
            f"cannot stand beside a signature of the form {table.form}. Name its place, such as header:X-Timestamp.",
        ),
        (
            table.form == "list" and time != _BESIDE,
            "timestamp",
            'must be "signature" where form is list: it is the first of its values.',
        ),
        (
            time is None and "{timestamp}" in message,
            "message",
            "has {timestamp} in it, but timestamp does not say where that stands. Set it.",
        ),
        (
            time is not None and not _is_signed(time, message),
            "message",
            "does not sign the timestamp, so that anyone could renew an old delivery. Add {timestamp}.",
        ),
        (
            not ("{body}" in message or "{form}" in message or table.unsigned_body),
            "message",
            "has no {body} in it, so that anyone could write another. If it is so, set unsigned_body = true.",
        ),
    ]
    yield from ((key, words) for is_wrong, key, words in checks if is_wrong)


def _is_signed(timestamp: str, message: str) -> bool:
    parts = {"{timestamp}", f"{{{timestamp}}}"}
    if timestamp.startswith(("json:", "form:")):
        parts |= {"{body}", "{form}"}
    return any(part in message for part in parts)


def message_of(table: VerifyTable) -> str:
    """What is signed, where the table does not say so either."""
    has_default = "message" not in table.model_fields_set and table.timestamp is not None
    return "{timestamp}.{body}" if has_default else table.message


def verifier_of(table: VerifyTable) -> Verifier:
    """The verifier of a table without faults."""
    match table.scheme:
        case "standard_webhooks":
            return standard_webhooks(key=table.key or "standard", tolerance_s=table.tolerance_s)
        case "basic":
            return basic_auth()
        case "bearer":
            return Token(table.token, "Bearer") if table.token else bearer()
        case "token":
            return Token(table.token or "")
        case "signature":
            return _signature(table)


def _signature(table: VerifyTable) -> Signature:
    is_timed, beside = table.timestamp is not None, table.timestamp == _BESIDE
    return Signature(
        places=tuple(table.signature or ()),
        form=_form(table),
        message=Template(message_of(table)),
        check=_check(table),
        unit=table.timestamp_format if is_timed else None,
        time=None if beside else table.timestamp,
        tolerance_s=table.tolerance_s if is_timed and table.enforce_time else None,
    )


def _form(table: VerifyTable) -> Form:
    match table.form:
        case "plain":
            return Plain(table.prefix, table.separator)
        case "pairs":
            return Pairs(table.time_key, table.signature_key, table.separator or ",")
        case "list":
            return Listed()
        case "versions":
            return Versioned(table.signature_key)


def _is_mac(table: VerifyTable) -> bool:
    return table.algorithm in {"sha256", "sha1", "sha512"}


def _check(table: VerifyTable) -> Mac | PublicKey:
    match table.algorithm:
        case "ecdsa-p256" | "ed25519" | "rsa-sha256":
            return PublicKey(kind=table.algorithm, encoding=table.encoding or "base64")
        case _:
            strips = (table.key_prefix,) if table.key_prefix else ()
            return Mac(
                algorithm=table.algorithm, encoding=table.encoding or "hex", key=table.key or "text", strips=strips
            )
