"""Expert iteration: the model samples clips, and is trained on those that rank highest."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import model_validator

from plaudit.generate.model import TextToMusic
from plaudit.generate.settings import Guidance
from plaudit.settings import Count, Score, Seed
from plaudit.stages import Costs, Stage, StageSettings, StepCost
from plaudit.stages.inputs import StageInputs
from plaudit.stages.sft import FlowTrainSettings, SftObjective
from plaudit.storage import write_json
from plaudit.tables import read_prompts
from plaudit.training.data import Source, TrainingSet


class ExpertIterationSettings(StageSettings):
    """Rank `candidates` clips of the model, keep the best `keep`, train on corpus and kept clips (`train`), then on the
    kept alone (`fine_tune`). With several `rounds`, each starts from the model of the last.

    candidates_per_prompt: clips of each prompt, of which only the best can be kept; with 1, as published, prompts whose
    clips score high are kept more often. criterion: what ranks them, the reward, the CLAP score, or z(reward) + z(CLAP)
    (blend). reward_prompt: what the reward is given with a clip, its caption or an empty prompt. prompt_file: a file
    whose prompts are sampled in turn; by default captions of the training split. include_corpus: false trains on the
    kept clips alone in both passes. score: the candidates' conditioning score; null samples and trains without one.
    guidance: the candidates'; null is the recipe's. Clips sampled under guidance are sharper than the model's own
    distribution, and a model trained on them is guided once more when it is sampled.
    """

    candidates: Count = 630
    candidates_per_prompt: Count = 1
    keep: Count = 64
    oversample: Count = 5
    rounds: Count = 1
    criterion: Literal["blend", "reward", "clap"] = "blend"
    reward_prompt: Literal["caption", "empty"] = "caption"
    prompt_file: Path | None = None
    include_corpus: bool = True
    score: Score | None = 1.5
    guidance: Guidance | None = None
    seed: Seed = 1000
    train: FlowTrainSettings
    fine_tune: FlowTrainSettings | None = None

    @model_validator(mode="after")
    def _keep_at_most_one_per_prompt(self) -> ExpertIterationSettings:
        if self.candidates % self.candidates_per_prompt:
            raise ValueError(
                f"candidates ({self.candidates}) must be a multiple of candidates_per_prompt"
                f" ({self.candidates_per_prompt})"
            )
        if self.keep > self.prompts:
            most = "candidates" if self.candidates_per_prompt == 1 else "candidates / candidates_per_prompt"
            raise ValueError(f"keep ({self.keep}) must not exceed {most} ({self.prompts})")
        return self

    @property
    def prompts(self) -> int:
        """The number of prompts in a round."""
        return self.candidates // self.candidates_per_prompt


def keep_best(
    rewards: np.ndarray, clap_scores: np.ndarray, keep: int, criterion: str = "blend", per_prompt: int = 1
) -> np.ndarray:
    """Positions of the `keep` candidates that rank highest, best first.

    rewards, clap_scores: [n], the `per_prompt` candidates of a prompt one after the other; only the best of them is
    kept. criterion: "reward", "clap", or "blend", their equal-weight sum of z-scores, in which one that doesn't vary
    has no effect. Ties keep the earlier candidate.
    """
    blend = standard_scores(rewards) + standard_scores(clap_scores)
    ranked_by = {"reward": rewards, "clap": clap_scores, "blend": blend}[criterion]
    first = np.arange(0, len(ranked_by), per_prompt)
    winners = first + ranked_by.reshape(-1, per_prompt).argmax(1)
    return winners[np.argsort(-ranked_by[winners], kind="stable")][:keep]


def round_facts(rewards: np.ndarray, kept: list[int], corpus: np.ndarray) -> dict[str, float | int]:
    """How a round's candidates compare with the corpus. rewards: [n] of the candidates; kept: positions among them.

    corpus_top_decile: the reward that a tenth of the training clips exceed; above_top_decile: the fraction of
    candidates that do.
    """
    top = float(np.quantile(corpus, 0.9))
    return {
        "candidates": len(rewards),
        "kept": len(kept),
        "reward_mean": float(rewards.mean()),
        "reward_kept": float(rewards[kept].mean()),
        "corpus_mean": float(corpus.mean()),
        "corpus_top_decile": top,
        "above_top_decile": float((rewards > top).mean()),
    }


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
            sampling=costs.sampling(sampled, settings.guidance),
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
    captions = _captions(settings, inputs, seed)
    reward_prompts = None if settings.reward_prompt == "caption" else [""] * len(captions)
    candidates = inputs.candidates(
        model, captions, seed, settings.score, folder / "candidates", reward_prompts, settings.guidance
    )
    best = keep_best(
        candidates.reward, candidates.clap, settings.keep, settings.criterion, settings.candidates_per_prompt
    ).tolist()
    rows = [
        {"clip": candidates.paths[i].name, "reward": candidates.reward[i], "clap": candidates.clap[i]} for i in best
    ]
    write_json(folder / "kept.json", rows)
    write_json(folder / "facts.json", round_facts(candidates.reward, best, inputs.corpus().scores))
    shards = inputs.encode({f"{i:05d}": (captions[i], candidates.paths[i]) for i in best}, folder / "kept")
    row_of = {int(id): row for row, id in enumerate(shards.ids)}
    usable = [i for i in best if i in row_of]
    conditions = candidates.reward[usable] if settings.score is not None else np.full(len(usable), np.nan)
    return Source(shards, np.array([row_of[i] for i in usable]), conditions)


def _captions(settings: ExpertIterationSettings, inputs: StageInputs, seed: int) -> list[str]:
    """One caption for each candidate: of the training split, or the prompts of the file again and again."""
    if settings.prompt_file is None:
        prompts = inputs.captions(settings.prompts, seed)
    else:
        prompts = list(islice(cycle(read_prompts(settings.prompt_file)), settings.prompts))
    return [prompt for prompt in prompts for _ in range(settings.candidates_per_prompt)]


def _train(
    inputs: StageInputs, model: TextToMusic, sources: list[Source], settings: FlowTrainSettings, folder: Path
) -> None:
    """One pass of flow matching, in place, whose model is saved in `folder`; loaded from there if it is finished."""
    if not inputs.load_finished(model, folder):
        objective = SftObjective(model.backbone, TrainingSet(sources, settings.seed), settings)
        inputs.train(model, objective, settings, folder)
        inputs.save(model, folder)
