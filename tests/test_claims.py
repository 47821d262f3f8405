"""Bundles of an inbox file are divided among processes by locks that end with their holder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from relay.store.claims import Claims

_HOLDS = """
import sys
from pathlib import Path
from relay.store.claims import Claims

claims = Claims(Path(sys.argv[1]))
print(claims.take(int(sys.argv[2])), flush=True)
sys.stdin.read()
"""
#: As large as row ids are.
BUNDLE = 3_764_387_840_001_877_367


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    return tmp_path / "relay.db.inbox"


@pytest.fixture
def ours(inbox: Path) -> Iterator[Claims]:
    claims = Claims(inbox)
    yield claims
    claims.close()


@contextmanager
def another_process_with(inbox: Path, row: int) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDS, str(inbox), str(row)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def test_what_one_process_has_no_other_gets(inbox: Path, ours: Claims) -> None:
    with another_process_with(inbox, BUNDLE):
        assert (ours.take(BUNDLE), ours.take(BUNDLE + 1)) == (False, True)


def test_what_a_dead_process_had_is_free(inbox: Path, ours: Claims) -> None:
    with another_process_with(inbox, BUNDLE) as process:
        process.kill()
        process.wait()

        assert ours.take(BUNDLE)


def test_what_was_let_go_another_one_gets(inbox: Path, ours: Claims) -> None:
    assert ours.take(BUNDLE)

    ours.let_go([BUNDLE])

    with another_process_with(inbox, BUNDLE):
        assert not ours.take(BUNDLE)
