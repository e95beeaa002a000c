"""The challenge's zip: what it refuses, and that it is the same for the same clips."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from plaudit.audio import read_audio, write_wav
from plaudit.errors import PlauditError, PromptError
from tests.generate.tiny import tiny_music
from tools.submission import Rules, app, collect, read_prompt_ids, trainable_parameters, write_submission

RULES = Rules(clips=4, rate=8000, seconds=0.5, parameters=1000)
PROMPTS = {name: f"prompt {name}" for name in ("a1", "b2", "c3", "d4")}


def sound(seed: int, rate: int = 8000, seconds: float = 0.5) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate(PROMPTS):
        write_wav(tmp_path / "clips" / f"{name}.wav", sound(seed), 8000)
    return tmp_path / "clips"


def test_sound_clips_make_the_same_zip_each_time(folder: Path, tmp_path: Path) -> None:
    found = collect(folder, PROMPTS, 900, RULES)
    assert found.problems == [] and found.resampled_from == []
    summary = write_submission(tmp_path / "s.zip", found, {"parameters": 900})
    first = (tmp_path / "s.zip").read_bytes()
    for path in folder.iterdir():
        path.touch()
    write_submission(tmp_path / "s.zip", collect(folder, dict(reversed(PROMPTS.items())), 900, RULES), {})
    assert (tmp_path / "s.zip").read_bytes() == first
    with zipfile.ZipFile(tmp_path / "s.zip") as archive:
        assert archive.namelist() == [f"{name}.wav" for name in PROMPTS] and archive.testzip() is None
        assert archive.read("b2.wav") == (folder / "b2.wav").read_bytes()
    assert summary["parameters"] == 900 and summary["clips"] == 4


def test_every_broken_rule_is_a_line(folder: Path, tmp_path: Path) -> None:
    soundfile.write(folder / "a1.wav", np.stack([sound(1), sound(2)], 1), 8000)
    write_wav(folder / "b2.wav", np.zeros(4000, np.float32), 8000)
    write_wav(folder / "c3.wav", sound(3, seconds=0.6), 8000)
    write_wav(folder / "stray.wav", sound(9), 8000)
    soundfile.write(folder / "d4.wav", np.full(4000, np.nan), 8000, "FLOAT")
    found = collect(folder, PROMPTS | {"e5": "x", "f6": "y", "g7": "z"}, 1001, RULES)
    write_wav(folder / "e5.wav", sound(4, 16000), 16000)
    soundfile.write(folder / "f6.wav", sound(5), 8000, format="FLAC")
    (folder / "g7.wav").write_bytes(b"RIFF")
    found = collect(folder, PROMPTS | {"e5": "x", "f6": "y", "g7": "z", "h8": "v"}, 1001, RULES)
    said = "\n".join(found.problems)
    for reason in (
        "8 prompts, not 4",
        "1,001 trainable parameters",
        "stray.wav is named after no prompt id",
        "a1.wav has 2 channels",
        "b2.wav is silent",
        "c3.wav has 4800 samples, not 4000",
        "d4.wav holds 4000 samples that are NaN",
        "e5.wav is at 16000 Hz, not 8000",
        "f6.wav is FLAC, not wav",
        "g7.wav cannot be decoded",
        "h8.wav is missing",
    ):
        assert reason in said
    assert len(found.problems) == 11 == len(said.splitlines())
    with pytest.raises(PromptError, match="11 problems"):
        write_submission(tmp_path / "s.zip", found, {})
    assert not (tmp_path / "s.zip").exists() and not (tmp_path / "s.json").exists()


def test_the_same_sound_twice_is_refused(folder: Path) -> None:
    wave = read_audio(folder / "a1.wav")[0]
    soundfile.write(folder / "b2.wav", wave, 8000, "PCM_24")
    assert [problem.split()[-1] for problem in collect(folder, PROMPTS, 1, RULES).problems] == ["a1.wav"]


def test_another_rate_is_resampled_where_that_is_asked_for(folder: Path) -> None:
    write_wav(folder / "c3.wav", sound(3, 4000), 4000)
    found = collect(folder, PROMPTS, 1, RULES, resampling=True)
    assert found.problems == [] and found.resampled_from == [4000]
    (folder / "again.wav").write_bytes(found.files["c3"])
    wave, rate = read_audio(folder / "again.wav")
    assert rate == 8000 and len(wave) == 4000
    assert found.files["a1"] == (folder / "a1.wav").read_bytes()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,prompt\n1,x\n", "'id'"),
        ("id,text\n1,x\n", "no column 'prompt'"),
        ("id,prompt\n1,x\n1,y\n", "line 3: id 1 is there twice"),
        ("id,prompt\n../x,y\n", "is no file name"),
        ("id,prompt\n1,\n", "the prompt is empty"),
    ],
)
def test_lists_of_prompts_that_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(PlauditError, match=said):
        read_prompt_ids(tmp_path / "p.csv")


def test_what_is_counted() -> None:
    backbone = tiny_music().backbone
    count = sum(tensor.numel() for tensor in backbone.state_dict().values())
    assert trainable_parameters(backbone) == count - sum(buffer.numel() for buffer in backbone.buffers())


def test_the_command_generates_at_the_rules_rate_and_refuses_too_few(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("id,prompt\np1,slow piano\np2,fast drums\n")
    words = [str(tmp_path / "p.csv"), "-o", str(tmp_path / "s.zip"), "--device", "cpu"]
    done = CliRunner().invoke(app, [*words, "--set", "steps=1"])
    assert isinstance(done.exception, PromptError) and "2 prompts, not 100" in done.stderr
    facts = soundfile.info(tmp_path / "s-clips" / "p2.wav")
    assert (facts.samplerate, facts.frames, facts.channels, facts.subtype) == (44100, 441000, 1, "PCM_16")
    assert not (tmp_path / "s.zip").exists()


def test_a_submission_does_not_replace_clips_of_other_settings(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("id,prompt\none,calm piano\n")
    words = [str(tmp_path / "p.csv"), "-o", str(tmp_path / "s.zip"), "--set", "guidance.weight=1"]
    CliRunner().invoke(app, [*words, "--set", "steps=1"])  # one clip is no whole submission, but it is kept
    before = (tmp_path / "s-clips" / "one.wav").read_bytes()
    refused = CliRunner().invoke(app, [*words, "--set", "steps=2"])
    assert "s-clips holds one of another prompt, model or other settings" in str(refused.exception)
    assert (tmp_path / "s-clips" / "one.wav").read_bytes() == before


@pytest.mark.slow
def test_the_command_generates_resamples_says_so_and_continues(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("id,prompt\n" + "".join(f"p{n:03d},slow piano {n % 5}\n" for n in range(100)))
    words = [str(tmp_path / "p.csv"), "-o", str(tmp_path / "s.zip"), "--device", "cpu", "--batch", "25"]
    done = CliRunner().invoke(app, [*words, "--set", "steps=1", "--set", "guidance.weight=1", "--json"])
    assert done.exit_code == 0, done.output
    assert "no sound above 8000 Hz" in done.stderr
    summary = json.loads(done.stdout)
    assert summary["resampled_from"] == [16000] and summary["parameters"] < 500_000_000 and summary["clips"] == 100
    with zipfile.ZipFile(tmp_path / "s.zip") as archive:
        archive.extract("p042.wav", tmp_path)
    assert soundfile.info(tmp_path / "p042.wav").frames == 441000
    (tmp_path / "s-clips" / "p042.wav").unlink()
    before = (tmp_path / "s.zip").read_bytes()
    refused = CliRunner().invoke(app, [*words, "--clips", str(tmp_path / "s-clips")])
    assert isinstance(refused.exception, PromptError) and "p042.wav is missing" in refused.stderr
    assert (tmp_path / "s.zip").read_bytes() == before
    again = CliRunner().invoke(app, [*words, "--set", "steps=1", "--set", "guidance.weight=1"])
    assert again.exit_code == 0 and (tmp_path / "s.zip").read_bytes() == before
