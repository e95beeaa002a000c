"""What optimizing noise for the reward is worth in the synthetic world: `python benchmarks/noise_optimization.py 32`.

For the same held-out prompts and seeds: plain clips, optimized ones (the best iteration of each), and the best of as
many plain clips as there were iterations. Prints reward and true utility over the plain clips with 95 % intervals, and
seconds per clip, all in one run.
"""

from __future__ import annotations

import sys
import time

import torch
from torch import Tensor

from plaudit import loading
from plaudit.corpus.sources import synthetic_source
from plaudit.generate.optimize import Optimizer, optimize_noise
from plaudit.generate.settings import NoiseOptimization
from plaudit.statistics import paired_difference
from plaudit.synthetic.listeners import utility
from plaudit.synthetic.probes import load_probes, measure

BATCH = 4


def main(prompts: int, iterations: int = 5, steps: int = 8) -> None:
    """Makes the clips of all four ways and prints the table."""
    music, reward, probes = loading.load("synthetic"), loading.load_reward("synthetic"), load_probes()
    found = synthetic_source(music.config.seconds).held_out(prompts)
    captions, truths = found.prompts, found.truths
    settings = music.config.sampling.changed(steps=steps, precision="no")
    optimizer = Optimizer("synthetic", reward, NoiseOptimization(iterations=iterations))
    made: dict[str, list[Tensor]] = {"plain": [], "optimized": [], f"best of {iterations + 1}": []}
    seconds = dict.fromkeys(made, 0.0)
    for start in range(0, prompts, BATCH):
        rows = range(start, min(start + BATCH, prompts))
        told = [captions[i] for i in rows]
        began = time.perf_counter()
        several = torch.stack(
            [music.generate(told, [i + 10_000 * n for i in rows], settings) for n in range(iterations + 1)]
        )  # [N, B, T]
        scores = torch.stack([reward.score(list(waves), music.codec.sample_rate, told) for waves in several])
        took = time.perf_counter() - began
        seconds["plain"] += took / (iterations + 1)
        seconds[f"best of {iterations + 1}"] += took
        made["plain"].append(several[0])
        made[f"best of {iterations + 1}"].append(several[scores.argmax(0), torch.arange(len(told))])
        began = time.perf_counter()
        made["optimized"].append(optimize_noise(music, told, list(rows), settings, optimizer).waves)
        seconds["optimized"] += time.perf_counter() - began
        print(f"{rows.stop}/{prompts}", file=sys.stderr, flush=True)
    waves = {way: torch.cat(parts) for way, parts in made.items()}
    rewards = {w: reward.score(list(x), music.codec.sample_rate, captions).numpy() for w, x in waves.items()}
    truly = {w: utility(measure(probes, x), truths).numpy() for w, x in waves.items()}
    print(f"{prompts} prompts, {steps} steps, {iterations} iterations at {optimizer.settings.learning_rate}")
    for way in waves:
        gains = [paired_difference(found[way], found["plain"]).difference for found in (rewards, truly)]
        told_gains = [f"{g.mean:+.3f} [{g.low:+.3f}, {g.high:+.3f}]" for g in gains]
        cost = seconds[way] / prompts
        print(f"{way:12} {cost:6.2f} s a clip, reward {told_gains[0]}, true utility {told_gains[1]}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 32)
