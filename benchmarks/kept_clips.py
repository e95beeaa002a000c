"""Which clips expert iteration must add to its corpus for the model to gain from them.

    python -m benchmarks.kept_clips runs/synthetic OUTPUT --json

The pass on corpus and kept clips of a run's expert iteration is trained again, from the same model and with the same
settings, without additional clips and with as many of each of these: candidates drawn at random, the kept candidates,
those of the highest true utility, and clips without flaws, rendered for the captions of the kept candidates. All are
labelled with their reward. The models are compared on held-out prompts, paired by prompt and seed, under the recipe's
guidance and under that of `--guidance`. OUTPUT keeps models and clips, so that an interrupted benchmark goes on; each
training seed needs an OUTPUT of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from benchmarks.cross_loading import Study, Values, change
from benchmarks.expert_iteration import utilities_of_candidates
from plaudit import loading
from plaudit.audio import read_audio, write_wav
from plaudit.corpus.manifest import Entry, ListedCorpus
from plaudit.corpus.shards import encode_corpus
from plaudit.machine import environment_of
from plaudit.sidecars import read_sidecar
from plaudit.stages.expert_iteration import ExpertIterationSettings
from plaudit.storage import read_json
from plaudit.synthetic.probes import RATE
from plaudit.training.data import Source

ADDITIONS = ("none", "random", "kept", "best by true utility", "without flaws")
"""Clips that are added to the corpus. The first is the control."""


@dataclass(frozen=True)
class Clips:
    """Clips: files, captions, rewards and true utilities, [n] each."""

    paths: list[Path]
    captions: list[str]
    rewards: NDArray[np.float64]
    utilities: NDArray[np.float64]

    def take(self, positions: NDArray[np.int64]) -> Clips:
        """Those at some positions."""
        paths, captions = [self.paths[i] for i in positions], [self.captions[i] for i in positions]
        return Clips(paths, captions, self.rewards[positions], self.utilities[positions])


@dataclass(frozen=True)
class Candidates:
    """The first round's candidates, and the positions of those that the stage kept."""

    clips: Clips
    kept: NDArray[np.int64]

    @classmethod
    def of(cls, study: Study) -> Candidates:
        """Of the run and stage that `study` repeats."""
        first = study.run / study.stage / "round-1"
        paths = sorted((first / "candidates").glob("*.wav"))
        names = [path.name for path in paths]
        clips = Clips(
            paths,
            [read_sidecar(path)["prompt"] for path in paths],
            np.array(read_json(first / "candidates" / "scores.json")["reward"]),
            utilities_of_candidates(study.source, first / "candidates"),
        )
        return cls(clips, np.array([names.index(row["clip"]) for row in read_json(first / "kept.json")]))

    def chosen(self, addition: str) -> Clips:
        """Those of an addition, as many as the stage kept."""
        count = len(self.kept)
        if addition == "random":
            return self.clips.take(np.random.default_rng(0).permutation(len(self.clips.paths))[:count])
        if addition == "best by true utility":
            return self.clips.take(np.argsort(-self.clips.utilities)[:count])
        return self.clips.take(self.kept)


@dataclass(frozen=True)
class AdditionStudy(Study):
    """The stage's pass with other clips than the kept ones beside the corpus."""

    addition: str
    candidates: Candidates
    training_seed: int | None = None

    @cached_property
    def settings(self) -> ExpertIterationSettings:
        """Of the stage, but for the training seed where one is given."""
        settings = super().settings
        if self.training_seed is None:
            return settings
        return settings.model_copy(update={"train": settings.train.model_copy(update={"seed": self.training_seed})})

    def sources(self) -> list[Source]:
        """The corpus and the added clips, which are encoded as kept clips are and weigh as much."""
        if self.clips is None:
            return [self.corpus()]
        entries = [
            Entry(f"{i:05d}", caption, "train", "generated", path=path)
            for i, (caption, path) in enumerate(zip(self.clips.captions, self.clips.paths, strict=True))
        ]
        names = self.recipe.models
        shards = encode_corpus(
            ListedCorpus("generated", entries), loading.CODECS.load(names.codec),
            loading.TEXT_ENCODERS.load(names.text_encoder), self.folder / "shards", self.recipe.corpus.seconds,
        )  # fmt: skip
        rewards = self.clips.rewards[[int(id) for id in shards.ids]]
        return [self.corpus(), Source(shards, np.arange(len(shards)), rewards, weight=self.settings.oversample)]

    @cached_property
    def clips(self) -> Clips | None:
        """What is added to the corpus."""
        if self.addition == "none":
            return None
        if self.addition == "without flaws":
            return self._render_flawless()
        return self.candidates.chosen(self.addition)

    def _render_flawless(self) -> Clips:
        """Pieces of the corpus for the captions of the kept candidates, without flaws and as the captions say."""
        clip_of = {clip.caption: clip for clip in self.source.corpus.clips}
        captions = self.candidates.chosen("kept").captions
        truths = [clip_of[caption].caption_truth for caption in captions]
        folder = self.folder / "flawless"
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{i:05d}.wav" for i in range(len(captions))]
        for caption, truth, path in zip(captions, truths, paths, strict=True):
            write_wav(path, self.source.corpus.render(replace(clip_of[caption], truth=truth, flaws={})), RATE)
        values = self.values_of([torch.from_numpy(read_audio(path)[0]) for path in paths], RATE, captions, truths)
        return Clips(paths, captions, np.array(values["reward"]), np.array(values["utility"]))


def figures_of(study: AdditionStudy, control: AdditionStudy, guidances: Sequence[float] = ()) -> dict[str, Any]:
    """What was added, and the model's clips on held-out prompts, also under other guidance weights."""
    clips = study.clips
    figures: dict[str, Any] = {}
    if clips is not None:
        added = {"reward": clips.rewards, "utility": clips.utilities}
        figures = {f"{name}_of_clips": round(float(each.mean()), 3) for name, each in added.items()}
    figures |= _against(study.values(1), control.values(1))
    for weight in guidances:
        pair = (one.values(1, guidance=weight) for one in (study, control))
        figures[f"guidance_{weight:g}"] = _against(*pair)
    return figures


def _against(values: Values, control: Values) -> dict[str, Any]:
    return {
        "reward": round(float(values["reward"].mean()), 3),
        "utility": round(float(values["utility"].mean()), 3),
        "utility_from_control": change(values["utility"], control["utility"]),
    }


def main(
    run: Annotated[Path, typer.Argument(help="A finished run of a synthetic recipe with expert iteration.")],
    output: Annotated[Path, typer.Argument(help="Folder of models and clips.")],
    stage: Annotated[str, typer.Option(help="The run's stage of expert iteration.")] = "expert_iteration",
    prompts: Annotated[int, typer.Option(help="Held-out prompts.", min=2)] = 256,
    additions: Annotated[str, typer.Option(help="What is added; the first is the control.")] = ",".join(ADDITIONS),
    training_seed: Annotated[int | None, typer.Option(help="Of the pass. Default: the stage's.")] = None,
    guidance: Annotated[str, typer.Option(help="Further guidance weights of the held-out clips.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Which clips expert iteration must add to its corpus for the model to gain from them."""
    names = additions.split(",")
    if unknown := set(names) - set(ADDITIONS):
        raise typer.BadParameter(f"no such additions: {', '.join(sorted(unknown))}; there are {', '.join(ADDITIONS)}")
    candidates = Candidates.of(Study(run, output, stage, None, prompts))
    studies = {
        name: AdditionStudy(run, output / name.replace(" ", "-"), stage, None, prompts, name, candidates, training_seed)
        for name in names
    }
    weights = [float(weight) for weight in guidance.split(",") if weight]
    table = {name: figures_of(study, studies[names[0]], weights) for name, study in studies.items()}
    if as_json:
        print(json.dumps({"prompts": prompts, "additions": table, "machine": environment_of(torch.device("cpu"))}))
        return
    for name, figures in table.items():
        print(name, *(f"{key} {value}" for key, value in figures.items()), sep="\n  ")


if __name__ == "__main__":
    typer.run(main)
