"""What the OpenAPI page says of the webhooks' own paths."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response


def add_webhooks(app: FastAPI, prefix: str) -> None:
    """The hot path's entries; requests are taken by the `Receiver` before they get here."""

    @app.post(
        prefix + "{source}",
        summary="Receive a provider's webhook",
        tags=["webhooks"],
        responses={
            200: {"description": "Committed: accepted, duplicate, ignored, or kept until it can be mapped."},
            401: {"description": "The signature is missing, wrong, or too old."},
            404: {"description": "No source of this name has a secret."},
            413: {"description": "The body is over the limit."},
            429: {"description": "Not now. `Retry-After` says when."},
        },
    )
    async def webhook(source: str, request: Request) -> Response:
        del source, request
        return Response(status_code=404)

    @app.get(
        prefix + "{source}",
        summary="Is somebody there? Some providers ask before they send anything",
        tags=["webhooks"],
        responses={
            200: {"description": "Yes; with the answer to the provider's challenge, where it sent one."},
            404: {"description": "No source of this name has a secret."},
        },
    )
    async def challenge(source: str) -> Response:
        del source
        return Response(status_code=404)
