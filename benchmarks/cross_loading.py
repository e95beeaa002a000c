"""Cross-loading after different amounts of expert iteration.

    python -m benchmarks.cross_loading runs/synthetic OUTPUT --json

The pass on corpus and kept clips is trained again, from the model that the run's expert iteration started from, with
fractions and multiples of its updates. Each model is sampled in its own injection, in others, and with other
conditioning scores. Everything is paired by prompt and seed. OUTPUT keeps models and clips, so that an interrupted
benchmark goes on, and gets a figure, cross-loading.svg.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from accelerate import Accelerator
from matplotlib.axes import Axes
from numpy.typing import NDArray

from plaudit import loading
from plaudit.audio import read_audio
from plaudit.backbone.base import cross_load
from plaudit.corpus.shards import ShardSet
from plaudit.corpus.sources import corpus_source
from plaudit.evaluate.pages.charts import Draw, Series, lines, save_panels
from plaudit.generate.clips import ClipRequest, generate_clips
from plaudit.generate.model import TextToMusic, save_model
from plaudit.generate.settings import Execution
from plaudit.machine import environment_of
from plaudit.recipe import Recipe, load_recipe
from plaudit.reward.scoring import score_waves
from plaudit.stages.expert_iteration import ExpertIterationSettings
from plaudit.stages.sft import SftObjective
from plaudit.statistics import Interval, bootstrap_mean, equivalence_test, spearman
from plaudit.storage import read_json, write_json
from plaudit.synthetic.evaluators import SyntheticSource
from plaudit.synthetic.truth import Truth
from plaudit.training.data import Source, TrainingSet
from plaudit.training.loop import train

MARGIN = 0.2
"""Of equivalence with the native injection, in standard deviations of the native clips' true utility."""

PUBLISHED = ("input_add", "audio_prepend", "text_prepend")
"""The injections of the paper, but for the one that its models are trained under."""

Values = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Study:
    """One run's expert iteration, to be repeated with other numbers of updates; `folder` keeps the results.

    guidance: the weight that clips are sampled with, by default the recipe's.
    """

    run: Path
    folder: Path
    stage: str
    updates: int | None
    prompts: int
    guidance: float | None = field(default=None, kw_only=True)

    @cached_property
    def recipe(self) -> Recipe:
        """The run's."""
        return load_recipe(str(self.run / "recipe.yaml"))

    @cached_property
    def settings(self) -> ExpertIterationSettings:
        """Of the stage."""
        settings = self.recipe.stage(self.stage)
        if not isinstance(settings, ExpertIterationSettings):
            raise typer.BadParameter(f"stage {self.stage} is no expert iteration")
        return settings

    @cached_property
    def source(self) -> SyntheticSource:
        """The synthetic world."""
        source = corpus_source(self.recipe.corpus)
        if not isinstance(source, SyntheticSource):
            raise typer.BadParameter("true utility is known of runs with the synthetic corpus only")
        return source

    def start(self) -> TextToMusic:
        """The model that the stage started from."""
        stages = self.recipe.model_stages
        before = self.settings.start_from or stages[stages.index(self.stage) - 1]
        return loading.load(str(self.run / before), "cpu")

    def corpus(self) -> Source:
        """The training clips with their rewards."""
        shards = ShardSet(self.run / "shards", verify=False)
        rewards = np.array(read_json(self.run / "labels" / "rewards.json")["rewards"], dtype=np.float64)
        rows = shards.rows("train")
        return Source(shards, rows, rewards[rows])

    def sources(self) -> list[Source]:
        """The corpus and the first round's kept clips, as the stage mixes them."""
        first = self.run / self.stage / "round-1"
        kept = ShardSet(first / "kept", verify=False)
        reward_of = {int(Path(row["clip"]).stem): row["reward"] for row in read_json(first / "kept.json")}
        scores = np.array([reward_of[int(id)] for id in kept.ids])
        return [self.corpus(), Source(kept, np.arange(len(kept)), scores, weight=self.settings.oversample)]

    def model(self, amount: float) -> TextToMusic:
        """The model after `amount` times the standard number of updates."""
        if amount == 0:
            return self.start()
        place = self.folder / "models" / f"{amount:g}"
        if not (place / "config.json").exists():
            model, standard = self.start(), self.updates or self.settings.train.steps
            settings = self.settings.train.model_copy(update={"steps": max(1, round(amount * standard))})
            objective = SftObjective(model.backbone, TrainingSet(self.sources(), settings.seed), settings)
            accelerator = Accelerator(mixed_precision=self.recipe.precision, cpu=True)
            average = train(
                model.backbone, objective, settings, place / "pass", accelerator, lambda done, total: None,
                self.recipe.training_loop, (), 1.0,
            )  # fmt: skip
            average.copy_to(model.backbone)
            save_model(place, model)
        return loading.load(str(place), "cpu")

    def values(
        self, amount: float, injection: str | None = None, score: float | None = None, guidance: float | None = None
    ) -> Values:
        """Reward and true utility of a model's clips; by default in its own injection, with the recipe's score and
        the study's guidance weight."""
        guidance = self.guidance if guidance is None else guidance
        sampling = self.recipe.sampling.changed(score=score, weight=guidance)
        name = f"{amount:g}-{injection or 'native'}-{sampling.score:g}"
        name += "" if guidance is None else f"-guidance-{guidance:g}"
        file = self.folder / "values" / f"{name}.json"
        if not file.exists():
            model = self.model(amount)
            if injection is not None:
                config = replace(model.config.backbone, injection=injection)
                backbone, _ = cross_load(model.backbone.state_dict(), config)
                model = replace(model, backbone=backbone.eval(), config=replace(model.config, backbone=config))
            write_json(file, self._measure(model, sampling, self.folder / "clips" / name))
        return {key: np.array(value) for key, value in read_json(file).items()}

    def _measure(self, model: TextToMusic, sampling: Any, folder: Path) -> dict[str, list[float]]:
        held_out, seed = self.source.held_out(self.prompts), self.recipe.evaluate.seed
        assert held_out.truths is not None
        requests = [ClipRequest(f"{i:04d}", prompt, seed + i) for i, prompt in enumerate(held_out.prompts)]
        paths = generate_clips(model, requests, sampling, folder, Execution(batch=self.recipe.sampling_batch))
        waves = [torch.from_numpy(read_audio(path)[0]) for path in paths]
        return self.values_of(waves, model.codec.sample_rate, held_out.prompts, held_out.truths)

    def values_of(
        self, waves: Sequence[torch.Tensor], rate: int, prompts: Sequence[str], truths: Sequence[Truth]
    ) -> dict[str, list[float]]:
        """Reward and true utility of clips, mono [T] at `rate`, as renderings of what `prompts` describe."""
        settings = self.recipe.reward
        reward = loading.load_reward(str(self.run / "reward") if settings.kind == "train" else settings.name, "cpu")
        with torch.inference_mode():
            rewards = score_waves(reward, waves, rate, prompts)
            utilities = self.source.true_utility()(waves, truths)
        return {"reward": rewards.tolist(), "utility": utilities.tolist()}


def change(after: NDArray[np.float64], before: NDArray[np.float64], margin: float | None = None) -> dict[str, Any]:
    """The mean difference, its 95 % interval, and whether it lies within the margin."""
    gaps = after - before
    mean = bootstrap_mean(gaps, 0)
    figures: dict[str, Any] = {
        "mean": round(mean.mean, 3),
        "interval": [round(mean.low, 3), round(mean.high, 3)],
    }
    if margin is not None:
        error = float(gaps.std(ddof=1) / len(gaps) ** 0.5)
        test = equivalence_test(float(gaps.mean()), error, len(gaps) - 1, margin) if error else None
        figures["equivalent"] = test is None or test.p < 0.05
    return figures


def figures_of(study: Study, amount: float, injections: Sequence[str], scores: Sequence[float]) -> dict[str, Any]:
    """The figures of one amount of expert iteration."""
    native, start = study.values(amount), study.values(0)
    margin = MARGIN * float(native["utility"].std(ddof=1))
    by_score = {score: study.values(amount, score=score)["utility"] for score in scores}
    swept = {score: float(values.mean()) for score, values in by_score.items()}
    return {
        "reward": round(float(native["reward"].mean()), 3),
        "utility": round(float(native["utility"].mean()), 3),
        "utility_from_start": change(native["utility"], start["utility"]),
        "cross_loaded": {
            name: change(study.values(amount, name)["utility"], native["utility"], margin) for name in injections
        },
        "margin": round(margin, 3),
        "score_effect": change(by_score[max(scores)], by_score[min(scores)]),
        "sweep": {f"{score:g}": round(mean, 3) for score, mean in swept.items()},
        "sweep_spearman": round(spearman(list(swept), list(swept.values())), 2) if len(swept) > 1 else None,
    }


def draw(table: Mapping[str, Mapping[str, Any]], standard: int, injections: Sequence[str], path: Path) -> None:
    """What cross-loading changes, and the score's effect, by the updates of expert iteration; intervals as bands."""
    updates = [float(amount) * standard for amount in table]

    def series(label: str, colour: int, changes: Sequence[Mapping[str, Any]]) -> Series:
        return Series(label, colour, updates, [Interval(each["mean"], *each["interval"]) for each in changes])

    loaded = [
        series(name, colour, [figures["cross_loaded"][name] for figures in table.values()])
        for colour, name in enumerate(injections)
    ]
    gained = [
        series("expert iteration", 3, [figures["utility_from_start"] for figures in table.values()]),
        series("score", 4, [figures["score_effect"] for figures in table.values()]),
    ]
    panels = {"What cross-loading changes": loaded, "What expert iteration and the score change": gained}
    save_panels({title: _by_updates(each) for title, each in panels.items()}, path)


def _by_updates(series: Sequence[Series]) -> Draw:
    def draw(axes: Axes) -> None:
        lines(series, "updates of expert iteration")(axes)
        axes.set_ylabel("change of true utility")

    return draw


def main(
    run: Annotated[Path, typer.Argument(help="A finished run of a synthetic recipe with expert iteration.")],
    output: Annotated[Path, typer.Argument(help="Folder of models and clips.")],
    stage: Annotated[str, typer.Option(help="The run's stage of expert iteration.")] = "expert_iteration",
    amounts: Annotated[str, typer.Option(help="Multiples of the updates.")] = "0,0.25,0.5,1,2,4",
    updates: Annotated[int | None, typer.Option(help="The standard number. Default: the stage's.", min=1)] = None,
    prompts: Annotated[int, typer.Option(help="Held-out prompts.", min=2)] = 64,
    injections: Annotated[str, typer.Option(help="Injections to load into.")] = ",".join(PUBLISHED),
    scores: Annotated[str, typer.Option(help="Conditioning scores of the sweep.")] = "-1.5,-0.5,0.5,1.5",
    guidance: Annotated[float | None, typer.Option(help="Weight of the clips' guidance. Default: the run's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Cross-load and sweep after different amounts of expert iteration."""
    study = Study(run, output, stage, updates, prompts, guidance=guidance)
    names, swept = injections.split(","), [float(score) for score in scores.split(",")]
    table = {amount: figures_of(study, float(amount), names, swept) for amount in amounts.split(",")}
    standard = updates or study.settings.train.steps
    draw(table, standard, names, output / "cross-loading.svg")
    if as_json:
        machine = environment_of(torch.device("cpu"))
        setting = {"updates": standard, "prompts": prompts, "guidance": guidance}
        print(json.dumps(setting | {"amounts": table, "machine": machine}))
        return
    for amount, figures in table.items():
        print(
            f"{float(amount) * standard:.0f} updates", *(f"{key} {value}" for key, value in figures.items()), sep="\n  "
        )


if __name__ == "__main__":
    typer.run(main)
