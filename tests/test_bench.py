"""The short form of `make bench`: no figures are expected, but it runs, and every webhook of it arrives once."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_bench_runs_and_every_webhook_of_it_arrives_once(tmp_path: Path) -> None:
    figures = tmp_path / "bench.json"
    command = [sys.executable, "-m", "bench", "--quick", f"--json={figures}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(figures.read_text())
    bare, accepted, delivered = found["subjects"]
    assert bare["ratio"] == 1
    for subject in (accepted, delivered):
        arrived = subject["rounds"][0]["arrived"]
        assert 0 < arrived["events"] == arrived["acknowledged"]
        assert [arrived[fault] for fault in ("lost", "twice", "unasked", "wrong")] == [0, 0, 0, 0]
    assert found["drain"]["arrived"]["events"] == found["drain"]["backlog"]
    assert found["drain"]["arrived"]["twice"] == 0
