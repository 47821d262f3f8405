"""What the pages are made of, and where they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from relay.contract import Provider
from relay.metrics import Metrics
from relay.settings import Settings
from relay.store.base import Store

HOME = "/admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Things:
    """Parts of the running relay."""

    settings: Settings
    providers: Mapping[str, Provider]
    store: Store
    metrics: Metrics
    clock: Callable[[], int]
    #: Why nothing can be taken now, or None.
    trouble: Callable[[], str | None]


Made = Callable[[], Things]
