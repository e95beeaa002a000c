"""The data of a run's report, from its finished steps."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plaudit import loading
from plaudit.corpus.sources import CorpusSource, corpus_source
from plaudit.evaluate.concepts.detectors import SHIPPED_ERROR_RATES as RATES
from plaudit.evaluate.concepts.detectors import load_rates, rates_of
from plaudit.evaluate.concepts.vocabulary import SHIPPED_VOCABULARY as VOCABULARY
from plaudit.evaluate.concepts.vocabulary import load_vocabulary
from plaudit.evaluate.pages.report import (
    BestOfN,
    CorpusFacts,
    Curve,
    ReportData,
    ReportReliabilityBin,
    RewardQuality,
    RunFacts,
    Sample,
    StageResult,
    read_curves,
    write_report,
)
from plaudit.evaluate.pages.sweep import Sweep
from plaudit.evaluate.values import Values
from plaudit.generate.model import read_model_config
from plaudit.pipeline.data import encoded_corpus
from plaudit.pipeline.results import held_out
from plaudit.pipeline.runner import RunFiles
from plaudit.pipeline.sweeps import cell_name, read_cell, swept
from plaudit.recipe import ROWS, Recipe
from plaudit.stages.pairs import PairSettings, read_candidates
from plaudit.storage import read_json

TITLES = {
    "baseline": "Baseline",
    "unscored": "Without a score",
    "sft": "SFT",
    "expert_iteration": "Expert iteration",
    "cross_load": "Cross-load",
    "crpo": "CRPO",
    "nft": "NFT",
    "finished": "Post-processed",
}


def title_of(stage: str) -> str:
    """A stage's heading: "Expert iteration 2" of `expert_iteration-2`."""
    kind, dash, number = stage.rpartition("-")
    if dash and number.isdecimal():
        return f"{title_of(kind)} {number}"
    return TITLES.get(stage, stage.replace("_", " ").capitalize())


CURVES = ("loss", "preference_loss", "winner_flow_loss", "implicit_accuracy")


class ReportedRun(RunFiles):
    """A run with the recipe that its report is of."""

    def __init__(self, files: RunFiles, recipe: Recipe) -> None:
        super().__init__(files.run)
        self.recipe, self.source = recipe, corpus_source(recipe.corpus)
        self.shards = encoded_corpus(self, recipe.corpus)


def write_page(
    files: RunFiles, folder: Path, recipe: Recipe, stages: list[str], swept: list[str], finished: Sequence[str]
) -> None:
    """Write the report of a run whose other steps are `finished`: of these stages, and the sweeps of those `swept`."""
    run = ReportedRun(files, recipe)
    data = ReportData(
        run=_run_facts(run, finished),
        stages=[_stage_result(run, stage) for stage in stages],
        corpus=_corpus_facts(run),
        reward=_reward_quality(run) if recipe.reward.kind == "train" else None,
        curves=_curves(run, stages),
        sweeps=[_sweep(run, stage) for stage in swept],
        samples=_samples(run, stages),
        best_of_n=_best_of_n(run),
        coverage_scale=_coverage_scale(run.source),
        values=_all_values(run, folder, stages, swept),
    )
    write_report(data, folder)


def _all_values(run: ReportedRun, folder: Path, stages: list[str], swept: list[str]) -> Values:
    """The values of all stages and of the cells of sweeps, with files relative to `folder`."""
    parts = [Values.collect([run.path(f"values-{stage}")], folder) for stage in stages]
    cells = [cell for stage in swept for cell in run.path(f"sweep-{stage}").glob("*/")]
    return Values.concat([*parts, Values.collect(cells, folder)])


def _stage_result(run: ReportedRun, stage: str) -> StageResult:
    values = Values.read(run.path(f"values-{stage}"))
    clips, options, model = run.path(f"clips-{stage}"), tuple[str, ...](), None
    title, note, first = title_of(stage), _note(run, stage), run.recipe.model_stages[0]
    baseline = run.recipe.evaluate.baseline
    if stage == "baseline":
        assert baseline is not None
        options = ("--guidance", f"{baseline.guidance:g}", "--negative", baseline.negative_prompt)
        model = loading.model_folder(baseline.model, loading.MODELS).resolve()
    elif stage == "unscored":
        options, title = ("--set", "sampling.score=null"), f"{title_of(first)} without a score"
        model = run.path(first).resolve()
    elif stage != "finished":  # post-processed clips are those of the last stage
        model = run.path(stage).resolve()
    return StageResult(stage, title, values, note, clips, model, options, _previous(run.recipe, stage))


def _previous(recipe: Recipe, stage: str) -> str | None:
    """The row that a stage is compared with: the stage it started from, or of the first the baseline."""
    if stage not in recipe.model_stages:
        return None
    return recipe.start_of(stage) or (None if recipe.evaluate.baseline is None else "baseline")


def _note(run: ReportedRun, stage: str) -> str:
    sampling, baseline = run.recipe.sampling, run.recipe.evaluate.baseline
    if stage == "baseline":
        assert baseline is not None
        return f"{baseline.model}, guidance {baseline.guidance:g}, no score, no prefix"
    if stage == "unscored":
        return f"the model of the first stage without a conditioning score, guidance {sampling.guidance.weight:g}"
    if stage == "finished":
        return "the last stage's clips after loudness and true-peak normalization"
    injection = read_model_config(run.path(stage)).backbone.injection
    sampling = run.recipe.sampling_of(stage)
    steps = "" if sampling.steps == run.recipe.sampling.steps else f", {sampling.steps} steps"
    return f"{injection}, score {sampling.score}, guidance {sampling.guidance.weight:g}{steps}"


def _run_facts(run: ReportedRun, finished: Sequence[str]) -> RunFacts:
    """The records of the finished steps."""
    steps = {name: run.run.finished(name) for name in finished}
    environments = [step.environment for step in steps.values()]
    ended = datetime.datetime.fromisoformat(max(step.ended for step in steps.values()))
    return RunFacts(
        name=run.recipe.name,
        recipe=run.recipe.to_yaml(),
        finished=ended.strftime("%Y-%m-%d %H:%M UTC"),
        seconds=sum(step.seconds for step in steps.values()),
        description=run.source.description,
        peak_memory=max(one["peak_memory"] for one in environments),
        machine=_joined([one["machine"] for one in environments]),
        versions=_joined([one["versions"] for one in environments]),
        step_seconds={name: step.seconds for name, step in steps.items()},
        folder=str(run.run.folder.resolve()),
    )


def _joined(facts: Sequence[dict[str, str]]) -> dict[str, str]:
    """Facts of several steps as one; values that differ are listed."""
    names = dict.fromkeys(name for one in facts for name in one)
    return {name: "; ".join(dict.fromkeys(one[name] for one in facts if name in one)) for name in names}


def _corpus_facts(run: ReportedRun) -> CorpusFacts:
    settings, shards = run.recipe.corpus, run.shards
    quarantine = shards.folder / "quarantine.jsonl"
    lines = quarantine.read_text(encoding="utf-8").split("\n") if quarantine.exists() else []
    reasons = [json.loads(line)["reason"] for line in lines if line]
    source = run.source
    flaws = source.flaws(run.path("corpus"))
    return CorpusFacts(source.label, dict(Counter(shards.splits)), settings.seconds, dict(Counter(reasons)), flaws)


def _reward_quality(run: ReportedRun) -> RewardQuality:
    facts: dict[str, Any] = read_json(run.path("reward") / "config.json")
    metrics = facts["metrics"]
    return RewardQuality(
        accuracy=metrics["accuracy"],
        accuracy_low=metrics["accuracy_interval"][0],
        accuracy_high=metrics["accuracy_interval"][1],
        ece=metrics["calibration_error"],
        votes=metrics["decided"],
        bins=[ReportReliabilityBin(b["confidence"], b["accuracy"], b["count"]) for b in metrics["reliability"]],
        ceiling=facts["noise_ceiling"],
        source="simulated listeners",
    )


def _curves(run: ReportedRun, stages: list[str]) -> list[Curve]:
    curves = []
    for stage in stages:
        if stage not in ROWS:
            for metrics in sorted(run.path(stage).rglob("metrics.jsonl")):
                inner = metrics.parent.relative_to(run.path(stage)).parts
                curves += read_curves(metrics, " ".join((title_of(stage), *inner)), CURVES)
    return curves


def _sweep(run: ReportedRun, stage: str) -> Sweep:
    scores = list(run.recipe.evaluate.sweep_scores)
    folder = run.path(f"sweep-{stage}")
    return swept(title_of(stage), scores, [read_cell(folder / cell_name(score)) for score in scores])


def _best_of_n(run: ReportedRun) -> BestOfN | None:
    """The candidates of the last preference pairs, where every caption has several."""
    settings = next((one for one in reversed(run.recipe.stages) if isinstance(one, PairSettings)), None)
    candidates = [] if settings is None else read_candidates(run.path(settings.name))
    if settings is None or not candidates or settings.captions < 2:
        return None
    grid = (settings.captions, settings.candidates)
    values = {name: np.array([getattr(one, name) for one in candidates]).reshape(grid) for name in ("reward", "clap")}
    return BestOfN("candidates for preference pairs", values["reward"], {"clap": values["clap"]})


def _coverage_scale(source: CorpusSource) -> tuple[float, float] | None:
    """The detector's concept coverage of matching clips and of clips of other prompts, where it was measured."""
    detector = source.detector()
    rates = None if detector is None else rates_of(detector, load_vocabulary(VOCABULARY), load_rates(RATES))
    return None if rates is None else (rates.right.mean, rates.other.mean)


def _samples(run: ReportedRun, stages: list[str]) -> list[Sample]:
    """The first held-out prompts, which are in random order, with the clips of every stage."""
    evaluate = run.recipe.evaluate
    prompts = held_out(run, run.recipe.corpus, evaluate.prompt_file, evaluate.prompts)
    return [
        Sample(
            row,
            {stage: run.path(f"clips-{stage}") / f"{row:04d}.wav" for stage in stages},
            {} if prompts.truths is None else prompts.truths[row].describe(),
        )
        for row in range(min(evaluate.audio_players, len(prompts.prompts)))
    ]
