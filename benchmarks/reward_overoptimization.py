"""Over-optimization of a reward by best of N against true utility."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from matplotlib.axes import Axes
from numpy.typing import NDArray

from benchmarks.synthetic_world import CORPUS_SEED, World, few_votes_batch, measure_corpus, synthetic_features
from plaudit import loading
from plaudit.evaluate.overoptimization import Divergence, best_of_n, find_divergence
from plaudit.evaluate.pages.charts import Series, lines, save_chart
from plaudit.evaluate.pages.html import LIGHT
from plaudit.evaluate.pages.text import divergence_sentence, span
from plaudit.reward.training import SYNTHETIC_REWARD, fit_reward
from plaudit.reward.tunejury import TuneJury
from plaudit.statistics import Interval, bootstrap_mean
from plaudit.storage import load_tensors, save_tensors, write_json
from plaudit.synthetic.corpus import SyntheticClip, SyntheticCorpus
from plaudit.synthetic.listeners import sample_vote_pairs, utility
from plaudit.synthetic.probes import load_probes, measure

Array = NDArray[np.float64]


@dataclass(frozen=True)
class BestOf:
    """Gains of the best of n by reward over a random clip, with intervals over prompts.

    reward, utility: of the chosen clip. possible: utility of the best clip by true utility.
    """

    n: int
    reward: Interval
    utility: Interval
    possible: Interval


def best_of(reward: Array, truth: Array, counts: Sequence[int], seed: int = 0) -> list[BestOf]:
    """Gains of the best of n for each n of counts; reward, truth: [prompts, M] of M candidates each."""
    chosen = (
        best_of_n(reward, reward, counts) - reward.mean(1),
        best_of_n(reward, truth, counts) - truth.mean(1),
        best_of_n(truth, truth, counts) - truth.mean(1),
    )  # [counts, prompts] each
    return [
        BestOf(n, *(bootstrap_mean(gain, seed) for gain in gains))
        for n, *gains in zip(counts, *chosen, strict=True)
    ]


def among_corpus(world: World, jury: TuneJury, clips: list[SyntheticClip], candidates: int) -> tuple[Array, Array]:
    """Rewards and utilities [clips, candidates] of random clips for each caption."""
    random = np.random.default_rng(64)
    row = {clip.id: index for index, clip in enumerate(world.corpus.clips)}
    features = world.store.rows([clip.id for clip in world.corpus.clips])
    columns = jury.features.columns_of(world.store.features)
    rewards, truths = [], []
    for clip in clips:
        drawn = random.choice(len(clips), size=candidates, replace=False)
        rows = torch.tensor([row[clips[index].id] for index in drawn])
        with torch.inference_mode():
            reward = jury.score_features(features[rows][:, columns], [clip.caption] * candidates)
        truth = utility(world.measured.rows(rows), [clip.caption_truth] * candidates)
        rewards.append(reward.double().numpy())
        truths.append(truth.double().numpy())
    return np.stack(rewards), np.stack(truths)


def among_generated(
    model: str, jury: TuneJury, clips: list[SyntheticClip], candidates: int, folder: Path
) -> tuple[Array, Array]:
    """The same of clips that a model generates for each caption; `folder` keeps the scores of finished prompts."""
    music, probes = loading.load(model, "cpu"), load_probes()
    rewards, truths = [], []
    for number, clip in enumerate(clips):
        path = folder / f"{clip.id}-{candidates}.safetensors"
        if not path.exists():
            seeds = [number * candidates + index for index in range(candidates)]
            waves = music.generate([clip.caption] * candidates, seeds, music.config.sampling)
            reward = jury.score(list(waves), music.codec.sample_rate, [clip.caption] * candidates)
            truth = utility(measure(probes, waves), [clip.caption_truth] * candidates)
            save_tensors(path, {"reward": reward, "utility": truth})
            print(f"prompts {number + 1}/{len(clips)}", flush=True)
        scores = load_tensors(path)
        rewards.append(scores["reward"].double().numpy())
        truths.append(scores["utility"].double().numpy())
    return np.stack(rewards), np.stack(truths)


def reward_of_few_votes(world: World, clips: list[SyntheticClip], votes: int, seed: int = 0) -> TuneJury:
    """A reward trained on only `votes` votes, which is easier to exploit."""
    parts = []
    for group, count in (("train", votes), ("stop", max(20, votes // 10)), ("test", 200)):
        parts.append(world.votes(sample_vote_pairs(clips, count, seed, group=group), seed))
    settings = replace(SYNTHETIC_REWARD, batch_size=few_votes_batch(SYNTHETIC_REWARD.batch_size, votes))
    return fit_reward(*parts, world.store, settings).reward


def draw(points: list[BestOf], divergence: Divergence | None, path: Path) -> None:
    """Gains by N in reward, true utility, and possible utility, with a line at the divergence."""
    x = [float(one.n) for one in points]
    series = [
        Series("possible", 0, x, [one.possible for one in points]),
        Series("reward", 1, x, [one.reward for one in points]),
        Series("true utility", 2, x, [one.utility for one in points]),
    ]

    def gains(axes: Axes) -> None:
        axes.set_xscale("log", base=2)
        lines(series, "best of N")(axes)
        axes.set_ylabel("gain over a random clip")
        axes.set_xticks(x, [str(one.n) for one in points])
        axes.minorticks_off()
        if divergence is not None:
            axes.axvline(x[divergence.place], color=LIGHT.ink, linewidth=1.0, linestyle=(0, (4, 3)))

    save_chart(gains, path)


def main(
    output: Annotated[Path, typer.Option("-o", "--output")] = Path("out/reward-studies"),
    clips: Annotated[int, typer.Option(help="A fifth of them is held out; as in the learning curve.")] = 1500,
    candidates: int = 64,
    few_votes: Annotated[int, typer.Option(help="Training votes of the reward compared with the shipped one.")] = 300,
    model: Annotated[str | None, typer.Option(help="Choose among clips of this model, not of the corpus.")] = None,
    prompts: Annotated[int, typer.Option(help="Prompts of the model.")] = 24,
) -> None:
    """Choose the best of N by reward, and write gains in reward and in true utility as best-of-n-NAME.json and .svg.

    Rewards and true utilities are both log-odds of being preferred, so their gains compare: the part of the reward's
    gain that the utility lacks is exploited error.
    """
    corpus = SyntheticCorpus(clips, 10.0, CORPUS_SEED)
    held_out = corpus.clips[clips * 4 // 5 :]
    shipped = loading.load_reward("synthetic")
    if model:
        scores = {"model": among_generated(model, shipped, held_out[:prompts], candidates, output / "generated")}
    else:
        world = measure_corpus(corpus, synthetic_features(), output)
        few = reward_of_few_votes(world, corpus.clips[: clips * 4 // 5], few_votes)
        juries = {"corpus": shipped, f"corpus-{few_votes}-votes": few}
        scores = {name: among_corpus(world, jury, held_out, candidates) for name, jury in juries.items()}
    counts = [2**power for power in range(candidates.bit_length()) if 2**power <= candidates]
    for name, (reward, truth) in scores.items():
        points = best_of(reward, truth, counts)
        divergence = find_divergence("utility", best_of_n(reward, reward, counts), best_of_n(reward, truth, counts))
        facts = {"points": [asdict(one) for one in points], "divergence": divergence and asdict(divergence)}
        write_json(output / f"best-of-n-{name}.json", facts)
        draw(points, divergence, output / f"best-of-n-{name}.svg")
        for one in points:
            print(name, one.n, *(f"{g.mean:.3f} {span(g)}" for g in (one.reward, one.utility, one.possible)))
        print(divergence_sentence(divergence, [f"N = {n}" for n in counts], "true utility"))


if __name__ == "__main__":
    typer.run(main)
