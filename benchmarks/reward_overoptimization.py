"""How far a reward and the truth part when the reward does the choosing: best of N, N up to 64.

`python -m benchmarks.reward_overoptimization` chooses among corpus clips, with `--model synthetic` among clips of the
shipped model; it writes best-of-n-<what>.json and .svg. Rewards and true utilities are both log-odds of being
preferred, so their gains can be compared: what the utility lacks of the reward's gain is exploited error.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

from benchmarks.synthetic_world import CORPUS_SEED, World, few_votes_batch, heard, synthetic_features
from plaudit import loading
from plaudit.evaluate.overoptimization import Divergence, best_of_n, find_divergence
from plaudit.evaluate.pages.charts import Series, lines, save_chart
from plaudit.evaluate.pages.html import LIGHT
from plaudit.evaluate.pages.text import divergence_sentence
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
    """Choosing the best of n, as gains over choosing at random; intervals over prompts.

    reward: of the chosen clip. utility: its true utility. possible: the utility if the truth itself chose.
    """

    n: int
    reward: Interval
    utility: Interval
    possible: Interval


def best_of(reward: Array, truth: Array, counts: Sequence[int], seed: int = 0) -> list[BestOf]:
    """reward, truth [prompts, M] of M candidates each -> what best of n gains, for each n of counts (at most M)."""
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
    """Rewards and utilities [clips, candidates]: each clip's caption, answered by as many random others of `clips`."""
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
    """The same for clips that a model makes of each caption; `folder` keeps the scores of the prompts that are done."""
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
    """A reward that has seen only `votes` votes on `clips`: what exploiting looks like early on."""
    parts = []
    for group, count in (("train", votes), ("stop", max(20, votes // 10)), ("test", 200)):
        parts.append(world.votes(sample_vote_pairs(clips, count, seed, group=group), seed))
    settings = replace(SYNTHETIC_REWARD, batch_size=few_votes_batch(SYNTHETIC_REWARD.batch_size, votes))
    return fit_reward(*parts, world.store, settings).reward


def draw(found: list[BestOf], divergence: Divergence | None, path: Path) -> None:
    """Gains against N: what the reward says, what is true, and what was possible; a line where the first two part."""
    x = [float(one.n) for one in found]
    series = [
        Series("possible", 0, x, [one.possible for one in found]),
        Series("reward", 1, x, [one.reward for one in found]),
        Series("true utility", 2, x, [one.utility for one in found]),
    ]

    def gains(axes: Axes) -> None:
        axes.set_xscale("log", base=2)
        lines(series, "best of N")(axes)
        axes.set_ylabel("gain over a random clip")
        axes.set_xticks(x, [str(one.n) for one in found])
        axes.minorticks_off()
        if divergence is not None:
            axes.axvline(x[divergence.place], color=LIGHT.ink, linewidth=1.0, linestyle=(0, (4, 3)))

    save_chart(gains, path)


def main() -> None:
    """Run at the size asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/reward-studies"))
    parser.add_argument("--clips", type=int, default=1500, help="a fifth of them is held out; as the learning curve's")
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--few-votes", type=int, default=300, help="of the reward beside the shipped one")
    parser.add_argument("--model", help="choose among this model's clips, not the corpus's")
    parser.add_argument("--prompts", type=int, default=24, help="of a model")
    asked = parser.parse_args()
    corpus = SyntheticCorpus(asked.clips, 10.0, CORPUS_SEED)
    held_out = corpus.clips[asked.clips * 4 // 5 :]
    shipped = loading.load_reward("synthetic")
    if asked.model:
        folder = asked.output / "generated"
        scores = {"model": among_generated(asked.model, shipped, held_out[: asked.prompts], asked.candidates, folder)}
    else:
        world = heard(corpus, synthetic_features(), asked.output)
        few = reward_of_few_votes(world, corpus.clips[: asked.clips * 4 // 5], asked.few_votes)
        juries = {"corpus": shipped, f"corpus-{asked.few_votes}-votes": few}
        scores = {name: among_corpus(world, jury, held_out, asked.candidates) for name, jury in juries.items()}
    counts = [2**power for power in range(asked.candidates.bit_length()) if 2**power <= asked.candidates]
    for name, (reward, truth) in scores.items():
        found = best_of(reward, truth, counts)
        divergence = find_divergence("utility", best_of_n(reward, reward, counts), best_of_n(reward, truth, counts))
        told_parting = None if divergence is None else asdict(divergence)
        points = [asdict(one) for one in found]
        write_json(asked.output / f"best-of-n-{name}.json", {"points": points, "parting": told_parting})
        draw(found, divergence, asked.output / f"best-of-n-{name}.svg")
        for one in found:
            told = (f"{g.mean:.3f} [{g.low:.3f}, {g.high:.3f}]" for g in (one.reward, one.utility, one.possible))
            print(name, one.n, *told)
        print(divergence_sentence(divergence, [f"N = {n}" for n in counts], "true utility"))


if __name__ == "__main__":
    main()
