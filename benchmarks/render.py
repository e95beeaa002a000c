"""How fast the synthetic synth renders: `python benchmarks/render.py [clips]` prints its speed against real time."""

from __future__ import annotations

import sys
import time

from plaudit.synthetic.composer import compose
from plaudit.synthetic.synth import render


def main(clips: int, seconds: float = 10.0) -> None:
    """Composes and renders ``clips`` pieces on one core after a warm-up and prints how many seconds of music each
    step makes in a second of processor time."""
    for seed in range(20):
        render(compose(seed, seconds))
    start = time.process_time()
    pieces = [compose(1000 + seed, seconds) for seed in range(clips)]
    composed = time.process_time()
    for piece in pieces:
        render(piece)
    rendered = time.process_time()
    audio = clips * seconds
    print(f"compose {audio / (composed - start):8.0f} x real time")
    print(f"render  {audio / (rendered - composed):8.0f} x real time")
    print(f"both    {audio / (rendered - start):8.0f} x real time")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
