"""Errors of the API: each has a status and a code, and its message is one line."""

from __future__ import annotations

from typing import ClassVar

from plaudit.errors import PlauditError


class StudioError(PlauditError):
    """A request that can't be carried out."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "invalid"


class Unauthorized(StudioError):
    """No credentials, or unknown ones."""

    status, code = 401, "unauthorized"


class Forbidden(StudioError):
    """The credentials don't allow this."""

    status, code = 403, "forbidden"


class NotFound(StudioError):
    """There is no such thing, or none that the caller may see."""

    status, code = 404, "not-found"


class Conflict(StudioError):
    """The state of what is asked for doesn't allow it."""

    status, code = 409, "conflict"


class Gone(StudioError):
    """It was here, but its file or its window of time is gone."""

    status, code = 410, "gone"


class TooLarge(StudioError):
    """A body or a file exceeds its limit."""

    status, code = 413, "too-large"


class Unprocessable(StudioError):
    """A value is of the right form but can't be used."""

    status, code = 422, "invalid"


class NoRoom(StudioError):
    """The disk is full."""

    status, code = 507, "disk-full"
