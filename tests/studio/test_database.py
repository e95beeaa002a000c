"""Migrations, and what keeps a studio's database whole."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from plaudit.errors import RunError
from plaudit.studio.app_state import Studio
from plaudit.studio.database import Base, Database
from plaudit.studio.migrations import upgrade
from plaudit.studio.settings import StudioSettings


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
