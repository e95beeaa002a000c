"""Gains of optimizing noise for the reward in the synthetic world."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import torch
import typer
from torch import Tensor

from plaudit import loading
from plaudit.corpus.sources import synthetic_source
from plaudit.generate.optimize import Optimizer, optimize_noise
from plaudit.generate.settings import NoiseOptimization
from plaudit.statistics import paired_difference
from plaudit.synthetic.listeners import utility
from plaudit.synthetic.probes import load_probes, measure

BATCH = 4


def main(prompts: Annotated[int, typer.Argument(min=1)] = 32, iterations: int = 5, steps: int = 8) -> None:
    """Reward and true utility over plain clips, with 95 % intervals, and seconds per clip.

    For the same held-out prompts and seeds: plain clips, optimized ones (the best iteration of each), and the best of
    as many plain clips as there were iterations.
    """
    music, reward, probes = loading.load("synthetic"), loading.load_reward("synthetic"), load_probes()
    held_out = synthetic_source(music.config.seconds).held_out(prompts)
    captions, truths = held_out.prompts, held_out.truths
    settings = music.config.sampling.changed(steps=steps, precision="no")
    optimizer = Optimizer("synthetic", reward, NoiseOptimization(iterations=iterations))
    clips: dict[str, list[Tensor]] = {"plain": [], "optimized": [], f"best of {iterations + 1}": []}
    seconds = dict.fromkeys(clips, 0.0)
    for start in range(0, prompts, BATCH):
        rows = range(start, min(start + BATCH, prompts))
        batch = [captions[i] for i in rows]
        began = time.perf_counter()
        several = torch.stack(
            [music.generate(batch, [i + 10_000 * n for i in rows], settings) for n in range(iterations + 1)]
        )  # [N, B, T]
        scores = torch.stack([reward.score(list(waves), music.codec.sample_rate, batch) for waves in several])
        took = time.perf_counter() - began
        seconds["plain"] += took / (iterations + 1)
        seconds[f"best of {iterations + 1}"] += took
        clips["plain"].append(several[0])
        clips[f"best of {iterations + 1}"].append(several[scores.argmax(0), torch.arange(len(batch))])
        began = time.perf_counter()
        clips["optimized"].append(optimize_noise(music, batch, list(rows), settings, optimizer).waves)
        seconds["optimized"] += time.perf_counter() - began
        print(f"{rows.stop}/{prompts}", file=sys.stderr, flush=True)
    waves = {way: torch.cat(parts) for way, parts in clips.items()}
    rewards = {w: reward.score(list(x), music.codec.sample_rate, captions).numpy() for w, x in waves.items()}
    utilities = {w: utility(measure(probes, x), truths).numpy() for w, x in waves.items()}
    print(f"{prompts} prompts, {steps} steps, {iterations} iterations at {optimizer.settings.learning_rate}")
    for way in waves:
        gains = [paired_difference(of[way], of["plain"]).difference for of in (rewards, utilities)]
        cells = [f"{g.mean:+.3f} [{g.low:+.3f}, {g.high:+.3f}]" for g in gains]
        cost = seconds[way] / prompts
        print(f"{way:12} {cost:6.2f} s a clip, reward {cells[0]}, true utility {cells[1]}")


if __name__ == "__main__":
    typer.run(main)
