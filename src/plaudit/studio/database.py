"""The studio's database: tables, engine, transactions.

Every table is ordered by `sequence`, which the database counts, never by a time: a clock that jumps does no harm.
Ids are short random texts. SQLite is used in WAL mode: what a transaction wrote is on the disk when `transaction` ends,
so an acknowledged vote survives a SIGKILL and a power cut. Writers wait in line behind a lock of the process, as
SQLite's own waiting is by polling and unfair; for the disk they wait together, after the lock (`_Disk`).
"""

from __future__ import annotations

import itertools
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    JSON,
    Boolean,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    UniqueConstraint,
    create_engine,
    select,
    text,
)
from sqlalchemy import event as listening_to
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import QueuePool

from plaudit.errors import RunError
from plaudit.studio.errors import NotFound

CHECKPOINT_EVERY = 200
"""Transactions between two copies of the log into an SQLite database. (SQLite's own way, within a transaction that
makes the log long, would hold up all others.)"""

ID_BYTES = 9
"""Random bytes of an id: 12 characters, 72 bits."""


def new_id() -> str:
    """A short URL-safe random text that begins with a letter or digit, so that it is never taken for an option."""
    while True:
        text = secrets.token_urlsafe(ID_BYTES)
        if text[0].isalnum():
            return text


def now() -> str:
    """The time as `stamp` writes it."""
    return stamp(datetime.now(UTC))


def stamp(moment: datetime) -> str:
    """A time in UTC, ISO 8601 with milliseconds: for people, and never for an order that matters."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Base(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON, float: Float, str: Text, bool: Boolean}  # noqa: RUF012


class Row(Base):
    """A row with a number that the database counts, and an id that the API shows."""

    __abstract__ = True

    sequence: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True, default=new_id)
    created_at: Mapped[str] = mapped_column(String(32), default=now)


COUNTED = {"sqlite_autoincrement": True}
"""SQLite then never gives a number twice, as the other databases."""


def reference(table: str, nullable: bool = False, index: bool = True) -> Any:
    """A column with the id of another table's row."""
    return mapped_column(String(32), ForeignKey(f"{table}.id"), nullable=nullable, index=index)


class Token(Row):
    """An owner's or editor's token; of its secret the argon2 hash alone."""

    __tablename__ = "tokens"
    __table_args__ = COUNTED
    name: Mapped[str]
    role: Mapped[str] = mapped_column(String(16))
    hash: Mapped[str]
    revoked: Mapped[bool] = mapped_column(default=False)


class Setting(Base):
    """A setting of the studio that is changed in the page."""

    __tablename__ = "settings"
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[Any] = mapped_column(JSON)


class Idempotency(Base):
    """The answer of a POST with an Idempotency-Key, written in the transaction that did the work."""

    __tablename__ = "idempotency"
    __table_args__ = (UniqueConstraint("key", "token_id", "method_path"), COUNTED)
    sequence: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    key: Mapped[str] = mapped_column(String(128))
    token_id: Mapped[str] = mapped_column(String(64))
    method_path: Mapped[str]
    request_digest: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    body: Mapped[str]
    content_type: Mapped[str] = mapped_column(default="application/json")


class Job(Row):
    """Long work of the worker. The table is the queue: see `jobs.py`."""

    __tablename__ = "jobs"
    __table_args__ = (Index("jobs_by_status", "status", "sequence"), COUNTED)
    kind: Mapped[str] = mapped_column(String(32))
    status: Mapped[str] = mapped_column(String(16), default="queued")
    request: Mapped[dict[str, Any]]
    result: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    progress: Mapped[dict[str, Any] | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    parent_id: Mapped[str | None] = reference("jobs", nullable=True)
    started_at: Mapped[str | None] = mapped_column(String(32))
    finished_at: Mapped[str | None] = mapped_column(String(32))
    worker: Mapped[str | None] = mapped_column(String(32))
    attempts: Mapped[int] = mapped_column(default=0)


class Event(Base):
    """A change that server-sent events report; its sequence is the event's id."""

    __tablename__ = "events"
    __table_args__ = (Index("events_by_subject", "subject", "sequence"), COUNTED)
    sequence: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    kind: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(String(32))
    data: Mapped[dict[str, Any]]


class Clip(Row):
    """A clip in the studio's folder."""

    __tablename__ = "clips"
    __table_args__ = (UniqueConstraint("job_id", "position"), COUNTED)
    job_id: Mapped[str | None] = reference("jobs", nullable=True)
    test_id: Mapped[str | None] = reference("tests", nullable=True)
    position: Mapped[int | None]
    """Its number among the clips of its job."""
    path: Mapped[str]
    prompt: Mapped[str]
    model: Mapped[str | None]
    seed: Mapped[str | None] = mapped_column(String(24))
    """As text: seeds have up to 64 bits, and SQLite's integers a sign."""
    settings: Mapped[dict[str, Any] | None]
    duration: Mapped[float | None]
    sample_rate: Mapped[int | None]
    reward: Mapped[float | None]
    clap: Mapped[float | None]
    status: Mapped[str] = mapped_column(String(16), default="new")
    loudness: Mapped[float | None]
    peak: Mapped[float | None]
    digest: Mapped[str | None] = mapped_column(String(64))
    """SHA-256 of the file."""


class Test(Row):
    """A listening test."""

    __test__ = False  # its name is no sign for pytest

    __tablename__ = "tests"
    __table_args__ = COUNTED
    name: Mapped[str]
    kind: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16), default="draft")
    question: Mapped[str]
    instructions: Mapped[str]
    consent: Mapped[str]
    settings: Mapped[dict[str, Any]]


class System(Row):
    """One of the systems that a test compares."""

    __tablename__ = "systems"
    __table_args__ = COUNTED
    test_id: Mapped[str] = reference("tests")
    name: Mapped[str]
    source: Mapped[dict[str, Any]]


class Prompt(Row):
    """A prompt of a test."""

    __tablename__ = "prompts"
    __table_args__ = COUNTED
    test_id: Mapped[str] = reference("tests")
    text: Mapped[str]


class Stimulus(Row):
    """A system's clip of a prompt."""

    __tablename__ = "stimuli"
    __table_args__ = COUNTED
    test_id: Mapped[str] = reference("tests")
    system_id: Mapped[str] = reference("systems")
    prompt_id: Mapped[str] = reference("prompts")
    clip_id: Mapped[str] = reference("clips")


class Pair(Row):
    """Two stimuli of a prompt to be compared."""

    __tablename__ = "pairs"
    __table_args__ = COUNTED
    test_id: Mapped[str] = reference("tests")
    prompt_id: Mapped[str] = reference("prompts")
    stimulus_a: Mapped[str] = reference("stimuli", index=False)
    stimulus_b: Mapped[str] = reference("stimuli", index=False)
    kind: Mapped[str] = mapped_column(String(16), default="regular")


class Invitation(Row):
    """A signed link to a test."""

    __tablename__ = "invitations"
    __table_args__ = COUNTED
    test_id: Mapped[str] = reference("tests")
    label: Mapped[str]
    max_listeners: Mapped[int | None]
    revoked: Mapped[bool] = mapped_column(default=False)


class Listener(Row):
    """A listener of a test."""

    __tablename__ = "listeners"
    __table_args__ = COUNTED
    test_id: Mapped[str] = reference("tests")
    invitation_id: Mapped[str] = reference("invitations")
    screening: Mapped[dict[str, Any] | None]
    consented_at: Mapped[str | None] = mapped_column(String(32))
    completed_at: Mapped[str | None] = mapped_column(String(32))
    completion_code: Mapped[str | None] = mapped_column(String(32))
    user_agent: Mapped[str | None]
    excluded: Mapped[dict[str, Any] | None]
    plan: Mapped[dict[str, Any] | None]
    """Of a test with active pairing: {"total": number of assignments, "slots": {position: repeated position or None}},
    the positions whose assignments are made when their turn comes."""


class Assignment(Row):
    """A pair given to a listener. swapped: the pair's a is on the right."""

    __tablename__ = "assignments"
    __table_args__ = (UniqueConstraint("listener_id", "position"), COUNTED)
    listener_id: Mapped[str] = reference("listeners")
    pair_id: Mapped[str] = reference("pairs")
    position: Mapped[int]
    swapped: Mapped[bool] = mapped_column(default=False)
    answered: Mapped[bool] = mapped_column(default=False)


class Vote(Row):
    """A vote on an assignment's pair; winner is of the pair's a and b, whichever side they were on."""

    __tablename__ = "votes"
    __table_args__ = COUNTED
    assignment_id: Mapped[str] = mapped_column(String(32), ForeignKey("assignments.id"), unique=True)
    winner: Mapped[str] = mapped_column(String(8))
    strength: Mapped[int | None]
    comment: Mapped[str | None]
    listened_a: Mapped[float]
    listened_b: Mapped[float]
    response_ms: Mapped[int]


class Rating(Row):
    """A rating of a stimulus from 0 to 100."""

    __tablename__ = "ratings"
    __table_args__ = (UniqueConstraint("assignment_id", "stimulus_id"), COUNTED)
    assignment_id: Mapped[str] = reference("assignments")
    stimulus_id: Mapped[str] = reference("stimuli")
    value: Mapped[float]


class RewardModel(Row):
    """A reward that was trained in the studio."""

    __tablename__ = "rewards"
    __table_args__ = COUNTED
    job_id: Mapped[str | None] = reference("jobs", nullable=True)
    name: Mapped[str]
    path: Mapped[str]
    metrics: Mapped[dict[str, Any]]


class Look(Row):
    """A sequential look at a test's results."""

    __tablename__ = "looks"
    __table_args__ = COUNTED
    test_id: Mapped[str] = reference("tests")
    at_votes: Mapped[int]
    result: Mapped[dict[str, Any]]


Kind = TypeVar("Kind", bound=Row)


sync_file: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
"""Brings a file's content to the disk, and of what is known about it only what is needed to read it."""


class _Disk:
    """Brings SQLite's write-ahead log to the disk, once for all transactions that were committed meanwhile.

    With `synchronous=FULL` each transaction would wait for the disk while it holds up the others. Instead SQLite is
    told NORMAL, with which it syncs the log when it begins it anew and before it copies pages from it, and this syncs
    the rest. (Closing the file here frees no lock of SQLite's: in WAL mode they are on other files.)
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self._changed = threading.Condition()
        self._begun = self._ended = 0
        self._running = False
        self._failures: dict[int, OSError] = {}

    def wait(self) -> None:
        """Wait for a sync that begins from now on; OSError where it failed."""
        with self._changed:
            number = self._begun + 1
            while self._ended < number:
                if self._running:
                    self._changed.wait()
                    continue
                self._running, self._begun = True, number
                self._changed.release()
                try:
                    failure = self._sync()
                finally:
                    self._changed.acquire()
                    self._running, self._ended = False, number
                    self._changed.notify_all()
                if failure is not None:
                    self._failures[number] = failure
            if number in self._failures:
                raise self._failures[number]

    def _sync(self) -> OSError | None:
        try:
            file = os.open(self.log, os.O_RDWR)
        except FileNotFoundError:
            return None  # the last connection was closed, after it copied and synced everything
        try:
            sync_file(file)
        except OSError as error:
            return error
        finally:
            os.close(file)
        return None


class Database:
    """The engine with its transactions."""

    def __init__(self, url: str) -> None:
        """RunError for a URL that names no database this Python can reach."""
        try:
            self.url = make_url(url)
            self.is_sqlite = self.url.get_backend_name() == "sqlite"
            shared: dict[str, Any] = {"poolclass": QueuePool, "pool_size": 8, "max_overflow": 56, "pool_timeout": 30}
            if self.is_sqlite:
                shared["connect_args"] = {"timeout": 30, "check_same_thread": False}
            else:
                shared["pool_pre_ping"] = True
            self.engine = create_engine(self.url, **shared)
        except (ArgumentError, NoSuchModuleError) as error:
            raise RunError(f"--database: {' '.join(str(error).split())}") from None
        except ImportError as error:
            raise RunError(f"--database needs the package {error.name}; install it with pip") from None
        self._writing = threading.Lock()
        self._writer_thread = 0
        self._transactions = itertools.count(1)
        self._disk = None if self.path is None else _Disk(Path(f"{self.path}-wal"))
        if self.is_sqlite:
            listening_to.listen(self.engine, "connect", _prepare_sqlite)
            listening_to.listen(self.engine, "begin", _begin_sqlite)
        self._writer = self.engine.execution_options(plaudit_writes=True)

    @property
    def name(self) -> str:
        """The database for messages, without a password."""
        return str(self.url.database) if self.is_sqlite else self.url.render_as_string(hide_password=True)

    @property
    def path(self) -> Path | None:
        """The file of an SQLite database."""
        return Path(str(self.url.database)) if self.is_sqlite else None

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session whose changes are on the disk at the end of the block, or undone by an error."""
        with self._write_lock(), Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session
        self.wait_for_disk()
        self._checkpoint_sometimes()

    def _checkpoint_sometimes(self) -> None:
        """Copy the log into the database after some transactions: here, where no other waits for it."""
        if not self.is_sqlite or next(self._transactions) % CHECKPOINT_EVERY:
            return
        connection = self.engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error:
            pass  # such as a full disk: all is in the log, and the next time is soon
        finally:
            connection.close()

    def wait_for_disk(self) -> None:
        """Wait until everything that was committed before, by whichever thread, is on the disk."""
        if self._disk is not None:
            self._disk.wait()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that sees one state of the database and writes nothing."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def _write_lock(self) -> Iterator[None]:
        if not self.is_sqlite:
            yield
            return
        if self._writer_thread == threading.get_ident():
            raise RuntimeError("a transaction within a transaction would wait for itself")
        with self._writing:
            self._writer_thread = threading.get_ident()
            try:
                yield
            finally:
                self._writer_thread = 0

    def connect(self) -> Connection:
        """A connection; RunError where the database can't be opened."""
        try:
            return self.engine.connect()
        except DBAPIError as error:
            raise RunError(f"{self.name} cannot be opened: {reason_of(error)}") from None

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def by_id(session: Session, kind: type[Kind], id: str, name: str | None = None) -> Kind:
    """The row with an id; NotFound where there is none."""
    row = session.scalar(select(kind).where(kind.id == id))
    if row is None:
        raise NotFound(f"there is no {name or kind.__name__.lower()} {id[:40]!r}")
    return row


def reason_of(error: DBAPIError) -> str:
    """What the database's driver says, in one line."""
    return " ".join(str(error.orig).split()) or type(error.orig).__name__


def is_full(error: BaseException) -> bool:
    """Whether the database could not be written because the disk is full."""
    return isinstance(error, OperationalError) and "full" in str(error.orig).lower()


def _prepare_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says, not where the driver guesses
    cursor = connection.cursor()
    pragmas = "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=30000", "wal_autocheckpoint=0"
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """Writers take the write lock at once: a reader that becomes a writer later may be refused it for good."""
    writes = connection.get_execution_options().get("plaudit_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def advisory_lock(connection: Connection, key: int) -> bool:
    """Take a lock of a PostgreSQL database that the connection holds until it closes; False where another has it."""
    return bool(connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}).scalar())
