"""The models of the API that several areas and the client share; those of one area lie beside its code."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Role = Literal["owner", "editor", "listener"]
JobStatus = Literal["queued", "running", "done", "failed", "cancelled"]
ClipStatus = Literal["new", "kept", "discarded"]

MOST_ITEMS = 200
"""Items of a page of a list."""

Id = Annotated[str, StringConstraints(min_length=1, max_length=32, pattern=r"^[A-Za-z0-9_-]+$")]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=120)]


class Model(BaseModel):
    """Base of what the API takes and gives: unknown keys are errors, numbers finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Problem(Model):
    """An error: one line, and a code for programs."""

    detail: str
    code: str


Item = TypeVar("Item")


class Page(Model, Generic[Item]):
    """Part of a list, newest first. next: the cursor of the following part; None at the end."""

    items: list[Item]
    next: str | None = None


class Health(Model):
    """Whether the studio works."""

    status: Literal["ok"]
    version: str
    worker: bool = Field(description="Whether the worker process is up.")


class SessionRequest(Model):
    """A token to log in with: an owner's or editor's, or that of the link that the command prints."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=512)]


class SessionInfo(Model):
    """Who is logged in. csrf: to be sent as X-CSRF-Token with every request that changes something."""

    role: Role
    name: str
    csrf: str | None = None


class TokenRequest(Model):
    """A token to make."""

    name: Name
    role: Literal["owner", "editor"]


class TokenInfo(Model):
    """A token without its secret."""

    id: str
    name: str
    role: Role
    created_at: str
    revoked: bool


class NewToken(TokenInfo):
    """A token just made; it is shown this once."""

    token: str


class JobProgress(Model):
    """Progress of a job: `done` of `total` items, and of the present item `step` of `steps`."""

    done: int = 0
    total: int = 0
    step: int | None = None
    steps: int | None = None
    seconds_left: float | None = None
    label: str | None = None


class JobInfo(Model):
    """A job."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    kind: str
    status: JobStatus
    request: dict[str, Any]
    result: dict[str, Any] | None
    error: str | None
    progress: JobProgress | None
    cancel_requested: bool
    parent_id: str | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    attempts: int
