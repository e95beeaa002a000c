"""What routes work with: the open folder, database and keys of a studio."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import select

from plaudit.errors import RunError
from plaudit.studio.auth import Authority
from plaudit.studio.database import Database, Token, advisory_lock
from plaudit.studio.listening.calculator import Calculator
from plaudit.studio.listening.live_results import LiveResults
from plaudit.studio.migrations import upgrade
from plaudit.studio.settings import StudioSettings
from plaudit.studio.supervisor import Supervisor
from plaudit.writing import locked

_POSTGRES_LOCK = 0x706C6175


@dataclass
class Studio:
    """What routes work with: `request.app.state.studio`.

    results: the results of listening tests.
    """

    settings: StudioSettings
    database: Database
    authority: Authority
    results: LiveResults
    supervisor: Supervisor | None = None
    _open: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def open(cls, settings: StudioSettings) -> Studio:
        """Open the folder and its database, which one studio at a time may. RunError where that can't be."""
        layout = settings.layout
        layout.create()
        with ExitStack() as stack:
            stack.enter_context(_only_studio(layout.lock, str(layout.root)))
            database = Database(settings.database_url)
            stack.callback(database.close)
            if database.path is not None:
                stack.enter_context(_only_studio(database.path.with_name(f"{database.path.name}.lock"), database.name))
            else:
                held = stack.enter_context(database.connect())
                locked_here = advisory_lock(held, _POSTGRES_LOCK)
                held.commit()  # the lock is the connection's, and no transaction stays open
                if not locked_here:
                    raise RunError(f"another studio works with {database.name}; stop it, or name another --database")
            upgrade(database)
            calculator = Calculator(settings.database_url)
            stack.callback(calculator.close)
            authority = Authority(database, layout.secret())
            return cls(settings, database, authority, LiveResults(calculator.compute), _open=stack.pop_all())

    def new_owner_token(self, name: str = "owner") -> str:
        """A new token of an owner, which is shown this once."""
        with self.database.transaction() as session:
            return self.authority.new_token(session, name, "owner")[1]

    def login_token(self) -> str | None:
        """The token of a login link, for the oldest owner; None before there is one."""
        with self.database.reading() as session:
            query = select(Token).where(Token.role == "owner", Token.revoked.is_(False)).order_by(Token.sequence)
            row = session.scalar(query.limit(1))
            return None if row is None else self.authority.login_token(row.id)

    @property
    def worker_is_up(self) -> bool:
        """Whether the worker process runs."""
        return self.supervisor is not None and self.supervisor.is_up

    def close(self) -> None:
        """Close the database, end the process that computes results, and free the folder."""
        self._open.close()


@contextmanager
def _only_studio(lock: Path, what: str) -> Iterator[None]:
    try:
        with locked(lock, wait=False):
            yield
    except BlockingIOError:
        raise RunError(f"another studio works in {what}; stop it, or name another folder or --database") from None
    except OSError as error:
        raise RunError(f"{lock} cannot be written ({error.strerror}); name another folder or --database") from None


async def get_studio(request: Request) -> Studio:
    """The studio of a request. (Asynchronous, so that it takes no thread.)"""
    studio: Studio = request.app.state.studio
    return studio


StudioOf = Annotated[Studio, Depends(get_studio)]
