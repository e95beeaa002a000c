"""A run of SFT and expert iteration at a small size, for benchmarks that repeat its training."""

from __future__ import annotations

from pathlib import Path

from plaudit.cli.console import ConsoleReporter
from plaudit.pipeline.steps import run_recipe
from plaudit.recipe import load_recipe


def small_run(folder: Path, seconds: int, candidates: int) -> Path:
    """The folder of a run that kept two of `candidates` clips."""
    train = "train: {steps: 4, learning_rate: 1e-2, batch: 4}"
    recipe = load_recipe(
        "smoke",
        ["precision=no", "corpus.size=40", f"corpus.seconds={seconds}", "reward.kind=load", "sampling.steps=2",
         f"stages=[{{kind: sft, {train}}}, {{kind: expert_iteration, candidates: {candidates}, keep: 2, {train}}}]"],
    )  # fmt: skip
    run_recipe(recipe, folder, ConsoleReporter(), only="expert_iteration")
    return folder
