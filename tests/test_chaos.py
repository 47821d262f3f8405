"""The short form of `make chaos`: a relay under load is killed with SIGKILL, and the books are balanced afterwards."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def rage(tmp_path: Path, *options: str) -> dict[str, Any]:
    figures = tmp_path / "chaos.json"
    command = [sys.executable, "-m", "bench.chaos", "--longest-ms=400", f"--json={figures}", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    storm: dict[str, Any] = json.loads(figures.read_text())
    return storm


def test_what_was_acknowledged_outlives_kill_9_and_is_told_once(tmp_path: Path) -> None:
    storm = rage(tmp_path, "--kills=4")
    verdict = storm["verdict"]
    assert storm["kills"] == 4
    assert storm["kills_while_starting"] == 1
    assert verdict["acknowledged"] > 0
    assert set(verdict["violations"].values()) == {0}
    assert verdict["arrived"] - verdict["copies"] == verdict["kept"] == verdict["acknowledged"] == storm["checkouts"]
    assert verdict["more_than_once"] <= verdict["in_doubt"]


def test_it_is_so_too_while_the_destination_misbehaves(tmp_path: Path) -> None:
    storm = rage(tmp_path, "--kills=2", "--faults")
    assert storm["blows"] > 0
    assert set(storm["verdict"]["violations"].values()) == {0}
