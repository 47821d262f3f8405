"""Every provider keeps what `relay.testing` says that a provider promises."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from relay.cases import Case, read_cases
from relay.contract import Provider
from relay.registry import load_providers
from relay.rehearsal import Rehearsal, rehearse
from relay.testing import PROMISES, Promise

ROOT = Path(__file__).parents[1]
PROVIDERS = load_providers(None)


def cases_of(provider: Provider) -> list[Case]:
    return read_cases(provider, ROOT / "tests" / "mappers" / provider.name)


@pytest.fixture(scope="module", params=list(PROVIDERS.values()), ids=list(PROVIDERS))
def tried(request: pytest.FixtureRequest) -> Iterator[tuple[Rehearsal, Sequence[Case]]]:
    provider: Provider = request.param
    with rehearse(provider) as stage:
        yield stage, cases_of(provider)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_a_provider_keeps_its_promises(tried: tuple[Rehearsal, Sequence[Case]], promise: Promise) -> None:
    assert [] == list(promise(*tried))


EVERYTHING = """
from hashlib import sha256
from pathlib import Path
from relay.cases import read_cases
from relay.mapping import map_delivery
from relay.registry import load_providers
from relay.rehearsal import START_MS, source_of

digest = sha256()
for provider in load_providers(None).values():
    for case in read_cases(provider, Path("tests/mappers") / provider.name):
        for mapped in map_delivery(provider, source_of(provider), case.delivery, received_at_ms=START_MS):
            digest.update(mapped.notification_id.encode())
            for outgoing in mapped.events:
                digest.update(repr(outgoing.sealed.once).encode() + outgoing.sealed.payload)
print(digest.hexdigest())
"""


def test_all_events_are_the_same_in_another_process() -> None:
    """What depends on the order of a set, or on an address, differs between processes."""
    said = {
        subprocess.run([sys.executable, "-c", EVERYTHING], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed},
                       check=True, capture_output=True, text=True).stdout
        for seed in ("1", "2")
    }  # fmt: skip

    assert len(said) == 1
