"""Speed of the composer and the synthesizer of the synthetic world."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from plaudit.synthetic.composer import compose
from plaudit.synthetic.synth import render


def main(clips: Annotated[int, typer.Argument(min=1)] = 200, seconds: float = 10.0) -> None:
    """Seconds of music composed and rendered per second of processor time on one core, after a warm-up."""
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
    typer.run(main)
