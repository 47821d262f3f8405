"""The yardstick: a FastAPI route that only reads the body and answers 200. uvicorn, httptools, uvloop, one process."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI, Request, Response

app = FastAPI()


@app.post("/webhooks/stripe")
async def webhook(request: Request) -> Response:
    await request.body()
    return Response()


@app.get("/healthz")
async def healthz() -> Response:
    return Response()


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), http="httptools", loop="uvloop", log_level="warning", access_log=False)
