"""What clips say of themselves, and which folders hold no output."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from plaudit.audio import list_audio_files
from plaudit.audio_format import AudioFormat, encode_audio, recorded_prompt
from plaudit.sidecars import candidates_note, mark_candidates, read_sidecar, recorded_seed


def tagged(path: Path, prompt: str, container: str = "wav") -> Path:
    noise = np.random.default_rng(0).standard_normal(1600).astype(np.float32) / 10
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_audio(noise, 16000, AudioFormat(container=container), 0, {"prompt": prompt, "seed": 7}))
    return path


@pytest.mark.parametrize("container", ["wav", "flac", "ogg", "mp3"])
def test_a_prompt_is_read_from_tags_and_rather_from_the_sidecar(tmp_path: Path, container: str) -> None:
    clip = tagged(tmp_path / f"a.{container}", "slow piano, 悲伤", container)
    assert recorded_prompt(clip) == "slow piano, 悲伤" and recorded_seed(clip) is None
    clip.with_suffix(".json").write_text(json.dumps({"prompt": " from the sidecar ", "seed": 3}))
    assert recorded_prompt(clip) == "from the sidecar" and recorded_seed(clip) == 3


def test_a_long_prompt_is_read_from_the_title(tmp_path: Path) -> None:
    prompt = "calm piano with strings " * 40
    assert recorded_prompt(tagged(tmp_path / "a.flac", prompt, "flac")) == prompt.strip()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"prompt": 3, "seed": true}', "\udce9", "[" * 100_000])
def test_a_file_that_is_no_sidecar_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_bytes(text.encode(errors="surrogateescape"))
    (tmp_path / "a.wav").write_bytes(b"no audio")
    assert recorded_prompt(tmp_path / "a.wav") == "" and recorded_seed(tmp_path / "a.wav") is None
    assert recorded_prompt(tmp_path / "none.wav") == "" and read_sidecar(tmp_path / "a.json") == {}


def test_candidates_are_no_output_unless_their_folder_is_named(tmp_path: Path) -> None:
    music = [tagged(tmp_path / "music" / name, "x") for name in ("a.wav", "candidates/b.wav", "more/c.wav")]
    assert list_audio_files([tmp_path / "music"]) == music  # a folder of that name is not enough
    assert candidates_note([tmp_path]) is None
    inner = [tagged(tmp_path / "music" / "more" / "candidates" / name, "x") for name in ("d.wav", "e/f.wav")]
    mark_candidates(tmp_path / "music" / "more" / "candidates")
    assert list_audio_files([tmp_path]) == list_audio_files([tmp_path / "music"]) == music
    assert list_audio_files([tmp_path / "music" / "more" / "candidates"]) == inner
    note = candidates_note([tmp_path])
    assert note is not None and str(tmp_path / "music" / "more" / "candidates") in note
    assert candidates_note([tmp_path / "music" / "more" / "candidates", inner[0]]) is None
