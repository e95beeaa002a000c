"""Expert iteration: the model samples clips, and is trained on those that rank highest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import model_validator

from plaudit.generate.model import TextToMusic
from plaudit.settings import Count, Score, Seed
from plaudit.stages import Costs, Stage, StageSettings, StepCost
from plaudit.stages.inputs import StageInputs
from plaudit.stages.sft import FlowTrainSettings, SftObjective
from plaudit.storage import write_json
from plaudit.training.data import Source, TrainingSet


class ExpertIterationSettings(StageSettings):
    """Rank `candidates` clips of the model by z(reward) + z(CLAP), keep the best `keep`, train on corpus and kept clips
    (`train`), then on the kept alone (`fine_tune`). With several `rounds`, each starts from the model of the last.

    include_corpus: false trains on the kept clips alone in both passes. score: the candidates' conditioning score.
    """

    candidates: Count = 630
    keep: Count = 64
    oversample: Count = 5
    rounds: Count = 1
    include_corpus: bool = True
    score: Score = 1.5
    seed: Seed = 1000
    train: FlowTrainSettings
    fine_tune: FlowTrainSettings | None = None

    @model_validator(mode="after")
    def _keep_at_most_candidates(self) -> ExpertIterationSettings:
        if self.keep > self.candidates:
            raise ValueError(f"keep ({self.keep}) must not exceed candidates ({self.candidates})")
        return self


def keep_best(rewards: np.ndarray, clap_scores: np.ndarray, keep: int) -> np.ndarray:
    """Positions of the `keep` candidates with the highest equal-weight sum of z-scores, best first.

    rewards, clap_scores: [n]. One that doesn't vary has no effect. Ties keep the earlier candidate.
    """
    total = standard_scores(rewards) + standard_scores(clap_scores)
    return np.argsort(-total, kind="stable")[:keep]


def standard_scores(values: np.ndarray) -> np.ndarray:
    """(values - mean) / standard deviation; zeros where they are all equal, but for rounding."""
    centred = values - values.mean()
    deviation = centred.std()
    return centred / deviation if deviation > 1e-12 * np.abs(values).max() else np.zeros_like(centred)


class ExpertIteration(Stage):
    """Rounds of sampling candidates, ranking them, and training on the best."""

    Settings = ExpertIterationSettings
    uses = ("corpus", "candidates", "training")

    def run(self, settings: ExpertIterationSettings, inputs: StageInputs, folder: Path) -> TextToMusic:
        """The model after all rounds, each in its folder."""
        model = inputs.model()
        for number in range(settings.rounds):
            round_folder = folder / f"round-{number + 1}"
            with inputs.processes.main_process_first():
                seed = settings.seed + number * settings.candidates
                best = keep_candidates(settings, inputs, model, round_folder, seed)
            oversampled = replace(best, weight=settings.oversample)
            sources = [inputs.corpus(), oversampled] if settings.include_corpus else [best]
            _train(inputs, model, sources, settings.train, round_folder / "mixed")
            if settings.fine_tune is not None:
                _train(inputs, model, [best], settings.fine_tune, round_folder / "fine_tune")
        return model

    def cost(self, settings: ExpertIterationSettings, costs: Costs) -> StepCost:
        """Candidates and both passes of every round."""
        rounds = settings.rounds
        sampled, kept = rounds * settings.candidates, rounds * settings.keep
        passes = [costs.training(one) for one in (settings.train, settings.fine_tune) if one is not None]
        updates = ", ".join(one.what for one in passes)
        return StepCost(
            f"{rounds} x ({settings.candidates:,} clips sampled, {settings.keep:,} kept, {updates})",
            training=rounds * sum(one.training for one in passes),
            sampling=costs.sampling(sampled),
            to_encode=kept,
            to_decode=sampled,
            to_embed=sampled,
            memory=max(one.memory for one in passes),
            clips=max(one.clips for one in passes),
        )


def keep_candidates(
    settings: ExpertIterationSettings, inputs: StageInputs, model: TextToMusic, folder: Path, seed: int
) -> Source:
    """Sample one round's candidates; the best of them as a training source, conditioned on their rewards."""
    captions = inputs.captions(settings.candidates, seed)
    candidates = inputs.candidates(model, captions, seed, settings.score, folder / "candidates")
    best = keep_best(candidates.reward, candidates.clap, settings.keep).tolist()
    rows = [
        {"clip": candidates.paths[i].name, "reward": candidates.reward[i], "clap": candidates.clap[i]} for i in best
    ]
    write_json(folder / "kept.json", rows)
    shards = inputs.encode({f"{i:05d}": (captions[i], candidates.paths[i]) for i in best}, folder / "kept")
    row_of = {int(id): row for row, id in enumerate(shards.ids)}
    usable = [i for i in best if i in row_of]
    return Source(shards, np.array([row_of[i] for i in usable]), candidates.reward[usable])


def _train(
    inputs: StageInputs, model: TextToMusic, sources: list[Source], settings: FlowTrainSettings, folder: Path
) -> None:
    """One pass of flow matching, in place, whose model is saved in `folder`; loaded from there if it is finished."""
    if not inputs.load_finished(model, folder):
        objective = SftObjective(model.backbone, TrainingSet(sources, settings.seed), settings)
        inputs.train(model, objective, settings, folder)
        inputs.save(model, folder)
