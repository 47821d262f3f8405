"""The command `relay` as a person or a script runs it: a process of its own, in its folder, with its variables."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import acme

ROOT = Path(__file__).parents[1]
PATIENCE_S = 30

ACME = (ROOT / "tests" / "acme.py").read_text(encoding="utf-8") + "\n\nprovider = make()\n"
CAPTURED: dict[str, Any] = {
    "about": "A card payment was captured.",
    "headers": {"X-Acme-Region": "eu"},
    "body": acme.captured("1A", notification="ntf_1A", captured_at=1_795_000_000),
    "fresh": {"ids": ["ntf_1A", "pay_1A"], "seconds": [1_795_000_000]},
    "drafts": [{"name": "purchase"}],
}


@dataclass
class Ended:
    """A command that is done."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Commands:
    """Runs the command in this folder."""

    folder: Path
    variables: dict[str, str]

    async def __call__(self, *words: str, **variables: str) -> Ended:
        process = await self._start(words, variables)
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    @asynccontextmanager
    async def serving(self, *words: str, says: str, **variables: str) -> AsyncIterator[Serving]:
        """Start one that serves, wait until it has said this, and interrupt it in the end."""
        process = await self._start(words, variables)
        serving = Serving(process)
        try:
            await asyncio.wait_for(serving.until(says), PATIENCE_S)
            yield serving
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
            serving.out += out.decode()
            serving.err += err.decode()
            serving.code = process.returncode

    async def _start(self, words: tuple[str, ...], variables: dict[str, str]) -> asyncio.subprocess.Process:
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error::ResourceWarning"}
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "relay", *words, cwd=self.folder, env={**environ, **self.variables, **variables},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip


@dataclass
class Serving:
    """A command that runs until it is interrupted."""

    process: asyncio.subprocess.Process
    out: str = ""
    err: str = ""
    #: When it has ended.
    code: int | None = None

    async def until(self, words: str) -> None:
        """Read on, until it has said these words on stdout."""
        assert self.process.stdout is not None
        while words not in self.out:
            line = await self.process.stdout.readline()
            assert line, f"it ended without saying {words!r}: {self.out}"
            self.out += line.decode()


def mount_acme(folder: Path) -> dict[str, str]:
    """Acme as a mapper from a mounted folder, with a sample: the variables that make it known."""
    samples = folder / "mappers" / "samples" / "acme"
    samples.mkdir(parents=True)
    (folder / "mappers" / "acme.py").write_text(ACME)
    (samples / "payment.captured__card.json").write_text(json.dumps(CAPTURED))
    return {"RELAY_MAPPERS_DIR": str(folder / "mappers")}
