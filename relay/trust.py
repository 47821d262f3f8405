"""Whose certificates our calls trust: those that `SSL_CERT_FILE` or `SSL_CERT_DIR` name, else those of certifi."""

from __future__ import annotations

import ssl
from functools import cache

import httpx


@cache
def trusted() -> ssl.SSLContext:
    """All clients of a process share it: to load it takes 20 ms and a megabyte."""
    return httpx.create_ssl_context()
