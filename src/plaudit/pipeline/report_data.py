"""From a finished run folder to the report's data, and the report."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plaudit.corpus.sources import CorpusSource
from plaudit.evaluate.concepts.detectors import SHIPPED_ERROR_RATES as RATES
from plaudit.evaluate.concepts.detectors import load_rates, rates_of
from plaudit.evaluate.concepts.vocabulary import SHIPPED_VOCABULARY as VOCABULARY
from plaudit.evaluate.concepts.vocabulary import load_vocabulary
from plaudit.evaluate.evaluator import StageScores
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
from plaudit.generate.model import read_model_config
from plaudit.pipeline.results import held_out
from plaudit.pipeline.runner import RunFiles
from plaudit.pipeline.sweeps import cell_name, read_cell, swept
from plaudit.stages.preference_data import read_candidates
from plaudit.storage import read_json

TITLES = {
    "baseline": "Baseline",
    "sft": "SFT",
    "expert_iteration": "Expert iteration",
    "cross_load": "Cross-load",
    "crpo": "CRPO",
    "nft": "NFT",
    "finished": "Post-processed",
}

CURVES = ("loss", "preference_loss", "winner_flow_loss", "implicit_accuracy")


def write_page(context: RunFiles, folder: Path, shown: list[str], swept: list[str], made: Sequence[str]) -> None:
    """Write the report of a run whose other steps, those in `made`, are done."""
    recipe = context.recipe
    scores = {stage: StageScores.load(context.path(f"scores-{stage}")) for stage in shown}
    stages = [_stage_result(context, stage, scores[stage]) for stage in shown]
    data = ReportData(
        run=_run_facts(context, made),
        stages=stages,
        corpus=_corpus_facts(context),
        reward=_reward_quality(context) if recipe.reward.kind == "train" else None,
        curves=_curves(context, shown),
        sweeps=[_sweep(context, stage) for stage in swept],
        samples=_samples(context, shown, len(stages[0].scores)),
        choice=_choice(context),
        utility_name="true utility",
        coverage_scale=_coverage_scale(context.source),
    )
    write_report(data, folder)


def _stage_result(context: RunFiles, stage: str, scores: StageScores) -> StageResult:
    model = None  # of the finished clips, which are the last stage's
    if stage != "finished":
        model = context.path("sft" if stage == "baseline" else stage).resolve()
    options = ("--set", "sampling.score=null") if stage == "baseline" else ()
    note, clips = _note(context, stage), context.path(f"clips-{stage}")
    return StageResult(stage, TITLES[stage], scores, note, clips, model, options)


def _note(context: RunFiles, stage: str) -> str:
    sampling = context.recipe.sampling
    if stage == "baseline":
        return f"the SFT model asked for no score, guidance {sampling.guidance.weight:g}"
    if stage == "finished":
        return "the last stage's clips after loudness and true-peak control"
    injection = read_model_config(context.path(stage)).backbone.injection
    return f"{injection}, score {sampling.score}, guidance {sampling.guidance.weight:g}"


def _run_facts(context: RunFiles, made: Sequence[str]) -> RunFacts:
    """What the steps recorded when they were made, whoever writes the report and whenever."""
    steps = {name: context.run.finished(name) for name in made}
    environments = [step.environment for step in steps.values()]
    ended = datetime.datetime.fromisoformat(max(step.ended for step in steps.values()))
    return RunFacts(
        name=context.recipe.name,
        recipe=context.recipe.to_yaml(),
        finished=ended.strftime("%Y-%m-%d %H:%M UTC"),
        seconds=sum(step.seconds for step in steps.values()),
        description=context.source.description,
        peak_memory=max(one["peak_memory"] for one in environments),
        machine=_joined([one["machine"] for one in environments]),
        versions=_joined([one["versions"] for one in environments]),
        step_seconds={name: step.seconds for name, step in steps.items()},
        folder=str(context.run.folder.resolve()),
    )


def _joined(facts: Sequence[dict[str, str]]) -> dict[str, str]:
    """Facts of several steps as one: values that differ stand beside each other."""
    names = dict.fromkeys(name for one in facts for name in one)
    return {name: "; ".join(dict.fromkeys(one[name] for one in facts if name in one)) for name in names}


def _corpus_facts(context: RunFiles) -> CorpusFacts:
    settings, found = context.recipe.corpus, context.shards
    quarantine = found.folder / "quarantine.jsonl"
    lines = quarantine.read_text(encoding="utf-8").split("\n") if quarantine.exists() else []
    reasons = [json.loads(line)["reason"] for line in lines if line]
    source = context.source
    flaws = source.flaws(context.path("corpus"))
    return CorpusFacts(source.label, dict(Counter(found.splits)), settings.seconds, dict(Counter(reasons)), flaws)


def _reward_quality(context: RunFiles) -> RewardQuality:
    facts: dict[str, Any] = read_json(context.path("reward") / "config.json")
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


def _curves(context: RunFiles, shown: list[str]) -> list[Curve]:
    curves = []
    for stage in shown:
        if stage not in ("baseline", "finished"):
            for metrics in sorted(context.path(stage).rglob("metrics.jsonl")):
                inner = metrics.parent.relative_to(context.path(stage)).parts
                curves += read_curves(metrics, " ".join((TITLES[stage], *inner)), CURVES)
    return curves


def _sweep(context: RunFiles, stage: str) -> Sweep:
    asked = list(context.recipe.evaluate.sweep_scores)
    folder = context.path(f"sweep-{stage}")
    return swept(TITLES[stage], asked, [read_cell(folder / cell_name(score)) for score in asked])


def _choice(context: RunFiles) -> BestOfN | None:
    """The candidates of preference tuning, which are several per caption, as a choice by reward; CLAP looks on."""
    settings = context.recipe.stages.pairs
    made = [] if settings is None else read_candidates(context.path("pairs"))
    if settings is None or not made or settings.captions < 2:
        return None
    grid = (settings.captions, settings.candidates)
    rows = {name: np.array([getattr(one, name) for one in made]).reshape(grid) for name in ("reward", "clap")}
    return BestOfN("the candidates of preference tuning", rows["reward"], {"clap": rows["clap"]})


def _coverage_scale(source: CorpusSource) -> tuple[float, float] | None:
    """The detector's concept coverage of right clips, and of other prompts' clips, where that was measured."""
    detector = source.detector()
    rates = None if detector is None else rates_of(detector, load_vocabulary(VOCABULARY), load_rates(RATES))
    return None if rates is None else (rates.right.mean, rates.other.mean)


def _samples(context: RunFiles, shown: list[str], count: int) -> list[Sample]:
    """Clips to listen to: the first prompts, which were drawn at random."""
    rows = range(min(context.recipe.evaluate.audio_players, count))
    truths = held_out(context, context.recipe.evaluate.prompts).truths
    return [
        Sample(
            row,
            {stage: context.path(f"clips-{stage}") / f"{row:04d}.wav" for stage in shown},
            {} if truths is None else truths[row].describe(),
        )
        for row in rows
    ]
