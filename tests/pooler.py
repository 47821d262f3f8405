"""A PgBouncer in transaction mode, in front of the PostgreSQL of the tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from bench.process import free_port

_FOLDERS = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
_START_S = 10.0

_SETTINGS = """[databases]
* = {server}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
logfile = {folder}/log
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 200
"""


@contextlib.contextmanager
def pgbouncer(database: str, *, connections: int) -> Iterator[str]:
    """The URL of this database through a pool of so many connections. Skips where there is no PgBouncer."""
    program = shutil.which("pgbouncer", path=_FOLDERS)
    if program is None:
        pytest.skip("no PgBouncer: install it (apt-get install pgbouncer) to try the relay behind one")
    server, port = conninfo_to_dict(database), free_port()
    words = [f"{key}={server[key]}" for key in ("host", "port", "user", "password") if server.get(key)]
    folder = Path(tempfile.mkdtemp(prefix="relay-pooler-"))
    folder.chmod(0o777)  # it does not run as root, but as whoever may use the server's socket
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        _SETTINGS.format(server=" ".join(words), port=port, folder=folder, connections=connections), encoding="utf-8"
    )
    host = Path(str(server.get("host", "")))
    user = ["-u", host.owner() if host.is_absolute() else "nobody"] if os.getuid() == 0 else []
    running = subprocess.Popen([program, "-q", *user, str(settings)], stderr=subprocess.DEVNULL)
    url = f"postgresql://{server.get('user', 'postgres')}@127.0.0.1:{port}/{server['dbname']}?sslmode=disable"
    try:
        _wait_for(url, running, folder / "log")
        yield url
    finally:
        running.terminate()
        running.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(url: str, running: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _START_S
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError as error:
            if running.poll() is not None or time.monotonic() > until:
                said = log.read_text(encoding="utf-8") if log.exists() else ""
                pytest.fail(f"PgBouncer does not answer: {error}\n{said}")
            time.sleep(0.05)
        else:
            return
