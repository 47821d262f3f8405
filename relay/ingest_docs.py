"""The events API's own paths in the OpenAPI document, exactly as they are held to.

Whatever fits the document is taken, whatever does not is refused: a test posts both kinds. The latest timestamp that is
taken moves with the hour, and so does the document.
"""

from __future__ import annotations

from typing import Any

from iso4217 import Currency

from relay.event import MAX_NAME, MAX_PROPERTIES, MAX_TEXT, MAX_URL, MAX_USER_ID, OLDEST_MS
from relay.incoming import LARGEST_ID, LEAST_REVENUE, LONGEST_ID, MOST_REVENUE, REVENUE_TEXT, URL_TEXT, latest_ms
from relay.ingest_bodies import LONGEST_KEY
from relay.ingesting import MAX_EVENTS

Json = dict[str, Any]

_TAG = "events"
_ERROR = {"$ref": "#/components/schemas/EventsError"}
_EVENT = {"$ref": "#/components/schemas/PostedEvent"}
_QUEUED: Json = {
    "type": "object",
    "properties": {"queued": {"const": True}},
    "required": ["queued"],
    "additionalProperties": False,
}
_PARTLY: Json = {
    "type": "object",
    "properties": {
        "queued": {"const": True},
        "accepted": {"type": "integer", "minimum": 1, "maximum": MAX_EVENTS},
        "rejected": {"type": "integer", "minimum": 0, "maximum": MAX_EVENTS},
        "problems": {"type": "array", "items": {"$ref": "#/components/schemas/EventProblem"}},
    },
    "required": ["queued", "accepted", "rejected", "problems"],
    "additionalProperties": False,
}
_PROBLEM: Json = {
    "type": "object",
    "properties": {
        "index": {"type": "integer", "minimum": 0, "description": "Of the event in the batch, from 0."},
        "field": {"type": "string", "description": "Such as properties.plan; empty: the whole event."},
        "message": {"type": "string"},
    },
    "required": ["field", "message"],
    "additionalProperties": False,
}
_ERROR_BODY: Json = {
    "type": "object",
    "properties": {
        "error": {"type": "string", "description": "For people."},
        "code": {"type": "string", "description": "For programs."},
        "problems": {"type": "array", "items": {"$ref": "#/components/schemas/EventProblem"}},
    },
    "required": ["error", "code"],
    "additionalProperties": False,
}
_ID: Json = {
    "description": "The event's own id: with it, the event is taken once, however often it is posted. Not a field of "
    "the events API, which gets it as properties.event_id.",
    "anyOf": [
        {"type": "string", "minLength": 1, "maxLength": LONGEST_ID},
        {"type": "integer", "minimum": -LARGEST_ID, "maximum": LARGEST_ID},
    ],
}
_ONCE = f"""Answered after the commit. A call may come again without being counted again:

- The header `Idempotency-Key` (1 to {LONGEST_KEY} printable ASCII characters) makes it known for three days: the same
  key with the same call gets the same answer, with another call 422.
- An event's `id` or `event_id`, or its property `event_id`, makes that event known for as long as the relay keeps keys.

The body may be gzip (`Content-Encoding: gzip`).
"""
_GUARD_HEADERS: Json = {
    "Relay-Hashed-User-Ids": {
        "description": "How many events had an e-mail address as user_id: it was replaced by its hash.",
        "schema": {"type": "integer"},
    },
    "Relay-Redacted-Events": {
        "description": "From how many events other personal data was taken out.",
        "schema": {"type": "integer"},
    },
    "Idempotency-Replayed": {
        "description": "true: the call was taken before, and this is its answer.",
        "schema": {"type": "string"},
    },
}


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _event(now_ms: int) -> Json:
    amounts = {"minimum": float(LEAST_REVENUE), "maximum": float(MOST_REVENUE)}
    return {
        "type": "object",
        "properties": {
            "event_type": {"enum": ["pageview", "event", "identify", "conversion"]},
            "event_name": _or_null({
                "type": "string",
                "pattern": "^[a-z][a-z0-9_]*$",
                "maxLength": MAX_NAME,
                "description": "Required for the types event and conversion.",
            }),
            "user_id": _or_null({
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_USER_ID,
                "description": "Pseudonymous. An e-mail address is replaced by its hash, or refused, by setting.",
            }),
            "url": _or_null({"type": "string", "pattern": f"^{URL_TEXT}$",
                             "maxLength": MAX_URL}),
            "properties": {
                "type": "object",
                "maxProperties": MAX_PROPERTIES,
                "propertyNames": {"minLength": 1, "maxLength": 128},
                "additionalProperties": {
                    "anyOf": [
                        {"type": "string", "maxLength": MAX_TEXT},
                        {"type": "boolean"},
                        {"type": "number", "minimum": -1e300, "maximum": 1e300},
                    ]
                },
            },
            "revenue": _or_null({
                "description": "In major units: a number, or a text with all its digits. Comes with currency.",
                "anyOf": [
                    {"type": "number", **amounts},
                    {"type": "number", "minimum": -amounts["maximum"], "maximum": -amounts["minimum"]},
                    {"enum": [0]},
                    {"type": "string", "pattern": f"^{REVENUE_TEXT}$"},
                ],
            }),
            "currency": _or_null({"enum": sorted(code.value for code in Currency), "description": "ISO 4217."}),
            "timestamp": _or_null({
                "type": "integer",
                "minimum": OLDEST_MS,
                "maximum": latest_ms(now_ms) - 1,
                "description": "Unix milliseconds, at most a day ahead. Left out: the time of receiving.",
            }),
            "id": _ID,
            "event_id": _ID,
        },
        "required": ["event_type"],
        "additionalProperties": False,
        "allOf": [
            {
                "if": {"properties": {"event_type": {"enum": ["event", "conversion"]}}},
                "then": {"properties": {"event_name": {"type": "string"}}, "required": ["event_name"]},
            },
            _only_together("revenue", "currency"),
            _only_together("currency", "revenue"),
        ],
        "examples": [{
            "event_type": "conversion", "event_name": "purchase", "user_id": "5d41402abc4b2a76b9719d911017c592",
            "url": "https://shop.example.com/thanks", "properties": {"order_id": "o_1001"}, "revenue": 19.99,
            "currency": "EUR",
        }],
    }  # fmt: skip


def _only_together(one: str, other: str) -> Json:
    """Where one is said, the other is too."""
    said = {"not": {"type": "null"}}
    return {
        "if": {"properties": {one: said}, "required": [one]},
        "then": {"properties": {other: said}, "required": [other]},
    }


# --- the two paths ----------------------------------------------------------------------------------------------------


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _operation(*, summary: str, name: str, body: Json, answer: Json, parameters: list[Json]) -> Json:
    project = {"name": "id", "in": "path", "required": True, "description": "The project, as the events API knows it.",
               "schema": {"type": "string", "pattern": "^[A-Za-z0-9_.~-]+$"}}  # fmt: skip
    errors = {
        "400": "The body, the query or a header cannot be read; `code` says which.",
        "401": "The key is missing, wrong, expired or revoked.",
        "404": "There is no such project, or the key is for another.",
        "405": "Only POST.",
        "409": "An event's id came before with another content: `problems` name each. Nothing was taken.",
        "413": "The body is over the limit.",
        "415": "Not application/json, or packed with something else than gzip.",
        "422": "Invalid events: `problems` name each with its field. Or the Idempotency-Key came with another call.",
        "429": "Not now. `Retry-After` says when.",
    }
    return {
        "tags": [_TAG],
        "summary": summary,
        "description": _ONCE,
        "operationId": name,
        "security": [{"ingestKey": []}],
        "parameters": [project, *parameters],
        "requestBody": {"required": True, "content": _json(body)},
        "responses": {
            "202": {"description": "Committed.", "headers": _GUARD_HEADERS, "content": _json(answer)},
            **{status: {"description": words, "content": _json(_ERROR)} for status, words in errors.items()},
        },
    }


def described(document: Json, *, now_ms: int) -> Json:
    """The document with these paths in it."""
    partial = {"name": "partial", "in": "query", "required": False, "schema": {"enum": ["0", "1", "false", "true"]},
               "description": "1: take the good events and list the bad. Else it is all or nothing."}  # fmt: skip
    some = {"type": "array", "items": _EVENT, "minItems": 1, "maxItems": MAX_EVENTS}
    wrapped = {"type": "object", "properties": {"events": some}, "required": ["events"], "additionalProperties": False}
    one = _operation(summary="Post one event", name="post_event", body=_EVENT, answer=_QUEUED, parameters=[])
    many = _operation(
        summary="Post up to 1000 events", name="post_events", body={"anyOf": [wrapped, some]},
        answer={"anyOf": [_QUEUED, _PARTLY]}, parameters=[partial],
    )  # fmt: skip
    components = document.get("components", {})
    schemas = {**components.get("schemas", {}), "PostedEvent": _event(now_ms), "EventProblem": _PROBLEM,
               "EventsError": _ERROR_BODY}  # fmt: skip
    security = {**components.get("securitySchemes", {}), "ingestKey": {"type": "http", "scheme": "bearer"}}
    paths = {"/v1/projects/{id}/events": {"post": one}, "/v1/projects/{id}/events/batch": {"post": many}}
    return {
        **document,
        "paths": {**document.get("paths", {}), **paths},
        "components": {**components, "schemas": schemas, "securitySchemes": security},
    }
