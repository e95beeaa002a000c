"""A distilled model against its teacher: reward and true utility of the same prompts and seeds, and time to a file."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

import plaudit
from plaudit import loading
from plaudit.audio_format import AudioFormat
from plaudit.flow import branches
from plaudit.generate.clips import ClipRequest, generate_clips
from plaudit.generate.model import TextToMusic
from plaudit.generate.postprocess import PostProcessor
from plaudit.generate.settings import PostSettings
from plaudit.machine import environment_of
from plaudit.reward.scoring import score_waves
from plaudit.statistics import bca_mean, equivalence_test
from plaudit.synthetic.corpus import SyntheticCorpus
from plaudit.synthetic.listeners import utility
from plaudit.synthetic.probes import load_probes, measure

CORPUS_SEED = 83
"""Of the pieces whose captions are the prompts: no recipe, training or other benchmark uses it."""

MARGIN = 0.1
"""Of equivalence, in standard deviations of the teacher's clips."""

Figures = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Prompts:
    """Captions of flawless pieces, and evaluators of clips for them."""

    corpus: SyntheticCorpus

    @classmethod
    def draw(cls, count: int) -> Prompts:
        """`count` prompts."""
        return cls(SyntheticCorpus(count, 10.0, CORPUS_SEED, flawed_fraction=0.0, miscaptioned_fraction=0.0))

    @property
    def texts(self) -> list[str]:
        """The captions."""
        return [clip.caption for clip in self.corpus.clips]

    def figures(self, model: TextToMusic) -> Figures:
        """Reward and true utility of one clip per prompt, of seeds that count from 0."""
        reward, probes, texts = loading.REWARDS.load("synthetic"), load_probes(), self.texts
        waves = model.generate(texts, seeds=range(len(texts)))
        rewards = score_waves(reward, list(waves), model.codec.sample_rate, texts)
        utilities = utility(measure(probes, waves), [clip.caption_truth for clip in self.corpus.clips])
        return {"reward": rewards.double().numpy(), "utility": utilities.double().numpy()}


def compare(student: NDArray[np.float64], teacher: NDArray[np.float64]) -> dict[str, Any]:
    """The student's mean difference in the teacher's standard deviations, with its interval and equivalence test."""
    gaps = (student - teacher) / teacher.std(ddof=1)
    error = float(gaps.std(ddof=1)) / len(gaps) ** 0.5
    interval = bca_mean(gaps, seed=0)
    p = equivalence_test(float(gaps.mean()), error, len(gaps) - 1, MARGIN).p if error else float(abs(gaps[0]) >= MARGIN)
    return {
        "difference": interval.mean, "low": interval.low, "high": interval.high, "p_equivalence": p,
        "equivalent": p < 0.05, "teacher": float(teacher.mean()), "student": float(student.mean()),
    }  # fmt: skip


def with_steps(model: TextToMusic, steps: int) -> TextToMusic:
    """The model sampled in `steps` steps by default."""
    return replace(model, config=replace(model.config, sampling=model.config.sampling.changed(steps=steps)))


def evaluations(model: TextToMusic) -> int:
    """Passes of the network for one clip."""
    sampling = model.config.sampling
    return len(branches(sampling.guidance, scored=sampling.score is not None)) * sampling.steps


def seconds_a_clip(models: dict[str, TextToMusic], texts: Sequence[str], turns: int) -> dict[str, dict[str, float]]:
    """Median seconds and processor seconds of a clip from prompts to finished files, in turns after an untimed one."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    postprocessor = PostProcessor.load(PostSettings(), AudioFormat())
    for turn in range(turns + 1):
        for name, model in models.items():
            requests = [ClipRequest(f"{i:04d}", text, 1000 * turn + i) for i, text in enumerate(texts)]
            with TemporaryDirectory() as folder:
                began = time.perf_counter(), time.process_time()
                generate_clips(model, requests, model.config.sampling, Path(folder), postprocessor=postprocessor)
                passed = time.perf_counter() - began[0], time.process_time() - began[1]
            if turn:
                taken[name].append(passed)
    medians = {name: np.median(values, axis=0) / len(texts) for name, values in taken.items()}
    return {name: {"seconds": float(wall), "processor_seconds": float(cpu)} for name, (wall, cpu) in medians.items()}


def main(
    teacher: Annotated[str, typer.Option(help="A model's name or folder.")] = "synthetic",
    student: Annotated[str, typer.Option(help="A distilled model's name or folder.")] = "synthetic-distilled",
    steps: Annotated[int, typer.Option(min=1, help="Steps of the student that are tested.")] = 4,
    others: Annotated[str, typer.Option(help="Further steps, separated by commas.")] = "1,2",
    prompts: Annotated[int, typer.Option("-n", "--prompts", min=2)] = 512,
    clips: Annotated[int, typer.Option(min=1, help="Clips of each timed turn.")] = 4,
    turns: Annotated[int, typer.Option(min=1)] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Reward, true utility and speed of a distilled model of the synthetic world beside its teacher's.

    Both generate one clip for each held-out prompt from the same seeds, the teacher with its default sampling.
    Differences are in standard deviations of the teacher's clips; equivalence is tested with a margin of 0.1 of them.
    """
    models = {"teacher": plaudit.load(teacher)}
    models |= {str(count): with_steps(plaudit.load(student), count) for count in [steps, *_counts(others)]}
    drawn = Prompts.draw(prompts)
    timed = seconds_a_clip(models, drawn.texts[:clips], turns)
    figures = {name: drawn.figures(model) for name, model in models.items()}
    by_steps = {
        name: {
            "evaluations": evaluations(model),
            "speedup": timed["teacher"]["seconds"] / timed[name]["seconds"],
            **timed[name],
            **{what: compare(figures[name][what], figures["teacher"][what]) for what in ("reward", "utility")},
        }
        for name, model in models.items()
        if name != "teacher"
    }
    tested = by_steps[str(steps)]
    results: dict[str, Any] = {
        "evaluations": tested["evaluations"],
        "evaluations_of_teacher": evaluations(models["teacher"]),
        "speedup": tested["speedup"],
        "reward_difference": tested["reward"]["difference"],
        "utility_difference": tested["utility"]["difference"],
        "equivalent": tested["reward"]["equivalent"] and tested["utility"]["equivalent"],
        "seconds_a_clip": tested["seconds"],
        "processor_seconds_a_clip": tested["processor_seconds"],
        "teacher": timed["teacher"],
        "by_steps": by_steps,
        "prompts": prompts,
    }
    if as_json:
        print(json.dumps(results | environment_of(models["teacher"].backbone.latent_mean.device)))
        return
    for name, row in by_steps.items():
        print(f"{name} steps: {row['speedup']:.1f} times faster, {row['processor_seconds']:.3f} processor s a clip")
        for what in ("reward", "utility"):
            one = row[what]
            print(
                f"  {what} {one['student']:.2f} against {one['teacher']:.2f}: {one['difference']:+.3f} "
                f"[{one['low']:.3f}, {one['high']:.3f}] SD, p = {one['p_equivalence']:.3f} of equivalence"
            )


def _counts(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part.strip()]


if __name__ == "__main__":
    typer.run(main)
