"""What probes and Prometheus ask for: `/healthz`, `/readyz`, `/metrics`."""

from __future__ import annotations

import contextlib

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from relay import __version__
from relay.clock import unix_ms
from relay.operating import depths, readiness
from relay.store.base import StoreUnavailableError


def add_health(app: FastAPI) -> None:
    """These paths, which look at the `parts` that the app's state holds by then."""

    @app.get("/healthz", summary="Is the process alive?", tags=["health"])
    async def healthz() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @app.get(
        "/readyz",
        summary="Can webhooks be taken, and do events leave?",
        tags=["health"],
        responses={503: {"description": "Webhooks cannot be taken now; the body says why."}},
    )
    async def readyz() -> JSONResponse:
        parts = app.state.parts
        body = await readiness(parts.store, parts.settings.destinations, trouble=parts.disk.trouble(), now_ms=unix_ms())
        return JSONResponse(body, status_code=503 if body["status"] == "unavailable" else 200)

    @app.get("/metrics", summary="Prometheus metrics", tags=["health"], response_class=Response)
    async def prometheus() -> Response:
        parts = app.state.parts
        with contextlib.suppress(StoreUnavailableError):
            await depths(parts.store, parts.metrics, now_ms=parts.clock())
        parts.metrics.show_disk(parts.disk.free)
        return Response(parts.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
