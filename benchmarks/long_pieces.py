"""Quality of long pieces compared with clips of the model's length."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from plaudit import loading
from plaudit.corpus.sources import synthetic_source
from plaudit.evaluate.embeddings import embed_waves
from plaudit.statistics import bootstrap_mean, paired_difference

WAYS = {
    "plain clips": {},
    "windows, half overlap": {"overlap": 0.5},
    "windows, quarter overlap": {"overlap": 0.25},
    "one pass": {"window": 1000.0},
}


def main(prompts: Annotated[int, typer.Argument(min=1)] = 24, times: Annotated[int, typer.Argument(min=1)] = 4) -> None:
    """Reward and CLAP score of ten-second excerpts of pieces TIMES as long as the model's clips, over plain clips.

    Pieces of the same held-out prompts and seeds are generated in windows that overlap by half or a quarter, and in one
    pass. Also printed are the cosine of CLAP embeddings of the first and last excerpt (for plain clips, of two clips of
    one prompt) and seconds of computing per second of music. Intervals are 95 %.
    """
    music, reward, clap = (
        loading.load("synthetic"),
        loading.load_reward("synthetic"),
        loading.load_part(loading.CLAPS, "synthetic", "auto"),
    )
    seconds, rate = music.config.seconds, music.codec.sample_rate
    captions = synthetic_source(seconds).held_out(prompts).prompts
    texts = clap.text(captions).detach().cpu().numpy()
    rewards, claps, seeds = {}, {}, list(range(prompts))
    for way, piece in WAYS.items():
        length = seconds * times if piece else seconds
        settings = music.config.sampling.changed(piece={**piece, "seconds": length})
        began = time.perf_counter()
        waves = music.generate(captions, seeds, settings)
        cost = (time.perf_counter() - began) / (prompts * length)
        samples = int(waves.shape[1] * seconds / length)
        excerpts = [part for wave in waves for part in wave.unfold(0, samples, samples)]
        of = [i for i in range(prompts) for _ in range(len(excerpts) // prompts)]
        rewards[way] = reward.score(excerpts, rate, [captions[i] for i in of]).view(prompts, -1).mean(1).numpy()
        embeddings = embed_waves(clap, excerpts, rate).reshape(prompts, -1, clap.dim)
        claps[way] = (embeddings @ texts[:, :, None])[..., 0].mean(1)
        last = embeddings[:, -1]
        if not piece:
            last = embed_waves(clap, list(music.generate(captions, [s + 1000 for s in seeds], settings)), rate)
        similarity = bootstrap_mean((embeddings[:, 0] * last).sum(1), 0)
        cells = []
        for values in (rewards, claps):
            gain = paired_difference(values[way], values["plain clips"]).difference
            cells.append(f"{values[way].mean():.3f} ({gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}])")
        cells.append(f"{similarity.mean:.3f} [{similarity.low:.3f}, {similarity.high:.3f}]")
        reward_cell, clap_cell, similarity_cell = cells
        line = f"{cost:.3f} s per second, reward {reward_cell}, CLAP {clap_cell}, similarity {similarity_cell}"
        print(f"{way:24} {line}", flush=True)


if __name__ == "__main__":
    typer.run(main)
