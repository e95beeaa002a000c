"""Migrations, and what keeps a studio's database whole."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from itsdangerous import TimestampSigner
from sqlalchemy import event, select

from plaudit.errors import RunError
from plaudit.studio import database as tables
from plaudit.studio.app_state import Studio
from plaudit.studio.database import Base, Database, Token
from plaudit.studio.migrations import upgrade
from plaudit.studio.settings import StudioSettings
from tests.studio.conftest import Opened


def test_migrations_make_the_tables(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'a.sqlite'}")
    upgrade(database)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    database.close()


def test_a_newer_database_is_refused_in_one_line(tmp_path: Path) -> None:
    settings = StudioSettings(folder=tmp_path)
    Studio.open(settings).close()
    with sqlite3.connect(tmp_path / "studio.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(RunError, match=r"newer version of plaudit.*update plaudit"):
        Studio.open(settings)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "studio.sqlite").write_bytes(b"no database " * 100)
    with pytest.raises(RunError, match="cannot be"):
        Studio.open(StudioSettings(folder=tmp_path))


def test_one_studio_at_a_time(tmp_path: Path) -> None:
    settings = StudioSettings(folder=tmp_path)
    first = Studio.open(settings)
    with pytest.raises(RunError, match="another studio works in"):
        Studio.open(settings)
    first.close()
    Studio.open(settings).close()


def test_one_studio_at_a_time_works_with_a_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.sqlite'}"
    first = Studio.open(StudioSettings(folder=tmp_path / "one", database=url))
    with pytest.raises(RunError, match=r"another studio works in .*shared\.sqlite; stop it"):
        Studio.open(StudioSettings(folder=tmp_path / "two", database=url))
    first.close()
    Studio.open(StudioSettings(folder=tmp_path / "two", database=url)).close()


def test_a_transaction_within_another_is_an_error_not_a_deadlock(tmp_path: Path) -> None:
    studio = Studio.open(StudioSettings(folder=tmp_path))
    with pytest.raises(RuntimeError, match="within a transaction"), studio.database.transaction():
        with studio.database.transaction():
            pass
    with studio.database.transaction() as session:
        assert session.scalars(select(Token)).all() == []
    studio.close()


def test_a_transaction_is_undone_by_an_error(tmp_path: Path) -> None:
    studio = Studio.open(StudioSettings(folder=tmp_path))
    with pytest.raises(KeyError), studio.database.transaction() as session:
        studio.authority.new_token(session, "a", "owner")
        raise KeyError
    with studio.database.reading() as session:
        assert session.scalars(select(Token)).all() == []
    studio.close()


def test_a_disk_that_is_full_for_the_database(tmp_path: Path) -> None:
    opened = Opened(StudioSettings(folder=tmp_path))
    client = opened.client(opened.token)
    database = opened.studio.database

    def bound(connection: Any, record: Any) -> None:
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")

    database.engine.dispose()
    with closing(sqlite3.connect(tmp_path / "studio.sqlite")) as connection:
        connection.execute("VACUUM")  # no empty pages are left to fill
    event.listen(database.engine, "connect", bound)
    body = {"prompts": ["a" * 2000] * 100}
    answer = client.post("generations", json=body)
    assert (answer.status_code, answer.json()["code"]) == (507, "disk-full"), answer.text
    event.remove(database.engine, "connect", bound)
    database.engine.dispose()
    assert client.get("jobs").json()["items"] == []
    assert client.post("generations", json=body).status_code == 202
    opened.close()


def test_a_clock_that_was_set_back_ends_sessions_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened(StudioSettings(folder=tmp_path))
    client = opened.client()
    client.post("session", json={"token": opened.token})
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda self: 0)
    answer = client.get("jobs")
    assert (answer.status_code, answer.json()["detail"]) == (401, "this session has ended; log in again")
    assert opened.client(opened.token).get("jobs").status_code == 200
    opened.close()


def test_urls_of_databases_that_cannot_be_used(tmp_path: Path) -> None:
    for url in ("nonsense", "mysql+unknown://host/x", "postgresql+psycopg://user:secret@127.0.0.1:1/none"):
        with pytest.raises(RunError) as error:
            Studio.open(StudioSettings(folder=tmp_path, database=url))
        assert "secret" not in str(error.value) and "\n" not in str(error.value)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be used as a studio's folder"):
        Studio.open(StudioSettings(folder=tmp_path / "file" / "studio"))


def test_a_transaction_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = Studio.open(StudioSettings(folder=tmp_path))
    log, synced = tmp_path / "studio.sqlite-wal", []
    monkeypatch.setattr(tables, "sync_file", lambda file: synced.append(os.fstat(file)))
    with studio.database.transaction() as session:
        studio.authority.new_token(session, "a", "owner")
        assert synced == []
    assert [(one.st_ino, one.st_size) for one in synced] == [(log.stat().st_ino, log.stat().st_size)]
    assert log.stat().st_size > 0
    studio.close()


def test_transactions_at_once_wait_for_the_disk_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = Studio.open(StudioSettings(folder=tmp_path))
    syncs: list[float] = []

    def slow(file: int) -> None:
        syncs.append(time.monotonic())
        time.sleep(0.05)

    monkeypatch.setattr(tables, "sync_file", slow)
    spans = []

    def write(number: int) -> None:
        with studio.database.transaction() as session:
            session.add(Token(name=str(number), role="owner", hash=""))
            session.flush()
        with studio.database.transaction():
            committed = time.monotonic()
        spans.append((committed, time.monotonic()))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(syncs) < 12, "not one for each of 24"
    for committed, returned in spans:
        assert any(committed <= begun <= returned - 0.05 for begun in syncs), "a sync that began after it, and ended"
    studio.close()


def test_a_disk_that_fails_acknowledges_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = Studio.open(StudioSettings(folder=tmp_path))

    def broken(file: int) -> None:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="broken"):
        patch.setattr(tables, "sync_file", broken)
        with studio.database.transaction() as session:
            studio.authority.new_token(session, "a", "owner")
    with studio.database.transaction() as session:
        studio.authority.new_token(session, "b", "owner")
    studio.close()


def test_the_log_is_copied_into_the_database_and_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CHECKPOINT_EVERY", 5)
    studio = Studio.open(StudioSettings(folder=tmp_path))
    sizes = []
    for number in range(40):
        with studio.database.transaction() as session:
            session.add(Token(name=str(number), role="owner", hash="x" * 2000))
        sizes.append((tmp_path / "studio.sqlite-wal").stat().st_size)
    assert sizes[-1] == sizes[10], "it grows no more"
    with closing(sqlite3.connect(tmp_path / "studio.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM tokens").fetchone() == (40,)
    studio.close()
