"""An evaluation of clips: every metric over the same clips, nothing dropped without a word."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from plaudit import loading
from plaudit.audio import write_wav
from plaudit.errors import AudioError, EvaluationError
from plaudit.evaluate.clip_set import METRICS, Evaluators, evaluate_clips_and_set
from plaudit.evaluate.concepts.vocabulary import load_vocabulary
from plaudit.evaluate.distances import frechet_distance
from plaudit.evaluate.embeddings import (
    AudioEncoder,
    EmbeddingCache,
    Reference,
    clip_from_file,
    embed_reference_folder,
    reference_of,
)
from plaudit.evaluate.prompt_matching import PromptClip
from plaudit.evaluate.results_table import Evaluation, MetricResult
from plaudit.statistics import bootstrap_mean
from plaudit.synthetic.corpus import SyntheticCorpus
from plaudit.synthetic.evaluators import ProbeDetector
from plaudit.synthetic.probes import load_probes


class Loudness:
    """A reward that likes it loud and cannot bear clipping."""

    def score(self, waves: list[Tensor], rate: int, prompts: list[str]) -> Tensor:
        if any(wave.abs().max() > 0.999 for wave in waves):
            raise AudioError("too loud to judge")
        return torch.stack([wave.square().mean().sqrt() for wave in waves])


@cache
def judges() -> Evaluators:
    clap = loading.CLAPS.load("synthetic")
    ears = AudioEncoder("synthetic", loading.CLAPS.identity("synthetic"), clap)
    probes = ProbeDetector(load_probes(), "test")
    return Evaluators(Loudness(), ears, clap, probes, load_vocabulary(), [ears])


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[PromptClip]:
    folder = tmp_path_factory.mktemp("clips")
    corpus = SyntheticCorpus(24, 3.0, seed=31, flawed_fraction=0.0, miscaptioned_fraction=0.0)
    for clip in corpus.clips:
        write_wav(folder / f"{clip.id}.wav", corpus.render(clip), corpus.rate)
    return [PromptClip(clip.id, clip.caption, folder / f"{clip.id}.wav") for clip in corpus.clips]


@pytest.fixture(scope="module")
def reference(clips: list[PromptClip]) -> Reference:
    folder = clips[0].file.parent  # type: ignore[union-attr]
    (found,), _, _ = embed_reference_folder(folder, judges().listeners, None, lambda done, total: None)
    rng = np.random.default_rng(0)
    assert found.embeddings is not None
    moved = found.embeddings + 0.05 * rng.normal(size=found.embeddings.shape)
    return reference_of(judges().listeners[0], moved, "music")


def evaluated(
    clips: list[PromptClip], references: list[Reference], wanted: list[str] | None = None, by: Evaluators | None = None
) -> Evaluation:
    return evaluate_clips_and_set(clips, by or judges(), references, {"a": 1}, wanted=wanted)


def result(found: Evaluation, name: str) -> MetricResult:
    return next(metric for metric in found.metrics if metric.key == name)


def test_every_metric_has_a_value_and_every_clip_its_own(clips: list[PromptClip], reference: Reference) -> None:
    found = evaluated(clips, [reference])
    assert [m.name for m in found.metrics] == list(METRICS)
    for metric in found.metrics:
        assert metric.value is not None and metric.clips == 24, metric
        assert (metric.low is None) == (metric.high is None) == (metric.name in ("recall", "coverage"))
        if metric.low is not None and metric.high is not None:
            assert metric.low <= metric.value <= metric.high
    assert found.notes == []
    own = [
        [row.values[name] for row in found.rows] for name in ("reward", "clap", "concepts", "clip-frechet-synthetic")
    ]
    assert np.isfinite(np.array(own, dtype=float)).all()
    mean = bootstrap_mean(own[0], seed=0)
    assert (result(found, "reward").value, result(found, "reward").low) == (mean.mean, mean.low)
    assert result(found, "clap").value > 0.4  # type: ignore[operator]
    assert result(found, "concepts").value > 0.6  # type: ignore[operator]


def test_distances_are_those_of_the_clips_that_were_heard(clips: list[PromptClip], reference: Reference) -> None:
    broken = [replace(clips[0], file=None, error="no file"), *clips[1:]]
    found = evaluated(broken, [reference], ["frechet", "clip-frechet"])
    heard = np.stack([_embedding(entry) for entry in clips[1:]])
    assert result(found, "frechet-synthetic").value == pytest.approx(frechet_distance(heard, reference.embeddings))  # type: ignore[arg-type]
    away = np.square(heard[3] - reference.gaussian.mean).sum() + reference.gaussian.variance
    assert found.rows[4].values["clip-frechet-synthetic"] == pytest.approx(away)
    assert found.rows[0].error == "no file" and found.rows[0].values == {}


def _embedding(entry: PromptClip) -> np.ndarray:
    assert entry.file is not None
    return clip_from_file(entry.file).embedding(judges().clap)


def test_a_clip_that_one_judge_refuses_is_in_no_mean_and_told(clips: list[PromptClip], tmp_path: Path) -> None:
    write_wav(tmp_path / "loud.wav", np.sign(np.sin(np.arange(48000) / 20)), 16000)
    write_wav(tmp_path / "short.wav", 0.1 * np.sin(np.arange(16000) / 20), 16000)
    (tmp_path / "bad.wav").write_text("no audio")
    more = [PromptClip(name, "piano", tmp_path / f"{name}.wav") for name in ("loud", "short", "bad")]
    found = evaluated([*clips[:4], *more], [])
    assert [row.error is None for row in found.rows] == [True] * 4 + [False] * 3
    assert "too loud" in str(found.rows[4].error) and "2.5 s" in str(found.rows[5].error)
    assert found.notes[-1] == "3 of 7 clips have no values and are in no mean"
    assert found.notes[0] == "no reference music: nothing is compared with it"
    assert [(m.name, m.clips) for m in found.metrics] == [(n, 4) for n in ("reward", "clap", "concepts", "vendi")]


def test_an_encoder_that_gives_no_number_costs_the_clip(clips: list[PromptClip]) -> None:
    class Deaf:
        name, sample_rate, dim = "deaf", 8000, 2

        def audio(self, wave: Tensor) -> Tensor:
            loud = wave.abs().amax(1, keepdim=True)
            return torch.where(loud > quiet, loud, torch.nan).expand(-1, 2)

    peaks = [clip_from_file(entry.file).wave(8000).abs().max() for entry in clips[:3] if entry.file is not None]
    quiet = sorted(peaks)[0] + 1e-6
    found = evaluated(clips[:3], [], ["vendi"], replace(judges(), listeners=[AudioEncoder("deaf", "1", Deaf())]))
    assert sum(row.error is not None for row in found.rows) == 1
    assert "its embedding by deaf is not finite" in found.notes[0]
    assert result(found, "vendi-deaf").clips == 2


def test_what_was_heard_before_is_not_heard_again(clips: list[PromptClip], tmp_path: Path) -> None:
    """Nor decoded: the second time every file is as large and known by its content alone."""
    told: list[str] = []
    cache = EmbeddingCache(tmp_path / "e.sqlite", told.append)
    first = evaluate_clips_and_set(clips[:4], judges(), [], {}, wanted=["clap", "vendi"], embeddings=cache)
    forgetful = replace(judges().clap, embedder=None)  # whoever asks it fails
    again = replace(judges(), clap=forgetful, listeners=[forgetful])
    second = evaluate_clips_and_set(clips[:4], again, [], {}, wanted=["clap", "vendi"], embeddings=cache)
    assert second == first and told == []


def test_the_same_clip_twice_is_told(clips: list[PromptClip]) -> None:
    found = evaluated([clips[0], replace(clips[0], id="again")], [], ["reward"])
    assert found.notes == [f"2 clips are the same file and count each: {clips[0].id}, again"]
    assert result(found, "reward").note == "all 2 clips have the same value"


def test_one_clip_has_values_and_no_intervals(clips: list[PromptClip], reference: Reference) -> None:
    found = evaluated(clips[:1], [reference])
    reward = result(found, "reward")
    assert reward.value is not None and reward.low is None and reward.note == "no interval: one clip"
    frechet = result(found, "frechet-synthetic")
    assert frechet.value is None and "1 embedding given, at least 2 needed" in frechet.note


def test_what_was_asked_for_and_cannot_be_is_an_error(clips: list[PromptClip], reference: Reference) -> None:
    with pytest.raises(EvaluationError, match="kernel compares with reference music"):
        evaluated(clips[:3], [], ["kernel"])
    summary = replace(reference, embeddings=None, source="stats")
    with pytest.raises(EvaluationError, match="mauve needs the reference's embeddings, and stats holds"):
        evaluated(clips[:3], [summary], ["mauve"])
    with pytest.raises(EvaluationError, match="no metric 'fad'; take of reward, clap"):
        evaluated(clips[:3], [], ["fad"])
    with pytest.raises(EvaluationError, match="none of 1 clips can be evaluated; the first: gone"):
        evaluated([PromptClip("a", "piano", None, "gone")], [])
    default = evaluated(clips[:3], [summary])
    assert "export it --with-embeddings" in result(default, "coverage-synthetic").note
    assert result(default, "frechet-synthetic").value is not None


def test_prompts_without_concepts_are_counted_apart(clips: list[PromptClip]) -> None:
    asked = [replace(clips[0], prompt="something nice"), replace(clips[1], prompt="blues, no drums"), clips[2]]
    found = evaluated(asked, [], ["concepts"])
    concepts = result(found, "concepts")
    assert concepts.clips == 1 and "1 that the detector does not know" in concepts.note
    assert [row.values["concepts"] is None for row in found.rows] == [True, True, False]
    assert found.notes == ["2 prompts name no concept that can be judged and are not in the mean of concepts"]
    none = evaluated(asked[:2], [], ["concepts"])
    assert result(none, "concepts").value is None and "no prompt names a concept" in result(none, "concepts").note


def test_it_is_saved_and_read_again(clips: list[PromptClip], reference: Reference, tmp_path: Path) -> None:
    broken = [*clips[:5], PromptClip("gone", 'a "prompt", with commas', None, "no file")]
    found = evaluated(broken, [reference], ["reward", "concepts", "frechet"])
    found.save(tmp_path / "e")
    again = Evaluation.load(tmp_path / "e")
    assert again == found and again.scored == found.rows[:5]
    lines = (tmp_path / "e" / "clips.csv").read_text().splitlines()
    assert lines[0] == "id,prompt,file,reward,concepts,error"
    assert lines[-1] == 'gone,"a ""prompt"", with commas",,,,no file'
    summary = json.loads((tmp_path / "e" / "summary.json").read_text())
    assert summary["clips"] == {"asked": 6, "scored": 5} and summary["settings"] == {"a": 1}
    (tmp_path / "e" / "summary.json").write_text('{"format": 99}')
    with pytest.raises(EvaluationError, match="has format 99"):
        Evaluation.load(tmp_path / "e")
    with pytest.raises(EvaluationError, match="holds no whole evaluation"):
        Evaluation.load(tmp_path / "nowhere")
