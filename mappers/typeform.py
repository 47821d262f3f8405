"""Typeform. https://www.typeform.com/developers/webhooks/example-payload/ (read 2026-11-24).

In: a response with all its answers. Out: that a form was submitted, and by whom; no answer leaves. The person and the
campaign come from hidden fields and from the first e-mail address among the answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from relay.contract import Draft, Notification, Person, Provider, SecretShape, conversion, field
from relay.signatures import hmac_sha256

Json = Mapping[str, Any]

provider = Provider(
    name="typeform",
    title="Typeform",
    docs="https://www.typeform.com/developers/webhooks/",
    verifier=hmac_sha256(header="Typeform-Signature", encoding="base64", prefix="sha256="),
    notification_id=field("event_id"),
    notification_type=field("event_type"),
    secret=SecretShape(
        meaning="What you type in at Typeform > your form > Connect > Webhooks > Edit > Secret: a long random text",
        mistaken={"tfp_": "a personal access token"},
    ),
)
#: What was not finished.
provider.ignores("form_response_partial")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _ms(moment: str) -> int:
    return (datetime.fromisoformat(moment) - EPOCH) // timedelta(milliseconds=1)


def _hidden(response: Json) -> dict[str, Any]:
    """Without the `xxxxx` that Typeform's own share links have in the place of values."""
    found = response.get("hidden") or {}
    return {key: value for key, value in found.items() if str(value or "").strip("x")}


def _email(response: Json, hidden: Json) -> str | None:
    answers = response.get("answers") or ()
    addresses = (answer.get("email") for answer in answers if answer.get("type") == "email")
    return next(filter(None, addresses), None) or hidden.get("email")


@provider.on("form_response")
def submitted(n: Notification) -> Iterator[Draft]:
    response = n.body["form_response"]
    hidden, definition = _hidden(response), response.get("definition") or {}
    yield conversion(
        "form_submitted",
        once=f"response:{response['token']}",
        at_ms=_ms(response["submitted_at"]),
        person=Person(email=_email(response, hidden)),
        metadata=hidden,
        properties={
            "response_id": response["token"],
            "form_id": response["form_id"],
            "form": definition.get("title"),
            "score": (response.get("calculated") or {}).get("score"),
            "ending_id": (response.get("ending") or {}).get("id"),
            "outcome_id": (definition.get("outcome") or {}).get("id"),
        },
    )
