"""The `plaudit` command in this process, from its arguments to its exit code."""

from __future__ import annotations

import io
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from plaudit.cli.main import main


@dataclass(frozen=True)
class Done:
    """Exit code, standard output and standard error of a command."""

    code: int
    out: str
    err: str


def plaudit(*arguments: str | Path, stdin: str = "") -> Done:
    """Run a command as the shell would."""
    given = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    handler, code = signal.getsignal(signal.SIGINT), 0
    words = ["plaudit", *map(str, arguments)]
    with mock.patch.object(sys, "argv", words), mock.patch.object(sys, "stdin", given):
        with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
            try:
                main()
            except SystemExit as end:
                code = int(end.code or 0)
            finally:
                signal.signal(signal.SIGINT, handler)
    for stream in streams:
        stream.flush()
    out, err = (stream.buffer.getvalue().decode("utf-8", "surrogateescape") for stream in streams)  # type: ignore[attr-defined]
    return Done(code, out, err)
