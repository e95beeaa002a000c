"""Migrations of the studio's database, by Alembic: `upgrade(database)`.

After a change of `database.py`, `python -m plaudit.studio.migrations MESSAGE` writes the migration for it; look at it
before committing it. A test compares the tables with what the migrations make.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError

from plaudit.errors import RunError
from plaudit.studio.database import Database, is_full, reason_of

FOLDER = Path(__file__).parent


def upgrade(database: Database) -> None:
    """Bring the database to this version's tables. RunError where it is a newer version's, or no studio's."""
    config = configuration()
    scripts = ScriptDirectory.from_config(config)
    try:
        with database.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
            tables = set(database.engine.dialect.get_table_names(connection))
            connection.rollback()
        if current is None and tables & {"jobs", "votes", "tests"}:
            raise RunError(f"{database.name} holds other tables than a studio's; name another --database")
        if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
            raise RunError(
                f"{database.name} was written by a newer version of plaudit (its revision {current} is unknown here); "
                "update plaudit, or name another folder"
            )
        if current == scripts.get_current_head():
            return
        with database._writer.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except DBAPIError as error:
        if is_full(error):
            raise RunError(f"{database.name} cannot be written: the disk is full; free some space") from None
        raise RunError(f"{database.name} cannot be used as a studio's database: {reason_of(error)}") from None


def configuration() -> Config:
    """Alembic's, for the scripts beside this file."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    return config


def write_migration(message: str) -> None:
    """Write the migration from what the scripts make to the tables of `database.py`."""
    with TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/studio.sqlite")
        upgrade(database)
        config = configuration()
        number = len(list((FOLDER / "versions").glob("*.py"))) + 1
        with database.engine.connect() as connection:
            config.attributes["connection"] = connection
            command.revision(config, message, autogenerate=True, rev_id=f"{number:04d}")
        database.close()
