"""Held-out prompts with their evaluators: metrics of one clip per prompt in runs and sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from plaudit.audio import write_wav
from plaudit.corpus.sources import HeldOut
from plaudit.errors import AudioError, EvaluationError, PromptError
from plaudit.evaluate.comparison import differences_of_values
from plaudit.evaluate.distances import frechet_distance
from plaudit.evaluate.embeddings import AudioEncoder, embed_waves, reference_of
from plaudit.evaluate.evaluation import EvaluationSetup, Evaluators
from plaudit.evaluate.values import Values

RATE = 8000


class BandClap:
    """Audio embeddings are the energy in eight bands; a prompt is embedded as the tone that it names."""

    name = "bands"
    sample_rate = RATE
    dim = 8

    def audio(self, wave: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(wave, dim=1).abs()  # [B, F]
        bands = torch.stack([band.mean(dim=1) for band in spectrum.tensor_split(self.dim, dim=1)], dim=1)
        return bands / bands.norm(dim=1, keepdim=True)

    def text(self, prompts: list[str]) -> Tensor:
        return self.audio(torch.stack([tone(float(prompt.split()[0])) for prompt in prompts]))


class Loudness:
    """A reward that likes it loud."""

    def score(self, waves: list[Tensor], rate: int, prompts: list[str]) -> Tensor:
        return torch.stack([wave.square().mean().sqrt() for wave in waves])


def tone(frequency: float, seconds: float = 0.25, level: float = 0.5, rate: int = RATE) -> Tensor:
    return level * torch.sin(2 * torch.pi * frequency * torch.arange(int(seconds * rate)) / rate)


FREQUENCIES = [300.0, 800.0, 1300.0, 1800.0, 2300.0, 2800.0]
PROMPTS = [f"{frequency} Hz tone" for frequency in FREQUENCIES]
ROWS = BandClap().text(PROMPTS * 3).numpy() + np.random.default_rng(0).normal(0, 0.1, (18, 8))
CLAP = AudioEncoder("bands", "d1", BandClap())
SETUP = EvaluationSetup(HeldOut(PROMPTS), Evaluators(Loudness(), CLAP, (CLAP,)), reference_of(CLAP, ROWS, "tones"), 5)


def evaluate(folder: Path, waves: Sequence[Tensor], setup: EvaluationSetup = SETUP, system: str = "a") -> Values:
    files = [folder / "clips" / f"{place:04d}.wav" for place in range(len(waves))]
    for file, wave in zip(files, waves, strict=True):
        write_wav(file, wave.numpy(), RATE)
    return setup.evaluate(files, folder, system=system)


def clip(values: Values, metric: str) -> Any:
    return pytest.approx(values.clip(metric), abs=1e-3)


def test_clips_that_match_their_prompts_score_better(tmp_path: Path) -> None:
    right = evaluate(tmp_path, [tone(f) for f in FREQUENCIES])
    wrong = evaluate(tmp_path, [tone(f) for f in reversed(FREQUENCIES)])
    assert clip(right, "clap") == np.ones(6)
    assert wrong.clip("clap").mean() < 0.5
    assert clip(right, "reward") == np.full(6, 0.5 / np.sqrt(2))
    frechet, rows = right.set("frechet"), embed_waves(BandClap(), [tone(f) for f in FREQUENCIES], RATE)
    assert frechet is not None and frechet.value == pytest.approx(frechet_distance(rows, ROWS), abs=1e-3)
    assert frechet.low is not None and frechet.low >= 0.0 and frechet.embedding == "bands"
    assert right.metrics == ["reward", "clap", "frechet"]
    assert [(one["prompt_id"], one["seed"], one["file"]) for one in right.clips][2] == ("0002", 7, "clips/0002.wav")
    assert Values.read(tmp_path).table == wrong.table


def test_metrics_of_sets_that_the_clips_are_too_few_for_are_explained(tmp_path: Path) -> None:
    values = evaluate(
        tmp_path, [tone(f) for f in FREQUENCIES], replace(SETUP, all_sets=True, metrics=("clip-frechet",))
    )
    names = ["frechet", "frechet-infinity", "kernel", "mauve", "precision", "recall", "density", "coverage", "vendi"]
    assert values.metrics == ["reward", "clap", "clip-frechet", *names]
    mauve = values.set("mauve")
    assert mauve is not None and mauve.value is None and "20" in mauve.note
    assert [one.metric for one in values.sets] == names


def test_embeddings_do_not_depend_on_batch_length_or_rate() -> None:
    waves = [tone(400.0, rate=16000), tone(700.0, 0.5, rate=16000), tone(400.0, rate=16000)]
    together = embed_waves(BandClap(), waves, 16000, batch_size=2)
    alone = np.concatenate([embed_waves(BandClap(), [wave], 16000) for wave in waves])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together[0], BandClap().audio(tone(400.0)[None])[0], atol=0.02)


def test_distances_of_two_stages_are_compared_on_the_same_resampled_prompts(tmp_path: Path) -> None:
    near = evaluate(tmp_path, [tone(f) for f in FREQUENCIES])
    far = evaluate(tmp_path, [tone(500.0 + place) for place in range(6)])
    worse = differences_of_values(near, far, [])[0]
    before, after = near.set("frechet"), far.set("frechet")
    assert before is not None and after is not None
    assert worse.difference.mean == pytest.approx(after.value - before.value) and worse.difference.mean > 0  # type: ignore[operator]
    assert worse.direction in ("worse", "") and worse.p is None
    nothing = differences_of_values(near, near, [])[0].difference
    assert (nothing.low, nothing.mean, nothing.high) == (0.0, 0.0, 0.0)
    fewer = replace(SETUP, held_out=HeldOut(PROMPTS[:5]))
    with pytest.raises(EvaluationError, match="of different prompts"):
        differences_of_values(near, evaluate(tmp_path, [tone(f) for f in FREQUENCIES[:5]], fewer))


@pytest.mark.parametrize("bad", [torch.full((2000,), torch.nan), torch.zeros(2000)])
def test_an_unmeasurable_clip_is_named(tmp_path: Path, bad: Tensor) -> None:
    with pytest.raises(AudioError, match=r"0002\.wav"):
        evaluate(tmp_path, [bad if i == 2 else tone(f) for i, f in enumerate(FREQUENCIES)])


def test_every_prompt_needs_its_clip(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="5 clips for 6 prompts"):
        evaluate(tmp_path, [tone(f) for f in FREQUENCIES[:5]])
