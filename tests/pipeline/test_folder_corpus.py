"""A run on a folder of files that are longer than a clip: everything is of the stretches that are encoded."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from plaudit import loading
from plaudit.cli.console import ConsoleReporter
from plaudit.corpus.manifest import read_manifest
from plaudit.corpus.shards import ShardSet
from plaudit.evaluate.embeddings import embed_waves, load_references
from plaudit.pipeline.estimate import CostEstimate
from plaudit.pipeline.steps import run_recipe
from plaudit.recipe import Recipe, load_recipe
from plaudit.storage import read_json

RATE, SECONDS, FILES = 16000, 3, 6


def music(number: int, seconds: float) -> np.ndarray:
    """A melody that is another one in every second."""
    t = np.arange(round(seconds * RATE)) / RATE
    steps = np.random.default_rng(number).integers(0, 24, int(seconds) + 1)
    pitch = 110 * 2 ** (steps[np.floor(t).astype(int)] / 12)
    return (0.3 * np.sin(2 * np.pi * np.cumsum(pitch) / RATE) * np.exp(-(t % 0.5) * 4)).astype(np.float32)


def folder_of(place: Path, waves: list[np.ndarray]) -> Path:
    place.mkdir()
    with (place / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "caption"))
        for number, wave in enumerate(waves):
            soundfile.write(place / f"{number}.wav", wave, RATE, "FLOAT")
            rows.writerow((f"{number}.wav", f"slow sad piano {number}"))
    return place


def recipe(folder: Path, *changes: str) -> Recipe:
    own = [f"corpus.folder={folder}", f"corpus.table={folder / 'captions.csv'}", f"corpus.seconds={SECONDS}"]
    return load_recipe("folder", [*own, *changes])


class Notes(ConsoleReporter):
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def run(settings: Recipe, folder: Path, only: str) -> list[str]:
    reporter = Notes()
    run_recipe(settings, folder, reporter, only)
    return reporter.lines


@pytest.mark.parametrize("changes", [(), ("corpus.clips_per_track=0", "corpus.place=spread")], ids=["start", "spread"])
def test_labels_features_and_reference_are_of_what_is_encoded(tmp_path: Path, changes: tuple[str, ...]) -> None:
    waves = [music(number, 7 * SECONDS) for number in range(FILES)]
    whole = folder_of(tmp_path / "whole", waves)
    out = tmp_path / "run"
    notes = run(recipe(whole, *changes), out, "labels")
    run(recipe(whole, *changes), out, "reference")
    entries, shards = read_manifest(out / "corpus" / "manifest.jsonl"), ShardSet(out / "shards")
    assert shards.ids == [entry.id for entry in entries] and len(shards) == FILES * (7 if changes else 1)
    assert f"6 of 6 files are longer than 3 s and are cut to clips: {len(shards)}, which is" in notes[0]
    assert notes[0].endswith("corpus.clips_per_track sets how many of a file")

    stretches = []
    for entry in entries:
        begin = round(entry.start * RATE)
        stretches.append(waves[int(entry.id.partition("@")[0])][begin : begin + SECONDS * RATE])
    codec, reward = loading.CODECS.load("synthetic"), loading.load_tunejury("synthetic")
    tensors = [torch.from_numpy(stretch) for stretch in stretches]
    with torch.inference_mode():
        samples = shards.frames * codec.hop
        latents = codec.encode(torch.stack(tensors)[:, :samples]).mean
        expected = reward.score(tensors, RATE, [entry.caption for entry in entries])
        embeddings = embed_waves(loading.CLAPS.load("synthetic"), tensors, RATE)
    # The last frames depend a little on what follows the clip.
    torch.testing.assert_close(
        shards.posterior(np.arange(len(shards))).mean[:, :-8], latents[:, :-8], atol=0.02, rtol=0.02
    )
    rewards = read_json(out / "labels" / "rewards.json")["rewards"]
    assert np.abs(np.array(rewards) - expected.numpy()).max() < 1e-4
    [reference] = load_references(out / "reference" / "reference.safetensors")
    assert reference.embeddings is not None and np.abs(reference.embeddings - embeddings).max() < 1e-4


def test_what_follows_a_clip_in_its_file_changes_nothing(tmp_path: Path) -> None:
    waves = [music(number, SECONDS) for number in range(FILES)]
    noise = np.random.default_rng(0).standard_normal(20 * RATE).astype(np.float32) / 5
    short = folder_of(tmp_path / "short", waves)
    long = folder_of(tmp_path / "long", [np.concatenate([wave, noise]) for wave in waves])
    lines = [run(recipe(folder), tmp_path / f"run-{folder.name}", "labels") for folder in (short, long)]
    labels = [read_json(tmp_path / f"run-{f.name}" / "labels" / "rewards.json")["rewards"] for f in (short, long)]
    assert len(labels[0]) == len(labels[1]) == FILES and np.abs(np.subtract(*labels)).max() < 1e-4
    assert not lines[0] and len(lines[1]) == 1


def test_files_that_cannot_be_used_are_named_and_left_out(tmp_path: Path) -> None:
    waves = [music(number, SECONDS) for number in range(FILES)]
    one = waves[0]
    folder = folder_of(tmp_path / "music", [*waves, 32768 * one, 0 * one, 0 * one + 0.1, one[:9000]])
    (folder / "2.wav").write_bytes((folder / "2.wav").read_bytes()[:-9000])
    notes = run(recipe(folder), tmp_path / "run", "labels")
    assert len(notes) == 1 and notes[0].startswith("2 entries of the table cannot be used; the first: ")
    assert "2.wav is truncated" in notes[0]
    bad = [json.loads(line) for line in (tmp_path / "run" / "shards" / "quarantine.jsonl").read_text().splitlines()]
    reasons = {line["id"]: line["reason"] for line in bad}
    assert reasons.keys() == {"2", "6", "7", "8", "9"}
    for id, reason in {"6": "divide them by 32768", "7": "silent", "8": "samples are 0.1", "9": "too short"}.items():
        assert reason in reasons[id]
    assert len(read_json(tmp_path / "run" / "labels" / "rewards.json")["rewards"]) == 5
    assert read_json(tmp_path / "run" / "corpus" / "facts.json")["clips"] == 8  # the others are decoded later


def test_the_plan_counts_clips_and_not_files(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "music", [music(number, 7 * SECONDS) for number in range(3)])
    assert CostEstimate(recipe(folder)).clips == 3
    assert CostEstimate(recipe(folder, "corpus.clips_per_track=0")).clips == 21
    assert CostEstimate(recipe(folder, "corpus.clips_per_track=5", "corpus.place=random")).clips == 15
