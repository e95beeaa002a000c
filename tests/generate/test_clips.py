"""Names of clips: distinct for distinct prompts and settings, in any script, on every file system."""

from __future__ import annotations

import json
import multiprocessing
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.audio import read_audio
from plaudit.errors import AudioError
from plaudit.generate import clips
from plaudit.generate.clips import (
    ClipRequest,
    clip_requests,
    distinct_names,
    generate_clips,
    is_faithful,
    settings_digest,
    slug,
)
from plaudit.generate.settings import Execution, SamplingSettings
from tests.generate.tiny import tiny_music

SETTINGS = SamplingSettings(steps=1)


def make(folder: Path, prompts: list[str], settings: SamplingSettings = SETTINGS, count: int = 1) -> list[Path]:
    requests = [r for group in clip_requests(prompts, count, 0) for r in group]
    return generate_clips(tiny_music(), requests, settings, folder, Execution(batch=2), keep_others=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("Slow sad piano, in A minor!", "slow-sad-piano-in-a-minor"),
        ("悲伤的钢琴", "悲伤的钢琴"),
        ("Печальное  пианино", "печальное-пианино"),
        ("दुखी पियानो", "दुखी-पियानो"),
        ("cafe\u0301 / jazz", "caf\u00e9-jazz"),
        ("../../etc/passwd", "etc-passwd"),
        ("\N{GUITAR}", "clip"),
        ("--- ", "clip"),
    ],
)
def test_names_keep_the_letters_of_any_script(prompt: str, name: str) -> None:
    assert slug(prompt) == name


@given(st.text(max_size=400), st.integers(0, 2**64 - 1))
def test_names_fit_and_are_stable(prompt: str, seed: int) -> None:
    name = slug(prompt)
    assert name and len(f"1000-{name}-{'f' * 8}-{seed}.flac".encode(errors="strict")) <= 143
    assert unicodedata.normalize("NFC", name) == name and not set("/\\\0.") & set(name)
    assert not name.startswith("-") and slug(unicodedata.normalize("NFD", prompt)) == slug(prompt)


@pytest.mark.parametrize(
    ("prompt", "faithful"),
    [("slow piano", True), ("Slow, sad piano!", True), ("悲伤的钢琴", True), ("piano ♯", False), ("a" * 60, False),
     ("\N{GUITAR}", False), ("wide “quotes”", False)],
)  # fmt: skip
def test_a_name_that_loses_something_gets_a_digest(tmp_path: Path, prompt: str, faithful: bool) -> None:
    assert is_faithful(prompt) == faithful
    (path,) = make(tmp_path, [prompt])
    assert (path.stem == f"{slug(prompt)}-0") == faithful


@given(st.lists(st.tuples(st.sampled_from(["a b", "A-b", "a  b!", "c", "♯", "♭"]), st.integers(0, 3)), max_size=30))
def test_equal_names_are_of_equal_clips(calls: list[tuple[str, int]]) -> None:
    names: dict[str, set[str]] = {}
    for prompt, steps in calls:
        facts = {"prompt": prompt, "seed": 0, "steps": steps}
        (name,) = distinct_names(Path("nowhere"), [ClipRequest(f"{slug(prompt)}-0", prompt, 0)], [facts])
        if not is_faithful(prompt):
            names.setdefault(name, set()).add(settings_digest(facts))
    assert all(len(digests) == 1 for digests in names.values())


def test_other_prompts_and_settings_never_replace_a_clip(tmp_path: Path) -> None:
    first = make(tmp_path, ["Slow piano!"], count=2)
    assert [path.name for path in first] == ["slow-piano-0.wav", "slow-piano-1.wav"]
    before = contents(tmp_path)
    others = [
        *make(tmp_path, ["slow piano?"], count=3),
        *make(tmp_path, ["Slow piano!"], SETTINGS.changed(steps=2), count=2),
        *make(tmp_path, ["Slow piano!"], SETTINGS.changed(score=1.0)),
    ]
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert len({path.name for path in others}) == 6 and len(list(tmp_path.glob("*.wav"))) == 8
    for path in tmp_path.glob("*.wav"):  # a stem stands for one prompt and one way to make it
        same = [json.loads(p.with_suffix(".json").read_text()) for p in tmp_path.glob(f"{path.stem[:-2]}-?.wav")]
        assert len({json.dumps([s["prompt"], s["sampling"]]) for s in same}) == 1


def test_the_same_call_finds_its_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, ["slow piano?"])
    paths = make(tmp_path, ["slow piano!"], count=3)
    before = contents(tmp_path)
    monkeypatch.setattr(type(tiny_music()), "stream", lambda *_: pytest.fail("made again"))
    assert make(tmp_path, ["slow piano!"], count=3) == paths
    assert contents(tmp_path) == before


def test_other_weights_are_another_model(tmp_path: Path) -> None:
    request = [ClipRequest("a-0", "a", 0)]
    (old,) = generate_clips(tiny_music(), request, SETTINGS, tmp_path, keep_others=True)
    music = tiny_music()
    music.backbone.latent_mean += 1.0
    (new,) = generate_clips(music, request, SETTINGS, tmp_path, keep_others=True)
    assert new != old and (read_audio(new)[0] != read_audio(old)[0]).any()
    assert generate_clips(tiny_music(), request, SETTINGS, tmp_path, keep_others=True) == [old]


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "piano-0.flac").write_bytes(b"my own recording")
    (tmp_path / "drums-0.json").write_text("[]")
    before = contents(tmp_path)
    piano, drums = make(tmp_path, ["piano"])[0], make(tmp_path, ["drums"])[0]
    assert piano.stem != "piano-0" and drums.stem != "drums-0"
    assert {name: contents(tmp_path)[name] for name in before} == before


def test_a_killed_call_ends_with_the_files_of_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "whole", ["a", "b"], count=2)
    real, written = clips.write_file, 0

    def dying(path: Path, encoded: bytes) -> None:
        nonlocal written
        written += 1
        if written == 2:
            raise KeyboardInterrupt
        real(path, encoded)

    monkeypatch.setattr(clips, "write_file", dying)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "killed", ["a", "b"], count=2)
    assert len(list((tmp_path / "killed").glob("*.wav"))) == 1
    monkeypatch.setattr(clips, "write_file", real)
    make(tmp_path / "killed", ["a", "b"], count=2)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_name_taken_while_clips_are_generated_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = clips.distinct_names

    def then_another(folder: Path, *rest: object) -> list[str]:
        names = chosen(folder, *rest)  # type: ignore[arg-type]
        monkeypatch.setattr(clips, "distinct_names", chosen)
        make(folder, ["A B?"])
        return names

    monkeypatch.setattr(clips, "distinct_names", then_another)
    (path,) = make(tmp_path, ["a b"])
    assert path.stem != "a-b-0" and json.loads((tmp_path / "a-b-0.json").read_text())["prompt"] == "A B?"
    assert len(list(tmp_path.glob("*.wav"))) == len(list(tmp_path.glob("*.json"))) == 2


def _work(folder: Path, prompt: str) -> None:
    make(folder, [prompt], count=6)


PROMPTS = ["slow piano", "Slow piano!", "slow, piano", "slow piano"]


def test_threads_share_a_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        list(pool.map(lambda prompt: _work(tmp_path, prompt), PROMPTS))
    check_shared(tmp_path)


@pytest.mark.slow
def test_processes_share_a_folder(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_work, args=(tmp_path, prompt)) for prompt in PROMPTS]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    check_shared(tmp_path)


def check_shared(folder: Path) -> None:
    """Every prompt's clips are there, are those that it has alone, and nothing else was left."""
    output = {}
    for path in folder.glob("*.wav"):
        read_audio(path)
        sidecar = json.loads(path.with_suffix(".json").read_text())
        output[sidecar["prompt"], sidecar["seed"]] = path.read_bytes()
    assert set(output) == {(prompt, seed) for prompt in PROMPTS for seed in range(6)}
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    alone = {(p, s): path for p in set(PROMPTS) for s, path in enumerate(make(folder / "alone", [p], count=6))}
    assert output == {key: path.read_bytes() for key, path in alone.items()}


def test_without_any_free_name_there_is_an_error(tmp_path: Path) -> None:
    request, facts = ClipRequest("a-0", "a", 0), {"prompt": "a", "seed": 0}
    for digits in (None, 8, 16, 64):
        name = "a-0" if digits is None else f"a-{settings_digest(facts)[:digits]}-0"
        (tmp_path / f"{name}.wav").write_bytes(b"")
    with pytest.raises(AudioError, match="every name for 'a' is taken by another clip; choose another folder"):
        distinct_names(tmp_path, [request], [facts])
