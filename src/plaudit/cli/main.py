"""The `plaudit` command: its groups, and errors as one line with an exit code."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from plaudit import __version__
from plaudit.cli import compare, evaluate, generate, models, prepare, reward, run, score, studio, sweep, votes
from plaudit.cli.console import lossless_streams
from plaudit.cli.options import App
from plaudit.errors import PlauditError, Preempted, is_no_memory, is_no_room
from plaudit.processors import limit_threads

app = App(name="plaudit", help="Improve text-to-music models by what people prefer.", no_args_is_help=True)
debug = False


def _version(show: bool) -> None:
    if show:
        print(f"plaudit {__version__}")
        raise typer.Exit


@app.callback()
def options(
    show_trace: Annotated[bool, typer.Option("--debug", help="Show the full trace of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Global options."""
    global debug
    debug = show_trace


run.add_to(app)
generate.add_to(app)
score.add_to(app)
app.add_typer(prepare.app, name="prepare")
evaluate.add_to(app)
compare.add_to(app)
app.add_typer(models.app, name="models")
app.add_typer(reward.app, name="reward")
app.add_typer(votes.app, name="votes")
app.add_typer(sweep.app, name="sweep")
studio.add_to(app)


class Interrupted(BaseException):
    """Ctrl-C, hidden from Typer so that the message can say that the command can be resumed."""


def _interrupt(*_: object) -> None:
    raise Interrupted


def main(commands: typer.Typer = app, name: str = "plaudit") -> None:
    """Run the command line `commands`; exits 0 on success only, 2 for wrong usage."""
    signal.signal(signal.SIGINT, _interrupt)
    limit_threads()
    lossless_streams()
    try:
        code = commands(prog_name=name, standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except Preempted as error:
        _fail(str(error), 128 + signal.SIGTERM)
    except PlauditError as error:
        _fail(str(error), 1)
    except Interrupted:
        _fail("interrupted; the same command continues where it stopped", 130)
    except typer.Abort:
        _fail("stopped", 1)
    except OSError as error:
        if is_no_room(error):
            where = error.filename or "the output"
            _fail(f"{where} cannot be written ({error.strerror}); free some space and run this again", 1)
        _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error), 1)
    except (MemoryError, RuntimeError) as error:
        if not is_no_memory(error):
            raise
        _fail("there is not enough memory for this; ask for less at once, or for shorter clips", 1)
    except Exception as error:
        _usage(error)


def _usage(error: Exception) -> None:
    """Typer's usage error in one line; any other error is raised again.

    Typer has brought the classes of its errors from several packages, so they are known by what they can do.
    """
    if not hasattr(error, "format_message"):
        raise error
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
        sys.exit(2)
    command = context.command_path if context is not None else "plaudit"
    _fail(f"{str(error.format_message()).rstrip('.')}; see {command} --help", 2)


def _fail(message: str, code: int) -> None:
    if debug:
        raise
    print(f"plaudit: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
