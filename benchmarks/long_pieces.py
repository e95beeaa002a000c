"""What a long piece is worth beside clips of the model's own length: `python benchmarks/long_pieces.py 24 4`.

For 24 held-out prompts and the same seeds: plain clips, and pieces 4 times as long made in windows that share half or a
quarter of their length, or in one pass. Prints reward and CLAP score of ten-second excerpts over those of the plain
clips with 95 % intervals, the cosine of CLAP embeddings of a piece's first and last excerpt (of plain clips, of two of
one prompt), and seconds of computing per second of music, all in one run.
"""

from __future__ import annotations

import sys
import time

from plaudit import loading
from plaudit.corpus.sources import synthetic_source
from plaudit.evaluate.evaluator import embed_audio
from plaudit.statistics import bootstrap_mean, paired_difference

WAYS = {
    "plain clips": {},
    "windows, half shared": {"overlap": 0.5},
    "windows, quarter shared": {"overlap": 0.25},
    "one pass": {"window": 1000.0},
}


def main(prompts: int, times: int) -> None:
    """Makes the pieces of all ways and prints the table."""
    music, reward, clap = (
        loading.load("synthetic"),
        loading.load_reward("synthetic"),
        loading.CLAPS.load("synthetic"),
    )
    seconds, rate = music.config.seconds, music.codec.sample_rate
    captions = synthetic_source(seconds).held_out(prompts).prompts
    texts = clap.text(captions).detach().numpy()
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
        heard = embed_audio(clap, excerpts, rate).reshape(prompts, -1, clap.dim)
        claps[way] = (heard @ texts[:, :, None])[..., 0].mean(1)
        last = heard[:, -1]
        if not piece:
            last = embed_audio(clap, list(music.generate(captions, [s + 1000 for s in seeds], settings)), rate)
        likeness = bootstrap_mean((heard[:, 0] * last).sum(1), 0)
        told = []
        for found in (rewards, claps):
            gain = paired_difference(found[way], found["plain clips"]).difference
            told.append(f"{found[way].mean():.3f} ({gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}])")
        told.append(f"{likeness.mean:.3f} [{likeness.low:.3f}, {likeness.high:.3f}]")
        print(f"{way:24} {cost:.3f} s a second, reward {told[0]}, CLAP {told[1]}, likeness {told[2]}", flush=True)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:3] or (24, 4)))
