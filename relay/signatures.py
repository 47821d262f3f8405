"""Signature families as values: configured by a provider module, never written by it.

A verifier takes the raw bytes of a delivery and a source's secrets and returns a verdict with a reason. It compares
bytes in constant time and never raises. Each function here makes one. A `header` is a name in any case; a `message` is
a template of what is signed (`{timestamp}.{body}`, see `relay.places`).
"""

from __future__ import annotations

from functools import partial

from relay.certified import PayPalSignature, SnsSignature
from relay.keys import Algorithm, Encoding, KeyForm, Kind, Mac, PublicKey
from relay.moments import Unit
from relay.places import Template, form_of
from relay.schemes import Either, Listed, Pairs, Plain, Signature, StripeSignature, Versioned
from relay.shared_secrets import AndBasic, Basic, SalesforceToken, Token
from relay.signed_bodies import AdyenItems, BraintreeForm, braintree_answer, braintree_challenge
from relay.verification import Verifier

__all__ = [
    "adyen_items",
    "basic_auth",
    "bearer",
    "braintree_answer",
    "braintree_challenge",
    "braintree_form",
    "either",
    "field_token",
    "form_of",
    "header_token",
    "hmac_sha1",
    "hmac_sha256",
    "hmac_sha512",
    "hubspot_signature",
    "mailgun_signature",
    "mercado_pago_signature",
    "paypal_signature",
    "public_key",
    "query_token",
    "salesforce_token",
    "sns_signature",
    "standard_webhooks",
    "stripe_signature",
    "takes_basic",
    "timestamp_in_header",
    "timestamped_list",
    "timestamped_pairs",
    "with_basic_auth",
]


def _headers(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"header:{name}" for name in ((names,) if isinstance(names, str) else names))


# --- HMAC, without a time ---------------------------------------------------------------------------------------------


def _hmac(
    algorithm: Algorithm,
    *,
    header: str | tuple[str, ...],
    encoding: Encoding = "hex",
    prefix: str = "",
    separator: str = "",
    key: KeyForm = "text",
    message: str = "{body}",
) -> Signature:
    """HMAC of the raw body, or of another message, in one header.

    In one of several headers, where there are several. `prefix` must stand before the signature; with a `separator`
    several signatures may stand in a header, and one of them must fit. `key` says how the secret is decoded.
    """
    return Signature(
        places=_headers(header),
        form=Plain(prefix, separator),
        message=Template(message),
        check=Mac(algorithm=algorithm, encoding=encoding, key=key),
    )


hmac_sha256 = partial(_hmac, "sha256")
hmac_sha512 = partial(_hmac, "sha512")
#: For providers that have nothing better.
hmac_sha1 = partial(_hmac, "sha1")


# --- HMAC, with a time ------------------------------------------------------------------------------------------------


def timestamped_pairs(
    *,
    header: str,
    keys: tuple[str, str] = ("t", "v1"),
    separator: str = ",",
    message: str = "{timestamp}.{body}",
    unit: Unit = "seconds",
    tolerance_s: int | None,
    encoding: Encoding = "hex",
) -> Signature:
    """HMAC-SHA256, time and signatures together in one header: `t=<time>,v1=<signature>[,v1=<signature>]`.

    `keys` are the names of the time and of the signature. `tolerance_s` None: the time is signed and not enforced,
    because retries repeat it.
    """
    return Signature(
        places=_headers(header),
        form=Pairs(*keys, separator),
        message=Template(message),
        check=Mac(encoding=encoding),
        unit=unit,
        tolerance_s=tolerance_s,
    )


def timestamped_list(
    *, header: str, message: str = "{timestamp}.{body}", unit: Unit = "milliseconds", tolerance_s: int | None
) -> Signature:
    """HMAC-SHA256 in hex, in one header: `<time>,<signature>[,<signature>]` (Recurly)."""
    return Signature(
        places=_headers(header), form=Listed(), message=Template(message), unit=unit, tolerance_s=tolerance_s
    )


def timestamp_in_header(
    *,
    header: str,
    timestamp: str,
    message: str,
    unit: Unit = "seconds",
    tolerance_s: int | None,
    encoding: Encoding = "hex",
    prefix: str = "",
    key: KeyForm = "text",
    same: tuple[tuple[str, str], ...] = (),
) -> Signature:
    """HMAC-SHA256 in one header, the time in another (`timestamp`): Slack, Zendesk, Close, Customer.io, Klaviyo.

    `same` names pairs of places that must both say the same, or nothing: `("header:X-Id", "json:meta.sender_id")`.
    """
    return Signature(
        places=_headers(header),
        form=Plain(prefix),
        message=Template(message),
        check=Mac(encoding=encoding, key=key),
        unit=unit,
        time=f"header:{timestamp}",
        tolerance_s=tolerance_s,
        same=same,
        is_same_asked=True,
    )


def standard_webhooks(*, key: KeyForm = "standard", tolerance_s: int = 300) -> Either:
    """Standard Webhooks and Svix: `webhook-id`, `webhook-timestamp`, `webhook-signature`, or the same as `svix-`.

    `key`: "standard" (base64 behind `whsec_`), "standard_text" (the whole secret as it is), "standard_or_text" (both
    are tried: Polar). A secret `whpk_...` is the public key of Ed25519 signatures (`v1a`).
    """
    schemes = (("v1", Mac(encoding="base64", key=key)), ("v1a", PublicKey(kind="ed25519")))
    return Either(
        tuple(
            Signature(
                places=(f"header:{names}-signature",),
                form=Versioned(version),
                message=Template(f"{{header:{names}-id}}.{{timestamp}}.{{body}}"),
                check=check,
                unit="seconds",
                time=f"header:{names}-timestamp",
                tolerance_s=tolerance_s,
            )
            for version, check in schemes
            for names in ("webhook", "svix")
        ),
        "HMAC-SHA256 of id, time and body, base64, in webhook-signature or svix-signature (Standard Webhooks)",
    )


def stripe_signature() -> StripeSignature:
    """Stripe's scheme with its default tolerance of five minutes, both ways."""
    return StripeSignature()


def hubspot_signature() -> Either:
    """HubSpot v3: HMAC-SHA256, base64, over method, URL, body and time; five minutes both ways.

    The older v2 and v1 have no time in them, so that they can be replayed: a source asks for them by writing `v2:` or
    `v1:` before its secret. https://developers.hubspot.com/docs/apps/developer-platform/build-apps/authentication
    """
    v3, as_it_is = (
        Signature(
            places=("header:X-HubSpot-Signature-v3",),
            message=Template(f"{{method}}{{{url}}}{{body}}{{timestamp}}"),
            check=Mac(encoding="base64", strips=("v1:", "v2:")),
            unit="milliseconds",
            time="header:X-HubSpot-Request-Timestamp",
            tolerance_s=300,
        )
        for url in ("url:decoded", "url")  # the documentation decodes some characters of the URL, the clients do not
    )
    old = ("header:X-HubSpot-Signature",)
    v2 = Signature(places=old, message=Template("{method}{url}{body}"), check=Mac(demands="v2:", is_hmac=False))
    v1 = Signature(places=old, check=Mac(demands="v1:", is_hmac=False))
    words = "HMAC-SHA256 of method, URL, body and time, base64, in X-HubSpot-Signature-v3; v2 or v1 where asked for"
    return Either((v3, as_it_is, v2, v1), words)


# --- only a part of the delivery is signed ----------------------------------------------------------------------------


def mercado_pago_signature() -> Either:
    """Mercado Pago: HMAC-SHA256, hex, over `data.id` of the query, `x-request-id` and the time. The body is not signed.

    The body's `data.id` must be that of the query; nothing else in it may be believed.
    """
    return Either(
        tuple(
            Signature(
                places=("header:x-signature",),
                form=Pairs("ts"),
                message=Template(f"[id:{{{query}:data.id}};][request-id:{{header:x-request-id}};]ts:{{timestamp}};"),
                unit="seconds_or_milliseconds",
                same=(("query:data.id", "json:data.id"),),
            )
            for query in ("query", "lower_query")
        ),
        "HMAC-SHA256 of the query's data.id, x-request-id and the time, hex, in x-signature (Mercado Pago)",
    )


def mailgun_signature(*, tolerance_s: int = 43_200) -> Either:
    """Mailgun: HMAC-SHA256, hex, over `timestamp` and `token` inside the body. What happened is not signed.

    So a token must count once (make it the notification's id), and Basic authentication is wise (`with_basic_auth`).
    """
    return Either(
        tuple(
            Signature(
                places=(f"{place}signature",),
                message=Template(f"{{timestamp}}{{{place}token}}"),
                unit="seconds_of_10_digits",  # nothing parts it from the token
                time=f"{place}timestamp",
                tolerance_s=tolerance_s,
            )
            for place in ("json:signature.", "form:")
        ),
        "HMAC-SHA256 of timestamp and token, hex, in the body (Mailgun)",
    )


def adyen_items() -> AdyenItems:
    """Adyen: HMAC-SHA256, base64, hex key, over eight fields of every item; the rest of an item is not signed."""
    return AdyenItems()


def braintree_form() -> BraintreeForm:
    """Braintree: HMAC-SHA1 over the form's `bt_payload`. The secret is `public key:private key`."""
    return BraintreeForm()


# --- the provider keeps the private key -------------------------------------------------------------------------------


def public_key(
    *,
    kind: Kind,
    header: str,
    timestamp: str,
    message: str = "{timestamp}{body}",
    encoding: Encoding = "base64",
    unit: Unit = "seconds",
    tolerance_s: int | None = None,
) -> Signature:
    """A signature whose public key is the secret (PEM, base64 of its DER, raw Ed25519), with the time in a header."""
    return Signature(
        places=_headers(header),
        message=Template(message),
        check=PublicKey(kind=kind, encoding=encoding),
        unit=unit,
        time=f"header:{timestamp}",
        tolerance_s=tolerance_s,
    )


def paypal_signature() -> PayPalSignature:
    """PayPal: RSA-SHA256 with a certificate from PayPal's own host. The secret is the id of the webhook."""
    return PayPalSignature()


def sns_signature() -> SnsSignature:
    """Amazon SNS: RSA with a certificate from Amazon's own host. The secret is the ARN of the topic.

    Raw messages, which nobody signs, are taken with a secret `user:password`.
    """
    return SnsSignature()


# --- no signature: the secret itself ----------------------------------------------------------------------------------


def basic_auth() -> Basic:
    """HTTP Basic authentication. The secret is `user:password`."""
    return Basic()


def bearer(*, header: str = "Authorization") -> Token:
    """The secret behind `Bearer`."""
    return Token(f"header:{header}", "Bearer")


def header_token(header: str) -> Token:
    """The secret as the whole value of a header."""
    return Token(f"header:{header}")


def query_token(name: str) -> Token:
    """The secret as a parameter of the URL that was typed in at the provider."""
    return Token(f"query:{name}")


def salesforce_token() -> SalesforceToken:
    """Salesforce: the secret as the URL's `token`; `token:00D...` takes messages of that organization only."""
    return SalesforceToken()


def field_token(place: str) -> Token:
    """The secret in the body: `json:token` (a dotted path) or `form:token`. It is stored with the body."""
    return Token(place)


# --- combinations -----------------------------------------------------------------------------------------------------


def either(*verifiers: Verifier) -> Either:
    """What one of them accepts."""
    return Either(verifiers)


def takes_basic(verifier: Verifier) -> bool:
    """Whether Basic authentication may be a part of it: some providers send theirs only after a 401 that asks."""
    match verifier:
        case Basic() | AndBasic() | SnsSignature():
            return True
        case Either(verifiers=verifiers):
            return any(map(takes_basic, verifiers))
        case _:
            return False


def with_basic_auth(signature: Verifier) -> AndBasic:
    """Basic authentication too, for sources whose secret is `key:user:password`; others prove the key alone."""
    return AndBasic(signature)
