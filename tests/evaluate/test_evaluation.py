"""An evaluation of clips: every metric over the same clips, nothing dropped silently."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from plaudit import loading
from plaudit.audio import write_wav
from plaudit.errors import AudioError, EvaluationError
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
from plaudit.evaluate.evaluation import Evaluation, Evaluators, evaluate_clips
from plaudit.evaluate.metrics import NAMES, metrics_named
from plaudit.evaluate.prompt_matching import PromptClip
from plaudit.evaluate.values import Values
from plaudit.statistics import bootstrap_mean
from plaudit.synthetic.corpus import SyntheticCorpus
from plaudit.synthetic.evaluators import ProbeDetector
from plaudit.synthetic.probes import load_probes


class Loudness:
    """A reward that likes it loud and cannot bear clipping."""

    def score(self, waves: list[Tensor], rate: int, prompts: list[str]) -> Tensor:
        if any(wave.abs().max() > 0.999 for wave in waves):
            raise AudioError("too loud")
        return torch.stack([wave.square().mean().sqrt() for wave in waves])


@cache
def evaluators() -> Evaluators:
    clap = AudioEncoder("synthetic", loading.CLAPS.identity("synthetic"), loading.CLAPS.load("synthetic"))
    return Evaluators(Loudness(), clap, (clap,), ProbeDetector(load_probes(), "test"), load_vocabulary())


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
    (found,), _, _ = embed_reference_folder(folder, evaluators().encoders, None, lambda done, total: None)
    rng = np.random.default_rng(0)
    assert found.embeddings is not None
    moved = found.embeddings + 0.05 * rng.normal(size=found.embeddings.shape)
    return reference_of(evaluators().encoders[0], moved, "music")


def evaluated(
    clips: list[PromptClip], references: list[Reference], names: list[str] | None = None, by: Evaluators | None = None
) -> Evaluation:
    metrics = None if names is None else metrics_named(names)
    return evaluate_clips(clips, by or evaluators(), references, metrics, system="out", settings={"a": 1})


def result(evaluation: Evaluation, key: str) -> dict[str, Any]:
    return next(row for row in evaluation.sets if row["key"] == key)


def column(evaluation: Evaluation, key: str) -> list[float | None]:
    return [row[key] for row in evaluation.table()[1]]


def test_every_metric_has_a_value_for_the_set_and_for_each_clip(clips: list[PromptClip], reference: Reference) -> None:
    evaluation = evaluated(clips, [reference])
    assert [row["metric"] for row in evaluation.sets] == [
        name for name in NAMES if name not in ("utility", "challenge-concepts")
    ]
    for row in evaluation.sets:
        assert row["value"] is not None and row["clips"] == 24, row
        assert (row["low"] is None) == (row["high"] is None) == (row["metric"] in ("recall", "coverage"))
        assert row["low"] is None or row["low"] <= row["value"] <= row["high"]
    assert evaluation.notes == []
    per_clip = [column(evaluation, key) for key in ("reward", "clap", "concepts", "clip-frechet-synthetic")]
    assert np.isfinite(np.array(per_clip, dtype=float)).all()
    mean = bootstrap_mean(per_clip[0], seed=0)  # type: ignore[arg-type]
    assert (result(evaluation, "reward")["value"], result(evaluation, "reward")["low"]) == (mean.mean, mean.low)
    assert result(evaluation, "clap")["value"] > 0.4
    assert result(evaluation, "concepts")["value"] > 0.6
    assert "genre " in result(evaluation, "concepts")["note"]


def test_distances_are_those_of_the_clips_without_errors(clips: list[PromptClip], reference: Reference) -> None:
    broken = [replace(clips[0], file=None, error="no file"), *clips[1:]]
    evaluation = evaluated(broken, [reference], ["frechet", "clip-frechet"])
    rows = np.stack([_embedding(entry) for entry in clips[1:]])
    distance = result(evaluation, "frechet-synthetic")["value"]
    assert distance == pytest.approx(frechet_distance(rows, reference.embeddings))  # type: ignore[arg-type]
    away = np.square(rows[3] - reference.gaussian.mean).sum() + reference.gaussian.variance
    assert column(evaluation, "clip-frechet-synthetic")[4] == pytest.approx(away)
    assert column(evaluation, "clip-frechet-synthetic")[0] is None and column(evaluation, "error")[0] == "no file"


def _embedding(entry: PromptClip) -> np.ndarray:
    assert entry.file is not None
    return clip_from_file(entry.file).embedding(evaluators().clap)


def test_a_clip_with_a_failed_metric_is_in_no_mean(clips: list[PromptClip], tmp_path: Path) -> None:
    write_wav(tmp_path / "loud.wav", np.sign(np.sin(np.arange(48000) / 20)), 16000)
    write_wav(tmp_path / "short.wav", 0.1 * np.sin(np.arange(16000) / 20), 16000)
    (tmp_path / "bad.wav").write_text("no audio")
    more = [PromptClip(name, "piano", tmp_path / f"{name}.wav") for name in ("loud", "short", "bad")]
    evaluation = evaluated([*clips[:4], *more], [])
    assert [clip.error is None for clip in evaluation.clips] == [True] * 4 + [False] * 3
    assert "too loud" in str(evaluation.clips[4].error) and "2.5 s" in str(evaluation.clips[5].error)
    assert evaluation.notes[-1] == "3 of 7 clips have no values and are in no mean"
    assert evaluation.notes[0] == "no reference music: nothing is compared with it"
    counts = [(row["metric"], row["clips"]) for row in evaluation.sets]
    assert counts == [(name, 4) for name in ("reward", "clap", "concepts", "vendi")]


def test_a_clip_whose_embedding_is_not_finite_fails(clips: list[PromptClip]) -> None:
    class Threshold:
        name, sample_rate, dim = "threshold", 8000, 2

        def audio(self, wave: Tensor) -> Tensor:
            loud = wave.abs().amax(1, keepdim=True)
            return torch.where(loud > quiet, loud, torch.nan).expand(-1, 2)

    peaks = [clip_from_file(entry.file).wave(8000).abs().max() for entry in clips[:3] if entry.file is not None]
    quiet = sorted(peaks)[0] + 1e-6
    encoders = (AudioEncoder("threshold", "1", Threshold()),)
    evaluation = evaluated(clips[:3], [], ["vendi"], replace(evaluators(), encoders=encoders))
    assert len(evaluation.failed) == 1
    assert "its embedding by threshold is not finite" in evaluation.notes[0]
    assert result(evaluation, "vendi-threshold")["clips"] == 2


def test_cached_embeddings_are_not_computed_again(clips: list[PromptClip], tmp_path: Path) -> None:
    """Nor is the audio decoded."""

    class TextOnly:
        sample_rate = 16000

        def text(self, prompts: list[str]) -> Tensor:
            return evaluators().clap.embedder.text(prompts)  # type: ignore[attr-defined,no-any-return]

    complaints: list[str] = []
    cache, metrics = EmbeddingCache(tmp_path / "e.sqlite", complaints.append), metrics_named(["clap", "vendi"])
    first = evaluate_clips(clips[:4], evaluators(), [], metrics, embeddings=cache)
    clap = replace(evaluators().clap, embedder=TextOnly())  # type: ignore[arg-type]
    again = replace(evaluators(), clap=clap, encoders=(clap,))
    second = evaluate_clips(clips[:4], again, [], metrics, embeddings=cache)
    assert second.values.table == first.values.table and complaints == []


def test_duplicate_clips_are_noted(clips: list[PromptClip]) -> None:
    evaluation = evaluated([clips[0], replace(clips[0], id="again")], [], ["reward"])
    assert evaluation.notes == [f"2 clips are the same file and count each: {clips[0].id}, again"]
    assert result(evaluation, "reward")["note"] == "all 2 clips have the same value"


def test_one_clip_has_values_and_no_intervals(clips: list[PromptClip], reference: Reference) -> None:
    evaluation = evaluated(clips[:1], [reference])
    reward = result(evaluation, "reward")
    assert reward["value"] is not None and reward["low"] is None and reward["note"] == "no interval: one clip"
    frechet = result(evaluation, "frechet-synthetic")
    assert frechet["value"] is None and "1 embedding given, at least 2 needed" in frechet["note"]


def test_a_named_metric_that_cannot_be_measured_is_an_error(clips: list[PromptClip], reference: Reference) -> None:
    with pytest.raises(EvaluationError, match="kernel compares with reference music"):
        evaluated(clips[:3], [], ["kernel"])
    summary = replace(reference, embeddings=None, source="stats")
    with pytest.raises(EvaluationError, match="mauve needs the reference's embeddings, and stats holds"):
        evaluated(clips[:3], [summary], ["mauve"])
    with pytest.raises(EvaluationError, match="utility needs prompts whose truth is known"):
        evaluated(clips[:3], [], ["utility"])
    with pytest.raises(EvaluationError, match=r"no metric 'mauv': did you mean 'mauve'\?"):
        evaluated(clips[:3], [], ["mauv"])
    with pytest.raises(AudioError, match="none of 1 clips can be evaluated; the first: gone"):
        evaluated([PromptClip("a", "piano", None, "gone")], [])
    default = evaluated(clips[:3], [summary])
    assert "export it --with-embeddings" in result(default, "coverage-synthetic")["note"]
    assert result(default, "frechet-synthetic")["value"] is not None
    lenient = evaluate_clips(clips[:3], evaluators(), [reference], metrics_named(["mauve"]), strict=False)
    assert result(lenient, "mauve-synthetic")["value"] is None and "20" in result(lenient, "mauve-synthetic")["note"]


def test_prompts_without_concepts_are_counted_separately(clips: list[PromptClip]) -> None:
    entries = [replace(clips[0], prompt="something nice"), replace(clips[1], prompt="blues, no drums"), clips[2]]
    evaluation = evaluated(entries, [], ["concepts"])
    concepts = result(evaluation, "concepts")
    assert concepts["clips"] == 1 and "1 that the detector does not support" in concepts["note"]
    assert [value is None for value in column(evaluation, "concepts")] == [True, True, False]
    assert evaluation.notes == ["2 clips have no value of concepts and are not in its mean"]
    assert "unsupported genre: blues" in evaluation.values.rows()[1]["note"]
    none = result(evaluated(entries[:2], [], ["concepts"]), "concepts")
    assert none["value"] is None and "no prompt names a concept" in none["note"]


def test_utility_needs_the_truth_and_the_listeners(clips: list[PromptClip]) -> None:
    def listeners(waves: list[Tensor], truths: Sequence[float]) -> Tensor:
        return torch.stack([wave.std() for wave in waves]) * torch.tensor(truths)

    by = replace(evaluators(), utility=listeners)
    evaluation = evaluate_clips(clips[:3], by, [], metrics_named(["utility"]), truths=[1.0, 2.0, 0.0])
    waves = [clip_from_file(entry.file).recording.wave for entry in clips[:3] if entry.file is not None]
    expected = [float(wave.std()) * truth for wave, truth in zip(waves, (1.0, 2.0, 0.0), strict=True)]
    assert column(evaluation, "utility") == pytest.approx(expected)


def test_it_is_saved_in_three_forms(clips: list[PromptClip], reference: Reference, tmp_path: Path) -> None:
    broken = [*clips[:5], PromptClip("gone", 'a "prompt", with commas', None, "no file")]
    evaluation = evaluated(broken, [reference], ["reward", "concepts", "frechet"])
    evaluation.save(tmp_path / "e")
    lines = (tmp_path / "e" / "clips.csv").read_text().splitlines()
    assert lines[0] == "id,prompt,file,reward,concepts,error"
    assert lines[-1] == 'gone,"a ""prompt"", with commas",,,,no file'
    summary = json.loads((tmp_path / "e" / "summary.json").read_text())
    assert summary["clips"] == {"total": 6, "scored": 5} and summary["settings"] == {"a": 1}
    values = Values.read(tmp_path / "e")
    assert values.systems == ["out"] and values.metrics == ["reward", "concepts", "frechet"]
    assert values.clip("reward")[:5].tolist() == column(evaluation, "reward")[:5] and np.isnan(values.clip("reward")[5])
    frechet, row = values.set("frechet"), result(evaluation, "frechet-synthetic")
    assert frechet is not None and (frechet.value, frechet.low, frechet.clips) == (row["value"], row["low"], 5)
    assert frechet.replicates is not None and frechet.replicates.shape == (300,)
    files = [clip["file"] for clip in values.clips]
    assert files[-1] == "" and all(Path(tmp_path / "e" / file).is_file() for file in files[:-1])


def test_foreign_code_that_fails_is_one_line(clips: list[PromptClip], tmp_path: Path) -> None:
    code = "from plaudit.evaluate.metrics import Metric\nMETRIC = Metric('m', 'M', lambda inputs: {})\n"
    for body, said in (("inputs.x", "metric m fails: AttributeError"), ("[1.0]", r"of shape \[1\] for 2 clips")):
        (tmp_path / "m.py").write_text(code.format(body))
        with pytest.raises(EvaluationError, match=said):
            evaluated(clips[:2], [], [f"{tmp_path}/m.py:METRIC"])
    (tmp_path / "m.py").write_text(code.replace("'m'", "'reward'").format("[1.0]"))
    with pytest.raises(EvaluationError, match="is called 'reward', as a built-in one is; rename it"):
        evaluated(clips[:2], [], [f"{tmp_path}/m.py:METRIC"])
