"""Names and numbers from users: printed literally, or refused in one line."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer

from plaudit.cli.console import result_console
from plaudit.cli.main import app
from tests.cli.command import Done
from tests.cli.command import plaudit as run

Plaudit = Callable[..., Done]


@pytest.fixture
def plaudit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plaudit:
    """The command with a cache of its own, in a wide terminal."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    return run


@pytest.fixture(scope="module")
def tone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "tone.wav"
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 220 * np.arange(32000) / 16000), 16000)
    return path


NAMES = ["song [dqw4w9wgxcq].wav", ":smile:.wav", "[bold]x.wav", "end [chorus].wav", "大 é.wav", "[red].wav"]


def test_names_and_prompts_are_printed_letter_for_letter(
    plaudit: Plaudit, tone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_console, "width", 300)  # so that no cell is wrapped
    for name in NAMES:
        shutil.copy(tone, tmp_path / name)
    table = tmp_path / "table.csv"
    table.write_text("file,prompt\n" + "".join(f'"{name}","[verse] {name} :smile: [/verse]"\n' for name in NAMES))
    done = plaudit("score", "--table", table)
    assert (done.code, done.err) == (0, "")
    for name in NAMES:
        assert name in done.out and f"[verse] {name} :smile: [/verse]" in done.out
    (tmp_path / "[gone].wav").write_bytes(b"")
    failed = plaudit("score", tmp_path / "[gone].wav")
    assert failed.code == 1 and "[gone].wav is empty" in re.sub(r"\s+", " ", failed.out)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode there")
def test_names_that_are_not_utf8_are_scored_printed_and_written(plaudit: Plaudit, tone: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    (tmp_path / "clips").mkdir()
    shutil.copy(tone, tmp_path / "clips" / name)
    assert plaudit("score", tmp_path / "clips").code == 0
    assert plaudit("score", tmp_path / "clips", "--csv", tmp_path / "out.csv").code == 0
    assert b"caf\xe9.wav" in (tmp_path / "out.csv").read_bytes()
    (row,) = json.loads(plaudit("score", tmp_path / "clips", "--json").out)
    assert row["file"].endswith(name)
    assert plaudit("rank", tmp_path / "clips", "--copy", tmp_path / "best").code == 0


def test_prompts_that_are_not_utf8_are_refused_in_one_line(plaudit: Plaudit, tone: Path, tmp_path: Path) -> None:
    for arguments in (["generate", "caf\udce9"], ["score", tone, "--prompt", "caf\udce9"]):
        done = plaudit(*arguments)
        assert done.code == 1 and "is not UTF-8 text" in done.err and len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    "encoding", ["ascii", *(pytest.param(name, marks=pytest.mark.slow) for name in ("latin-1", "utf-8"))]
)
def test_any_encoding_of_the_terminal_will_do(tone: Path, tmp_path: Path, encoding: str) -> None:
    shutil.copy(tone, tmp_path / "大 é.wav")
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "XDG_CACHE_HOME": str(tmp_path), "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-m", "plaudit", "score", "-", "--prompt", "größe 大"],
        input="大 é.wav\n".encode(), capture_output=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = {"ascii": rb"\u5927 \xe9.wav", "latin-1": rb"\u5927 " + b"\xe9.wav", "utf-8": "大 é.wav".encode()}
    assert shown[encoding] in done.stdout


def test_folders_are_searched_alike_whatever_is_in_them(plaudit: Plaudit, tone: Path, tmp_path: Path) -> None:
    music = tmp_path / "music"
    for name in ("a.wav", "@eaDir/a.wav/b.wav", "._a.wav", "__MACOSX/c.wav", "album/d.wav"):
        (music / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tone, music / name)
    (music / "loop").symlink_to(".")
    rows = list(csv.DictReader(io.StringIO(plaudit("score", music, "--csv", "-").out)))
    assert [Path(row["file"]).relative_to(music).as_posix() for row in rows] == ["a.wav", "album/d.wav"]


def test_names_spelled_otherwise_or_too_long_cost_no_other_row(plaudit: Plaudit, tone: Path, tmp_path: Path) -> None:
    shutil.copy(tone, tmp_path / unicodedata.normalize("NFD", "é.wav"))
    table = tmp_path / "table.csv"
    table.write_text(unicodedata.normalize("NFC", f"file;prompt;;\né.wav;a;;\n{'x' * 300}.wav;b;;\n"))
    done = plaudit("score", "--table", table, "--csv", "-")
    good, bad = csv.DictReader(io.StringIO(done.out))
    assert done.code == 1 and good["reward"] and not good["error"]
    assert not bad["reward"] and "File name too long" in bad["error"]


def test_results_are_written_into_existing_files_and_pipes(
    plaudit: Plaudit, tone: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").symlink_to("/proc/self/fd/1")
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc here")
    plaudit("score", tone, "--csv", tmp_path / "out")
    assert capfd.readouterr().out.startswith("file,prompt,reward,error\n") and (tmp_path / "out").is_symlink()
    done = plaudit("score", tone, "--csv", tmp_path)
    assert done.code == 1 and done.err == f"plaudit: {tmp_path}: Is a directory\n"


def test_missing_prompts_are_reported_before_encoding_the_reference(
    plaudit: Plaudit, tone: Path, tmp_path: Path
) -> None:
    (tmp_path / "clips").mkdir()
    for name in ("a", "b"):
        shutil.copy(tone, tmp_path / "clips" / f"{name}.wav")
    done = plaudit("evaluate", tmp_path / "clips", "--reference", tmp_path / "nowhere")
    assert done.code == 1 and "none of 2 clips can be evaluated; the first:" in done.err and "nowhere" not in done.err
    (tmp_path / "clips" / "a.json").write_text('{"prompt": "[x] a tone"}')
    done = plaudit("evaluate", tmp_path / "clips", "--reference", tmp_path / "nowhere")
    first, second = done.err.splitlines()
    assert "1 of 2 clips cannot be evaluated; the first:" in first and "nowhere" in second


def test_truncation_of_a_long_prompt_is_reported(plaudit: Plaudit, tmp_path: Path) -> None:
    long, short = " ".join(["calm"] * 32), " ".join(["calm"] * 31)
    done = plaudit("generate", long, "--steps", "1", "-o", tmp_path / "long")
    assert done.code == 0 and "only the first 31 words are read" in done.err
    assert plaudit("generate", short, "--steps", "1", "-o", tmp_path / "short").err == ""


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group of the command line by its words."""
    group = group or typer.main.get_command(app)
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


def numbers() -> Iterator[Any]:
    """Every option of a number: its command and its name."""
    for path, command in commands():
        for parameter in command.params:
            record = parameter.get_help_record(typer.Context(command))
            if record and parameter.param_type_name == "option" and re.search("INTEGER|NUMBER", record[0]):
                yield pytest.param(path, parameter.opts[-1], id=" ".join((*path, *parameter.opts)))


@pytest.mark.parametrize(("path", "option"), list(numbers()))
def test_numbers_beyond_use_are_refused_in_one_line(plaudit: Plaudit, path: tuple[str, ...], option: str) -> None:
    for number in ("inf", "-inf", "nan", "1e39", "18446744073709551616", "-99999999999999999999", "9" * 5000, "x"):
        done = plaudit(*path, f"{option}={number}")
        assert done.code == 2, (number, done)
        assert option in done.err and len(done.err.splitlines()) == 1, (number, done)


def test_bounds_of_an_option_are_named(plaudit: Plaudit) -> None:
    assert "3600" in plaudit("generate", "x", "--seconds", "inf").err
    assert "--guidance" in (error := plaudit("generate", "x", "--guidance", "nan").err) and "equal to 0" in error
    assert "from 0 to 9,223,372,036,854,775,807" in plaudit("generate", "x", "--seed", str(2**64)).err


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids=lambda path: " ".join(path) or "plaudit")
def test_help_is_plain_and_has_a_short_flag(plaudit: Plaudit, path: tuple[str, ...]) -> None:
    for flag in ("-h", "--help"):
        done = plaudit(*path, flag)
        assert done.code == 0 and done.out.startswith(f"Usage: plaudit {' '.join(path)}".rstrip())
        assert not re.search(r"range>|RANGE|x>=|<=x|<(int|float|str|path|list)", done.out)


def test_usage_that_is_wrong_is_one_line(plaudit: Plaudit) -> None:
    for arguments in (["frobnicate"], ["generate", "x", "--frobnicate"], ["prepare", "folder"], ["compare"]):
        done = plaudit(*arguments)
        assert done.code == 2 and done.err.startswith("plaudit: ") and len(done.err.splitlines()) == 1


def test_shells_complete_commands_and_options() -> None:
    def completed(words: str, shell: str = "bash") -> list[str]:
        place = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
        environment = {**os.environ, "_PLAUDIT_COMPLETE": f"complete_{shell}", **place}
        done = subprocess.run([sys.executable, "-m", "plaudit"], capture_output=True, text=True, env=environment)
        return done.stdout.split()

    assert completed("plaudit gen") == ["generate"]
    assert "--best-of" in completed("plaudit generate --be")
    assert "--install-completion" in completed("plaudit --inst")
