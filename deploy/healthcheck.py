"""Whether the relay in this container is alive: exit code 0, or 1 and why not. For the image's HEALTHCHECK."""
# ruff: noqa: INP001  a script

import http.client
import os
import sys

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  not to bind to

address = os.environ.get("RELAY_HOST") or "127.0.0.1"
port = int(os.environ.get("RELAY_PORT") or 8000)
# Not urllib, which would ask by way of HTTP_PROXY.
relay = http.client.HTTPConnection(_ANY.get(address, address), port, timeout=4)
try:
    relay.request("GET", "/healthz")
    status = relay.getresponse().status
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"{address}:{port} does not answer: {error!r}")
if status != http.client.OK:
    sys.exit(f"{address}:{port}/healthz answers {status}")
