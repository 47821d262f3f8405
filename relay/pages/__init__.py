"""The operator's console at `/admin`: see what came, explain each event, repair what is stuck. Server-rendered.

It is there only where `RELAY_ADMIN_TOKEN` is set. Every page works without JavaScript; what scripts there are come
from here, as do fonts and styles.
"""

from __future__ import annotations

from relay.pages.routes import Things, console_routes

__all__ = ["Things", "console_routes"]
