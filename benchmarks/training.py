"""Training on the CPU: the package's loop in turns with a plain reference, and its share of the processor's peak."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from benchmarks.reference_training import ReferenceFluxAudio, reference_updates
from plaudit.backbone.base import FORWARD_AND_BACKWARD, initialize
from plaudit.backbone.config import PRESETS, FluxAudioConfig
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.machine import environment_of, matrix_peak
from plaudit.stages.sft import FlowTrainSettings, SftObjective
from plaudit.training import gradients, loop
from plaudit.training.data import EVERYTHING, Batch, generator_for
from plaudit.training.distributed import accelerator_for
from plaudit.training.settings import LoopSettings
from plaudit.types import Posterior, TextFeatures
from plaudit.workers import thread_count

FRAMES, BATCH = 78, 32
SETTLING = 3
"""Updates after every start that are not counted: memory is allocated, code is compiled."""


class RandomClips:
    """Batches like those of a shard set: smooth random latents and random text."""

    def __init__(self, config: FluxAudioConfig, frames: int, clips: int = 64) -> None:
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        times = torch.linspace(0, 6, frames)[:, None] * torch.arange(1, 9)
        mean = normal(clips, 1, 8) * times.sin() @ normal(8, config.latent_dim) / 2
        self.clips = Batch(
            Posterior(mean.half(), torch.full_like(mean, 0.1).half()),
            TextFeatures(
                normal(clips, config.text_length, config.text_dim).half(), normal(clips, config.text_c_dim).half()
            ),
            normal(clips),
        )

    def batch(self, index: int, size: int, part: slice = EVERYTHING) -> Batch:
        """The clips at `part` of batch `index`."""
        rows = torch.randint(len(self.clips.scores), (size,), generator=generator_for(1, index))[part]
        clips = self.clips
        return Batch(
            Posterior(clips.posterior.mean[rows], clips.posterior.std[rows]), clips.text.rows(rows), clips.scores[rows]
        )


class TurnOver(Exception):
    """The updates of a turn are made; training goes on from its checkpoint in the next one."""


@dataclass
class Timings:
    """Seconds of whole updates and of their forward and backward passes."""

    updates: list[float] = field(default_factory=list)
    passes: list[float] = field(default_factory=list)


@contextmanager
def timed_passes(seconds: list[float]) -> Iterator[None]:
    """While the block lasts, the loop's forward and backward passes are timed. What joins the gradients of several
    threads is not part of them."""
    compute, join = loop.compute_gradients, gradients.join_gradients
    joining = 0.0

    def timed(*arguments: Any) -> Any:
        nonlocal joining
        began, joining = time.perf_counter(), 0.0
        result = compute(*arguments)
        seconds.append(time.perf_counter() - began - joining)
        return result

    def timed_join(*arguments: Any) -> Any:
        nonlocal joining
        began = time.perf_counter()
        result = join(*arguments)
        joining += time.perf_counter() - began
        return result

    loop.compute_gradients, gradients.join_gradients = timed, timed_join
    try:
        yield
    finally:
        loop.compute_gradients, gradients.join_gradients = compute, join


@dataclass
class Training:
    """One network and its data, trained by the package's loop in turns; `turn` continues where the last one ended."""

    config: FluxAudioConfig
    settings: FlowTrainSettings
    folder: Path
    execution: LoopSettings
    precision: str = "bf16"
    frames: int = FRAMES

    def __post_init__(self) -> None:
        self.network = FluxAudio(self.config)
        initialize(self.network, 0)
        with torch.no_grad():  # layers that start at zero would leave the others without a gradient
            for name, parameter in self.network.named_parameters():
                if not parameter.any():
                    parameter.normal_(std=0.02, generator=torch.Generator().manual_seed(len(name)))
        self.objective = SftObjective(self.network, RandomClips(self.config, self.frames), self.settings)  # type: ignore[arg-type]
        self.timings, self.done = Timings(), 0

    def turn(self, updates: int) -> float:
        """Make so many updates; the median seconds of one of them."""
        begun, last = self.done, time.perf_counter()

        def progress(done: int, total: int) -> None:
            nonlocal last
            now = time.perf_counter()
            if done - begun > SETTLING:
                self.timings.updates.append(now - last)
                self.timings.passes.append(passes[-1])
            self.done, last = done, time.perf_counter()
            if done == begun + updates and done < total:
                raise TurnOver

        passes: list[float] = []
        before = len(self.timings.updates)
        with suppress(TurnOver), timed_passes(passes):
            loop.train(
                self.network, self.objective, self.settings, self.folder, accelerator_for(self.precision),
                progress, self.execution,
            )  # fmt: skip
        return statistics.median(self.timings.updates[before:])

    @property
    def losses(self) -> list[float]:
        """Means of ten updates each."""
        rows = (self.folder / loop.METRICS_FILE).read_text().splitlines()
        return [json.loads(row)["loss"] for row in rows]

    @property
    def flops(self) -> int:
        """Operations of one update."""
        return FORWARD_AND_BACKWARD * self.network.forward_flops(self.frames) * self.settings.batch

    def share(self, peak: float) -> float:
        """Operations a second of the median update over the peak."""
        return self.flops / statistics.median(self.timings.updates) / peak


def training(
    config: FluxAudioConfig, steps: int, batch: int, turn: int, folder: Path, compiled: bool, frames: int = FRAMES
) -> Training:
    """Training of a network of this size, from which a turn of `turn` updates can be continued."""
    settings = FlowTrainSettings(steps=steps, learning_rate=3e-4, batch=batch, checkpoint_every=turn)
    execution = LoopSettings(compile=compiled)
    return Training(replace(config, injection="global_adaln"), settings, folder, execution, frames=frames)


class Reference:
    """The same training by the plain loop, with PyTorch's threads."""

    def __init__(self, like: Training) -> None:
        self.network: nn.Module = ReferenceFluxAudio(like.config)
        ours = like.network.state_dict()
        self.network.load_state_dict({name: ours[name] for name in self.network.state_dict()})
        self.timings, self.losses = Timings(), list[float]()
        self._updates = reference_updates(self.network, like.objective, like.settings, like.precision == "bf16")

    def turn(self, updates: int) -> float:
        """Make so many updates; the median seconds of one of them."""
        before = len(self.timings.updates)
        for number in range(updates):
            began = time.perf_counter()
            self.losses.append(next(self._updates))
            if number >= SETTLING:
                self.timings.updates.append(time.perf_counter() - began)
        return statistics.median(self.timings.updates[before:])

    def close(self) -> None:
        """End its threads."""
        self._updates.close()


def tens(values: list[float]) -> list[float]:
    """Means of ten values each."""
    return [statistics.fmean(values[i : i + 10]) for i in range(0, len(values), 10)]


def compare(
    config: FluxAudioConfig, updates: int, turns: int, compiled: bool, peak: Callable[[], float], folder: Path
) -> dict[str, Any]:
    """The package's loop and the reference in turns, from the same weights on the same clips and noise."""
    each = max(10, updates // turns // 10 * 10)  # metrics are means of ten
    updates = turns * each
    ours = training(config, updates, BATCH, each, folder, compiled)
    reference = Reference(ours)
    for _ in range(turns):
        reference.turn(each)
        ours.turn(each)
    reference.close()
    differences = [abs(a / b - 1) for a, b in zip(ours.losses, tens(reference.losses), strict=True)]
    seconds, plain = (statistics.median(way.timings.updates) for way in (ours, reference))
    measured = peak()
    return {
        "times_reference": plain / seconds,
        "share_of_peak": ours.share(measured),
        "share_of_peak_of_reference": ours.flops / plain / measured,
        "outside_fraction": 1 - statistics.median(ours.timings.passes) / seconds,
        "loss_difference": max(differences),
        "losses": [ours.losses[0], ours.losses[-1]],
        "seconds_an_update": seconds,
        "seconds_an_update_of_reference": plain,
        "updates": updates,
    }


def share_of_size(
    config: FluxAudioConfig, frames: int, batch: int, updates: int, compiled: bool, peak: float, folder: Path
) -> dict[str, float]:
    """What a network of another size reaches."""
    one = training(config, updates + SETTLING, batch, 10**6, folder, compiled, frames)
    seconds = one.turn(updates + SETTLING)
    return {
        "batch": batch,
        "frames": frames,
        "seconds_an_update": seconds,
        "share_of_peak": one.share(peak),
        "outside_fraction": 1 - statistics.median(one.timings.passes) / seconds,
    }


def main(
    updates: Annotated[int, typer.Option(min=10)] = 200,
    turns: Annotated[int, typer.Option(min=1)] = 4,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the package's blocks.")] = False,
    sizes: Annotated[bool, typer.Option(help="Measure the base's size and FluxAudio-S, too.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Training on this CPU: the package's loop in turns with a plain one, in one process.

    Both train the synthetic network (batch 32, 78 frames, bfloat16) from the same weights on the same clips and noise.
    The plain one has PyTorch's own convolutions and attention, AdamW parameter by parameter, and PyTorch's threads
    (benchmarks/reference_training.py). Figures are medians of whole updates; the peak is that of a large bfloat16
    product; loss_difference is the largest between means of ten updates.
    """
    from tools.train_base import BACKBONE

    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        synthetic, peak_now = PRESETS["synthetic"], partial(matrix_peak, torch.bfloat16, device)
        results = compare(synthetic, updates, turns, compiled, peak_now, folder / "compared")
        if sizes:
            peak = peak_now()
            results["base"] = share_of_size(BACKBONE, FRAMES, BATCH, 8, compiled, peak, folder / "base")
            results["fluxaudio_s"] = share_of_size(
                PRESETS["fluxaudio-s-44k"], 430, 4, 3, compiled, peak, folder / "fluxaudio"
            )
            results["peak_tflops"] = peak / 1e12
    results |= {"compiled": compiled, "threads": thread_count(), **environment_of(device)}
    if as_json:
        print(json.dumps(results))
        return
    print(f"{results['times_reference']:.2f} times the reference, {results['share_of_peak']:.0%} of the peak")
    print(f"{results['outside_fraction']:.1%} of an update is outside forward and backward")
    print(f"losses differ by {results['loss_difference']:.2%} at most")
    for name in ("base", "fluxaudio_s"):
        if name in results:
            print(f"{name}: {results[name]['share_of_peak']:.0%} of the peak")


if __name__ == "__main__":
    typer.run(main)
