"""The webhook secret of the demonstration: made from the key of the bodies at rest, so that `relay send` knows it, too.

It is the same for as long as that key is, and is taken only by the demonstration, whose events go to the sandbox.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac

from relay.settings import Settings
from relay.store import is_shared, key_path
from relay.vault import VaultError, parse_key

PROVIDER = "stripe"
_LABEL = b"the demonstration's webhook secret"


def demo_secret(settings: Settings) -> str | None:
    """None where no demonstration was here: there is no key yet."""
    key = _key(settings)
    return None if key is None else "whsec_demo" + hmac.new(key, _LABEL, hashlib.sha256).hexdigest()[:32]


def _key(settings: Settings) -> bytes | None:
    if settings.encryption_keys:
        return settings.encryption_keys[0].get_secret_value()
    url = settings.database_url.get_secret_value()
    with contextlib.suppress(OSError, VaultError):
        return None if is_shared(url) else parse_key(key_path(url).read_text())
    return None
