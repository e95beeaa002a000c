"""The studio on PostgreSQL, where its programs and psycopg are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from plaudit.errors import RunError
from plaudit.studio import jobs
from plaudit.studio.app_state import Studio
from plaudit.studio.settings import StudioSettings
from tests.studio.conftest import Opened, done

pytest.importorskip("psycopg", reason="psycopg is not installed")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a server that listens on a socket file alone."""
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        pytest.skip("PostgreSQL's programs are not installed")
    # Not as root, and in a folder that the other user can reach.
    run_as = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 else []
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o777)

        def command(*words: str) -> None:
            log = folder / "log"
            with log.open("a") as output:
                done = subprocess.run([*run_as, *words], cwd=folder, stdout=output, stderr=output, timeout=120)
            assert done.returncode == 0, log.read_text()

        command("initdb", "-D", f"{folder}/data", "-U", "studio", "--auth=trust", "--no-sync")
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        command("pg_ctl", "-D", f"{folder}/data", "-w", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://studio@/postgres?host={folder}"
        finally:
            command("pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "stop")


def test_a_studio_on_postgresql(server: str, tmp_path: Path) -> None:
    opened = Opened(StudioSettings(folder=tmp_path / "a", database=server, device="cpu"))
    owner = opened.client(opened.token)
    with pytest.raises(RunError, match="another studio works with"):
        Studio.open(StudioSettings(folder=tmp_path / "b", database=server))
    request = {"prompts": ["drums"], "model": "synthetic-distilled"}

    def post(_: int) -> Any:
        return done(owner.post("generations", json=request, headers={"idempotency-key": "same"}), 202)["id"]

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(post, range(12)))) == 1
    for n in range(10):
        done(owner.post("generations", json={**request, "seed": n}), 202)
    jobs.load_kinds()

    def claim(worker: int) -> list[str]:
        rows = []
        while (row := jobs.claim(opened.studio.database, str(worker), "main")) is not None:
            rows.append(row.id)
        return rows

    with ThreadPoolExecutor(4) as pool:
        claimed = [id for rows in pool.map(claim, range(4)) for id in rows]
    assert len(claimed) == len(set(claimed)) == 11
    assert jobs.requeue_interrupted(opened.studio.database) == 11
    done(owner.post(f"jobs/{claimed[0]}/cancel"))
    listed = done(owner.get("jobs?limit=20&status=queued"))["items"]
    assert len(listed) == 10
    opened.close()
    again = Studio.open(StudioSettings(folder=tmp_path / "a", database=server))
    assert again.login_token() is not None
    again.close()
