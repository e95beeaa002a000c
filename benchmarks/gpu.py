"""Throughput of one GPU with networks of the paper's sizes: `python -m benchmarks.gpu --json OUT.json`.

Sampling and training of FluxAudio-S at 44.1 kHz (eager, as CUDA graphs, compiled), the frozen encoders and the codec,
and the loader, all with random weights and nothing to download, relative to the measured peak of large matrix
products. Sections that compile come last. Each result is written to the JSON file at once, and the process ends with
its budget of seconds. `--tables OUT.json` prints the results as Markdown.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from accelerate import Accelerator

    from plaudit.backbone.base import Conditions
    from plaudit.backbone.config import BackboneConfig
    from plaudit.backbone.fluxaudio import FluxAudio
    from plaudit.generate.sampling import Pass, Sampler
    from plaudit.generate.settings import SamplingSettings
    from plaudit.stages.sft import SftObjective
    from plaudit.training.loop import Inputs
    from plaudit.training.settings import LoopSettings

# Imports of the package are local, so that a module that cannot be imported costs one section only.

GIB = 2**30
MARGIN = 2.0
"""Seconds before the end in which no section is started."""

GUIDANCE = 4.0
SCORE = 1.0

Row = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """What is measured: the network's size, batches, steps, and seconds that one figure is taken over."""

    tiny: bool
    frames: int
    matrix: int
    sampling_batches: tuple[int, ...]
    steps: int
    few_steps: int
    training_batches: tuple[int, ...]
    checkpointed_batches: tuple[int, ...]
    clip_seconds: float
    encoder_batch: int
    decoder_batches: tuple[int, ...]
    shard_clips: int
    loader_batch: int
    loader_threads: tuple[int, ...]
    seconds: float

    def backbone(self) -> BackboneConfig:
        """FluxAudio-S with the paper's score injection, or a tiny network with all of its parts."""
        from plaudit.backbone.config import PRESETS, FluxAudioConfig

        if not self.tiny:
            return replace(PRESETS["fluxaudio-s-44k"], injection="global_adaln")
        return FluxAudioConfig(
            latent_dim=40,
            text_dim=16,
            text_c_dim=16,
            hidden_dim=32,
            depth=2,
            fused_depth=1,
            num_heads=2,
            mlp_multiple=32,
            text_length=5,
            injection="global_adaln",
        )


TRUE_SIZES = Scale(
    tiny=False,
    frames=430,
    matrix=8192,
    sampling_batches=(32, 64, 128),
    steps=25,
    few_steps=4,
    training_batches=(32, 64, 128),
    checkpointed_batches=(64, 128, 256),
    clip_seconds=10.0,
    encoder_batch=32,
    decoder_batches=(1, 8),
    shard_clips=2048,
    loader_batch=64,
    loader_threads=(1, 2, 4, 8),
    seconds=1.5,
)

SMALL = Scale(
    tiny=True,
    frames=8,
    matrix=128,
    sampling_batches=(2, 3),
    steps=2,
    few_steps=1,
    training_batches=(4,),
    checkpointed_batches=(4,),
    clip_seconds=0.5,
    encoder_batch=2,
    decoder_batches=(1,),
    shard_clips=40,
    loader_batch=4,
    loader_threads=(1, 2),
    seconds=0.01,
)


class Unavailable(Exception):
    """A section that this machine or the time left does not allow, with the reason."""


class Results:
    """The results so far, in memory and, whole at any time, in the JSON file."""

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path, self.facts = path, facts
        self.sections: dict[str, dict[str, Any]] = {}
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def update(self, section: str, **facts: Any) -> None:
        """Set facts of a section and write the file."""
        with self._lock:
            self.sections.setdefault(section, {"rows": []}).update(facts)
            self._write()

    def add(self, section: str, row: Row) -> None:
        """Append a row to a section and write the file."""
        with self._lock:
            self.sections[section]["rows"].append(row)
            self._write()

    def stop_running(self, reason: str) -> None:
        """Mark the section that is running as stopped."""
        with self._lock:
            for facts in self.sections.values():
                if facts.get("state") == "running":
                    facts.update(state="stopped", reason=reason)
            self._write()

    def rows(self, section: str) -> list[Row]:
        """The rows of a section, none where it has not run."""
        return self.sections.get(section, {}).get("rows", [])

    def _write(self) -> None:
        wall = time.monotonic() - self._began
        text = json.dumps(self.facts | {"wall_seconds": wall, "sections": self.sections}, indent=1)
        new = self.path.with_name(self.path.name + ".new")
        new.write_text(text + "\n")
        os.replace(new, self.path)


@dataclass
class Bench:
    """What all sections share."""

    device: torch.device
    scale: Scale
    results: Results
    deadline: float
    section: str = ""
    accelerators: list[Accelerator] = field(default_factory=list)

    def left(self) -> float:
        """Seconds until the budget is spent."""
        return self.deadline - time.monotonic()

    def require(self, seconds: float, what: str) -> None:
        """Unavailable where fewer seconds are left than `what` is expected to take."""
        if self.left() < seconds:
            raise Unavailable(f"{what} needs about {seconds:.0f} s and {max(self.left(), 0):.0f} s are left")

    def add(self, **row: Any) -> None:
        """A row of the section that is running."""
        self.results.add(self.section, row)
        shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()}
        print("  " + ", ".join(f"{k} {v}" for k, v in shown.items() if not isinstance(v, list)), flush=True)

    def attempt(self, work: Callable[[], Row], **facts: Any) -> None:
        """A row of `facts` and what `work` returns or, where it fails (as by running out of memory), the error."""
        if self.left() <= 0:
            raise Unavailable("the time was spent")
        try:
            self.add(**facts, **work())
        except Unavailable:
            raise
        except Exception as error:
            self.add(**facts, error=one_line(error))
        finally:
            self.release()

    def release(self) -> None:
        """Give unused device memory back and count its peak anew."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def measure(self, work: Callable[[], object], seconds: float | None = None) -> tuple[float, float]:
        """Seconds of a first run, and the median of further ones over about `seconds` (at least one)."""
        from plaudit.machine import seconds_of

        limit = self.scale.seconds if seconds is None else seconds
        first, taken = seconds_of(work), []
        while not taken or (sum(taken) < limit and self.left() > taken[-1]):
            taken.append(seconds_of(work))
        return first, statistics.median(taken)

    def memory(self) -> dict[str, float]:
        """The peak of GPU memory since `release`; empty on a CPU."""
        return {"peak_memory_gib": torch.cuda.max_memory_allocated(self.device) / GIB} if self.on_cuda else {}

    def fraction_of_peak(self, operations_per_second: float) -> dict[str, float]:
        """Operations a second, and as a fraction of the matrix peak where it was measured."""
        rates = {"tflops": operations_per_second / 1e12}
        peaks = [row["tflops"] for row in self.results.rows("peak") if row.get("what") == PEAK]
        return rates | ({"fraction_of_peak": rates["tflops"] / peaks[0]} if peaks else {})

    @property
    def on_cuda(self) -> bool:
        return self.device.type == "cuda"

    @cached_property
    def model(self) -> FluxAudio:
        """The backbone with random weights; nothing is left at the zero where training starts it."""
        from plaudit.backbone.base import initialize
        from plaudit.backbone.fluxaudio import FluxAudio

        model = FluxAudio(self.scale.backbone())
        initialize(model, 0)
        with torch.no_grad():
            for parameter in model.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.02)
        return model.to(self.device).eval()

    @property
    def accelerator(self) -> Accelerator:
        from plaudit.training.distributed import accelerator_for

        if not self.accelerators:
            self.accelerators.append(accelerator_for("bf16", self.device))
        return self.accelerators[0]


def one_line(error: BaseException) -> str:
    """An error's kind and the beginning of its message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:600]


# Peak

PEAK = "matrix product, bf16"


def peak(bench: Bench) -> None:
    """The best rate of large products, and of copies within the device's memory."""
    from plaudit.machine import matrix_peak

    for name, dtype in ((PEAK, torch.bfloat16), ("matrix product, float32", torch.float32)):
        rate = matrix_peak(dtype, bench.device, bench.scale.matrix)
        bench.add(what=name, size=bench.scale.matrix, tflops=rate / 1e12)
    source = torch.zeros(bench.scale.matrix**2 * 4, dtype=torch.float32, device=bench.device)
    target = torch.empty_like(source)
    _, seconds = bench.measure(lambda: target.copy_(source), 0.2)
    bench.add(what="copy on the device", gb_per_s=2 * source.nbytes / seconds / 1e9)


# Sampling


def sampling_settings(steps: int, guided: bool) -> SamplingSettings:
    from plaudit.generate.settings import Guidance, SamplingSettings

    return SamplingSettings(steps=steps, guidance=Guidance(weight=GUIDANCE if guided else 1.0), score=SCORE)


def sampler_of(bench: Bench, batch: int, steps: int, guided: bool, compile: str = "no") -> Sampler:
    """The sampler that `plaudit generate` would use."""
    from plaudit.generate.sampling import Sampler
    from plaudit.generate.settings import Execution

    execution = Execution.model_validate({"batch": batch, "compile": compile})
    return Sampler.build(bench.model, sampling_settings(steps, guided), bench.scale.frames, execution)


def sampling_row(bench: Bench, sampler: Sampler, way: str, seconds: float | None = None) -> Row:
    """Clips a second of full batches of random text features, from features to latents."""
    from plaudit.types import TextFeatures

    config, batch, steps = bench.model.config, sampler.batch, sampler.settings.steps
    text = TextFeatures(
        torch.randn(batch, config.text_length, config.text_dim, device=bench.device),
        torch.randn(batch, config.text_c_dim, device=bench.device),
    )
    negative, seeds = bench.model.empty_text(1), list(range(batch))
    guided = sampler.settings.guidance.weight > 1
    first, median = bench.measure(lambda: sampler.latents(text, negative, seeds).cpu(), seconds)
    operations = batch * steps * (2 if guided else 1) * bench.model.forward_flops(bench.scale.frames)
    return {
        "way": way,
        "evaluations": steps,
        "guidance": guided,
        "batch": batch,
        "clips_per_s": batch / median,
        "batch_seconds": median,
        "first_seconds": first,
        **bench.fraction_of_peak(operations / median),
        **bench.memory(),
    }


def sampling(bench: Bench) -> None:
    """Eager: one clip, several batches, and a few evaluations without guidance."""
    scale = bench.scale
    for batch in (1, *scale.sampling_batches):
        bench.attempt(partial(eager_sampling, bench, batch, scale.steps, True))
    for batch in (1, best_batch(bench), 2 * best_batch(bench)):
        bench.attempt(partial(eager_sampling, bench, batch, scale.few_steps, False))


def eager_sampling(bench: Bench, batch: int, steps: int, guided: bool) -> Row:
    return sampling_row(bench, sampler_of(bench, batch, steps, guided), "eager")


def best_batch(bench: Bench) -> int:
    """The batch that sampled most clips a second with guidance; the middle one of those to try where none did."""
    rows = [row for row in bench.results.rows("sampling") if row.get("guidance") and "clips_per_s" in row]
    default = bench.scale.sampling_batches[len(bench.scale.sampling_batches) // 2]
    return max(rows, key=lambda row: row["clips_per_s"])["batch"] if rows else default


def sampling_graphs(bench: Bench) -> None:
    """The eager network replayed as a CUDA graph, without compiling: what launching kernels costs."""
    if not bench.on_cuda:
        raise Unavailable("CUDA graphs need a CUDA device")
    scale = bench.scale

    def captured(batch: int, steps: int, guided: bool) -> Row:
        sampler = sampler_of(bench, batch, steps, guided)
        sampler.network.velocity = graph_of(sampler.network.velocity)  # type: ignore[method-assign,assignment]
        return sampling_row(bench, sampler, "eager in CUDA graphs")

    for steps, guided in ((scale.steps, True), (scale.few_steps, False)):
        for batch in (1, best_batch(bench)):
            bench.attempt(partial(captured, batch, steps, guided))


def graph_of(velocity: Pass) -> Pass:
    """`velocity`, recorded as a CUDA graph at its first call and replayed from then on, for inputs of one shape."""
    from plaudit.backbone.base import Conditions

    recorded: list[tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]] = []

    def run(x: Tensor, conditions: Conditions, t: Tensor) -> Tensor:
        inputs = (x, conditions.words, conditions.pooled, conditions.e, t)
        if not recorded:
            static = tuple(value.clone() for value in inputs)

            def once() -> Tensor:
                return velocity(static[0], Conditions(*static[1:4]), static[4])

            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    once()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                output = once()
            recorded.append((graph, static, output))
        graph, static, output = recorded[0]
        for target, value in zip(static, inputs, strict=True):
            target.copy_(value)
        graph.replay()
        return output.clone()

    return run


def compiled_sampling(compile: str, way: str) -> Callable[[Bench], None]:
    """A section that samples with `--compile` set so; compiling is timed apart."""

    def section(bench: Bench) -> None:
        warm_up = 0.0

        def compiled(steps: int, guided: bool) -> Row:
            nonlocal warm_up
            sampler = sampler_of(bench, best_batch(bench), steps, guided, compile)
            warm_up = sampler.warm_up()
            return sampling_row(bench, sampler, way) | {"compile_seconds": warm_up}

        bench.attempt(partial(compiled, bench.scale.steps, True))
        # Without guidance the shapes are others, so all is compiled again.
        bench.require(1.2 * warm_up, "compiling once more")
        bench.attempt(partial(compiled, bench.scale.few_steps, False))
        torch.compiler.reset()

    return section


# Training


@dataclass(frozen=True)
class SameBatch:
    """An Objective that draws the same batch each time, so that the loop alone is measured."""

    sft: SftObjective
    inputs: Inputs

    def draw(self, index: int, part: slice) -> Inputs:
        return self.inputs

    def loss(self, network: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        return self.sft.loss(network, inputs)


def same_batch(bench: Bench, batch: int) -> SameBatch:
    """A batch of noise as SftObjective draws it from a shard set."""
    from plaudit.flow import logit_normal_time
    from plaudit.stages.sft import FlowTrainSettings, SftObjective
    from plaudit.training.data import TrainingSet

    config, shape = bench.model.config, (batch, bench.scale.frames, bench.scale.backbone().latent_dim)
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "posterior_noise": torch.randn(shape, generator=generator),
        "noise": torch.randn(shape, generator=generator),
        "t": logit_normal_time(batch, generator),
        "text_dropped": torch.rand(batch, generator=generator) < 0.1,
        "mean": torch.randn(shape, generator=generator).half(),
        "std": torch.rand(shape, generator=generator).half(),
        "tokens": torch.randn(batch, config.text_length, config.text_dim, generator=generator).half(),
        "pooled": torch.randn(batch, config.text_c_dim, generator=generator).half(),
        "scores": torch.randn(batch, generator=generator),
    }
    settings = FlowTrainSettings(steps=1, learning_rate=1e-6, batch=batch)
    return SameBatch(SftObjective(bench.model, TrainingSet([], 0), settings), inputs)


class _Enough(Exception):
    """Training has run for as long as the measurement takes."""


def training_row(bench: Bench, objective: Any, batch: int, way: str, loop: LoopSettings) -> Row:
    """Clips a second of the training loop: autocast, backward, clipping, AdamW, both running averages, metrics."""
    from plaudit.backbone.base import FORWARD_AND_BACKWARD
    from plaudit.stages.sft import FlowTrainSettings
    from plaudit.training.loop import train

    settings = FlowTrainSettings(steps=10**6, learning_rate=1e-6, batch=batch, checkpoint_every=10**9)
    settled, least = 3, 5
    ends: list[float] = []

    def progress(done: int, total: int) -> None:
        ends.append(time.perf_counter())
        spent = ends[-1] - ends[min(settled, len(ends)) - 1]
        if (len(ends) >= least and spent > bench.scale.seconds) or bench.left() < 1:
            raise _Enough

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            train(bench.model, objective, settings, Path(folder), bench.accelerator, progress, loop)
        except _Enough:
            pass
        finally:
            bench.model.zero_grad(set_to_none=True)
            bench.model.eval()
    updates = [after - before for before, after in itertools.pairwise(ends)]
    if not updates:
        raise Unavailable("the time was spent before the second update")
    median = statistics.median(updates[settled - 1 :] or updates)
    operations = batch * FORWARD_AND_BACKWARD * bench.model.forward_flops(bench.scale.frames)
    return {
        "way": way,
        "batch": batch,
        "clips_per_s": batch / median,
        "update_seconds": median,
        "updates": len(updates),
        "first_seconds": ends[0] - began,
        **bench.fraction_of_peak(operations / median),
        **bench.memory(),
    }


def training(bench: Bench) -> None:
    """Eager, in several batches, and what an update consists of."""
    from plaudit.training.settings import LoopSettings

    for batch in bench.scale.training_batches:
        bench.attempt(partial(training_row, bench, same_batch(bench, batch), batch, "eager", LoopSettings()))
    bench.attempt(partial(training_parts, bench, best_training_batch(bench)))


def best_training_batch(bench: Bench) -> int:
    """The batch that trained most clips a second; the first of those to try where none did."""
    rows = [row for row in bench.results.rows("training") if row.get("way") == "eager" and "clips_per_s" in row]
    return max(rows, key=lambda row: row["clips_per_s"])["batch"] if rows else bench.scale.training_batches[0]


def checkpointing(bench: Bench) -> None:
    """Blocks computed again in the backward pass: the same batches in less memory, and larger ones."""
    from plaudit.training.settings import LoopSettings

    loop = LoopSettings(activation_checkpointing=True)
    for batch in bench.scale.checkpointed_batches:
        bench.attempt(partial(training_row, bench, same_batch(bench, batch), batch, "checkpointed", loop))


def training_parts(bench: Bench, batch: int) -> Row:
    """Seconds of each part of an update, waited for one by one."""
    from plaudit.backbone.ema import PostHocEMA
    from plaudit.machine import seconds_of

    objective, model = same_batch(bench, batch), bench.model
    optimizer = torch.optim.AdamW(model.parameters(), 1e-6, (0.9, 0.95), fused=True)
    ema = PostHocEMA(model)
    inputs = {name: value.to(bench.device) for name, value in objective.inputs.items()}
    loss: dict[str, Tensor] = {}

    def forward() -> None:
        with torch.autocast(bench.device.type, torch.bfloat16):
            loss.update(objective.loss(model, inputs))

    parts: dict[str, Callable[[], object]] = {
        "copy_seconds": lambda: [value.to(bench.device) for value in objective.inputs.values()],
        "forward_seconds": forward,
        "backward_seconds": lambda: loss["loss"].backward(),
        "clip_seconds": lambda: torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0),
        "optimizer_seconds": optimizer.step,
        "ema_seconds": lambda: ema.update(100),
    }
    taken: dict[str, list[float]] = {name: [] for name in parts}
    model.train()
    for _ in range(8):
        for name, part in parts.items():
            taken[name].append(seconds_of(part))
        optimizer.zero_grad(set_to_none=True)
        if bench.left() < 1:
            break
    model.eval()
    return {"way": "parts of an update", "batch": batch} | {
        name: statistics.median(times[2:] or times) for name, times in taken.items()
    }


def training_compiled(bench: Bench) -> None:
    """Blocks compiled, without checkpointing and with it."""
    from plaudit.training.settings import LoopSettings

    batch = best_training_batch(bench)
    for way, loop in (
        ("compiled", LoopSettings(compile=True)),
        ("compiled, checkpointed", LoopSettings(compile=True, activation_checkpointing=True)),
    ):
        began = time.monotonic()
        bench.attempt(partial(training_row, bench, same_batch(bench, batch), batch, way, loop))
        if way == "compiled":
            bench.require(time.monotonic() - began, "compiling once more")
    torch.compiler.reset()


# Frozen networks

PRECISIONS = ("float32", "tf32", "bf16")
"""As the package runs them; with products in TF32; under bfloat16 autocast."""


def encoders(bench: Bench) -> None:
    """Scoring, encoding and decoding of clips."""
    from benchmarks import paper_networks

    gc.freeze()  # skips the many objects of transformers in later collections
    scale = bench.scale
    sizes, batch = paper_networks.TINY if scale.tiny else paper_networks.PAPER, scale.encoder_batch

    def built(make: Callable[[], nn.Module]) -> Any:
        with bench.device:
            return make().to(bench.device).eval()

    def waves(count: int, samples: int) -> Tensor:
        return 0.1 * torch.randn(count, samples, device=bench.device)

    def embedder(name: str, make: Callable[[], nn.Module]) -> None:
        network = built(make)
        wave = waves(batch, int(scale.clip_seconds * network.sample_rate))
        rates(bench, name, batch, lambda: network.audio(wave))

    for name, make in (("MERT-330M", paper_networks.mert), ("CLAP (HTSAT)", paper_networks.clap)):
        guarded(bench, name, partial(embedder, name, partial(make, sizes)))

    def of_codec() -> None:
        codec = paper_networks.codec(sizes).to(bench.device).eval()
        wave = waves(batch, codec.hop * scale.frames)
        rates(bench, "mel VAE encode", batch, lambda: codec.encode(wave).mean)
        latents = torch.randn(max(scale.decoder_batches), scale.frames, codec.latent_dim, device=bench.device)
        mels = torch.randn(max(scale.decoder_batches), codec.mel.bands, 2 * scale.frames, device=bench.device)
        rates(bench, "mel VAE decode", len(latents), lambda: codec.vae.decode(latents))
        for count in scale.decoder_batches:
            rates(bench, "BigVGAN decode", count, partial(codec.vocoder, mels[:count]))

    guarded(bench, "codec", of_codec)

    def of_text() -> None:
        clap = built(partial(paper_networks.clap, sizes))
        text = built(partial(paper_networks.text_encoder, clap, sizes))
        prompts = [f"a calm piano piece with strings, number {number}" for number in range(4 * batch)]
        rates(bench, "T5 and CLAP text", len(prompts), lambda: text.encode(prompts).tokens)

    guarded(bench, "text", of_text)


def guarded(bench: Bench, name: str, work: Callable[[], None]) -> None:
    """Run a part of a section; an error becomes a row and does not stop the others."""
    if bench.left() <= 0:
        raise Unavailable("the time was spent")
    try:
        work()
    except Unavailable:
        raise
    except Exception as error:
        bench.add(what=name, error=one_line(error))
    bench.release()


def rates(bench: Bench, what: str, batch: int, work: Callable[[], Tensor]) -> None:
    """A row for each precision: clips a second, and how far the output is from float32's."""
    operations = counted_flops(work)
    exact: list[Tensor] = []

    def row(precision: str) -> Row:
        output = torch.empty(0)

        def once() -> None:
            nonlocal output
            output = work()

        bf16 = precision == "bf16"
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if precision == "tf32" else before)
        try:
            with torch.inference_mode(), torch.autocast(bench.device.type, torch.bfloat16) if bf16 else nullcontext():
                first, median = bench.measure(once)
        finally:
            torch.set_float32_matmul_precision(before)
        output = output.float()
        exact.extend([output] if not exact else [])
        difference = (output - exact[0]).square().mean().sqrt() / exact[0].square().mean().sqrt()
        return {
            "clips_per_s": batch / median,
            "first_seconds": first,
            "relative_rms": float(difference),
            **(bench.fraction_of_peak(operations / median) if operations else {}),
            **bench.memory(),
        }

    for precision in PRECISIONS:
        bench.attempt(partial(row, precision), what=what, precision=precision, batch=batch)


def counted_flops(work: Callable[[], Tensor]) -> int:
    """Operations of products, convolutions and attention in one run; 0 where they cannot be counted."""
    from torch.utils.flop_counter import FlopCounterMode

    try:
        with torch.inference_mode(False), torch.no_grad(), FlopCounterMode(display=False) as counter:
            work()
    except Exception:
        return 0
    return counter.get_total_flops()


# Loader


def loader(bench: Bench) -> None:
    """Batches from a shard set to the device, as the training loop fetches them, and training on them."""
    from benchmarks.loader import make_shards
    from plaudit.corpus.shards import ShardSet
    from plaudit.stages.sft import FlowTrainSettings, SftObjective
    from plaudit.training.data import Source, TrainingSet
    from plaudit.training.distributed import rank_slice
    from plaudit.training.loop import _batches
    from plaudit.training.settings import LoopSettings

    scale, batch = bench.scale, bench.scale.loader_batch
    with tempfile.TemporaryDirectory() as name:
        began = time.monotonic()
        size = make_shards(Path(name), scale.shard_clips, bench.model.config, scale.frames)
        bench.add(what="shard set", clips=scale.shard_clips, gigabytes=size / 1e9, seconds=time.monotonic() - began)
        shards = ShardSet(name, verify=False)
        rows = shards.rows("train")
        data = TrainingSet([Source(shards, rows, shards.rewards[rows])], seed=0)
        settings = FlowTrainSettings(steps=10**6, learning_rate=1e-6, batch=batch)
        objective = SftObjective(bench.model, data, settings)
        part = rank_slice(batch, 1, 0, 1)

        def fetched(loader_threads: int) -> Row:
            loop = LoopSettings(loader_threads=loader_threads, prefetch=2 * loader_threads)
            batches = _batches(objective, part, settings, loop, 0, bench.device)
            try:
                for _ in range(2 * loader_threads + 1):  # the first ones wait for files to be opened
                    next(batches)
                count, start = 0, time.perf_counter()
                while not count or (time.perf_counter() - start < scale.seconds and bench.left() > 1):
                    next(batches)
                    count += 1
                if bench.on_cuda:
                    torch.cuda.synchronize()
                return {"clips_per_s": count * batch / (time.perf_counter() - start)}
            finally:
                batches.close()

        for loader_threads in scale.loader_threads:
            bench.attempt(
                partial(fetched, loader_threads), what="to the device", loader_threads=loader_threads, batch=batch
            )
        rows = bench.results.rows("loader")
        speeds = {row["loader_threads"]: row["clips_per_s"] for row in rows if "clips_per_s" in row}
        loader_threads = max(speeds, key=speeds.__getitem__) if speeds else 1
        loop = LoopSettings(loader_threads=loader_threads, prefetch=2 * loader_threads)
        work = partial(training_row, bench, objective, batch, "eager, fed by the loader", loop)
        bench.attempt(work, what="training", loader_threads=loader_threads)


# Kernels


def kernels(bench: Bench) -> None:
    """Where the device's time goes, in sampling and in training."""
    from plaudit.types import TextFeatures

    batch = best_batch(bench)
    sampler = sampler_of(bench, batch, 2, True)
    empty = bench.model.empty_text(1)
    rows = empty.rows(torch.zeros(batch, dtype=torch.long))
    text = TextFeatures(rows.tokens + 0.1, rows.pooled + 0.1)
    sample = partial(sampler.latents, text, empty, [0] * batch)
    guarded(bench, "sampling", partial(profiled, bench, "sampling", batch, sample))

    objective = same_batch(bench, best_training_batch(bench))
    inputs = {name: value.to(bench.device) for name, value in objective.inputs.items()}

    def update() -> None:
        with torch.autocast(bench.device.type, torch.bfloat16):
            loss = objective.loss(bench.model, inputs)["loss"]
        loss.backward()
        bench.model.zero_grad(set_to_none=True)

    what = "training, forward and backward"
    guarded(bench, what, partial(profiled, bench, what, len(objective.inputs["t"]), update))


def profiled(bench: Bench, what: str, batch: int, work: Callable[[], object], most: int = 16) -> None:
    """A row with the kernels (on a CPU, the operators) that take most of the time."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    from plaudit.machine import seconds_of

    work()
    wall = seconds_of(work)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if bench.on_cuda else [])]
    with profile(activities=activities) as profiler:
        seconds_of(work)
    kind = DeviceType.CUDA if bench.on_cuda else DeviceType.CPU
    events = [event for event in profiler.key_averages() if event.device_type == kind]
    spent = {e.key: (e.self_device_time_total if bench.on_cuda else e.self_cpu_time_total, e.count) for e in events}
    total = sum(microseconds for microseconds, _ in spent.values()) or 1
    longest = sorted(spent, key=lambda key: -spent[key][0])[:most]
    bench.add(
        what=what,
        batch=batch,
        wall_seconds=wall,
        busy_fraction=total / 1e6 / wall,
        kernels=[
            {"name": key[:120], "share": spent[key][0] / total, "ms": spent[key][0] / 1e3, "calls": spent[key][1]}
            for key in longest
        ],
    )


# All of it

SECTIONS: dict[str, tuple[Callable[[Bench], None], float]] = {
    "peak": (peak, 0),
    "sampling": (sampling, 5),
    "sampling_graphs": (sampling_graphs, 5),
    "training": (training, 5),
    "checkpointing": (checkpointing, 5),
    "kernels": (kernels, 5),
    "encoders": (encoders, 10),
    "loader": (loader, 15),
    "sampling_compiled": (compiled_sampling("default", "compiled"), 30),
    "training_compiled": (training_compiled, 30),
    "sampling_compiled_graphs": (compiled_sampling("graphs", "compiled in CUDA graphs"), 30),
}
"""In the order in which they run, with the seconds that each needs at the least at true sizes."""

COMPILING = ("sampling_compiled", "training_compiled", "sampling_compiled_graphs")


def run(results: Results, device: torch.device, scale: Scale, deadline: float, names: Sequence[str]) -> None:
    """Measure the sections `names` until `deadline`, on time.monotonic's clock, as far as it goes."""
    bench = Bench(device, scale, results, deadline)
    for name in names:
        section, least = SECTIONS[name]
        bench.section = name
        began = time.monotonic()
        gc.freeze()
        results.update(name, state="running")
        print(f"{name}: {bench.left():.0f} s left", flush=True)
        try:
            bench.require(0.1 if scale.tiny else least, "this section")
            section(bench)
            outcome = {"state": "done"}
        except Unavailable as reason:
            outcome = {"state": "cut short" if results.rows(name) else "skipped", "reason": str(reason)}
        except Exception as error:
            outcome = {"state": "failed", "reason": one_line(error)}
        bench.release()
        results.update(name, **outcome, seconds=time.monotonic() - began)
        print(f"{name}: {outcome['state']} {outcome.get('reason', '')}", flush=True)
    gc.unfreeze()


def end_process_after(seconds: float, results: Results) -> threading.Timer:
    """A started timer that ends the process, whatever is running, with what was measured until then in the file."""

    def end() -> None:
        results.stop_running("the time was spent")
        print("stopped: the time was spent", flush=True)
        os._exit(0)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    return timer


def figure_seconds(budget: float) -> float:
    """How long one figure is measured for, so that some fifty of them and compiling fit into the budget."""
    return min(max(budget / 320, 0.4), 1.5)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or print the tables of a result."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="where results go")
    parser.add_argument("--budget", type=float, default=480.0, help="seconds in all (default: 480)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action="store_true", help="tiny networks, to see that it runs")
    parser.add_argument("--sections", help=f"some of {','.join(SECTIONS)} (default: all, in this order)")
    parser.add_argument(
        "--tables", type=Path, metavar="FILE.json", help="print a result as Markdown and measure nothing"
    )
    options = parser.parse_args(arguments)
    if options.tables is not None:
        from benchmarks.gpu_tables import tables

        print(tables(json.loads(options.tables.read_text())))
        return
    if options.json is None:
        parser.error("--json is required")
    names = options.sections.split(",") if options.sections else list(SECTIONS)
    if unknown := [name for name in names if name not in SECTIONS]:
        parser.error(f"unknown sections {', '.join(unknown)}; choose from {', '.join(SECTIONS)}")
    from benchmarks.cost.timing import machine

    device = torch.device(options.device)
    facts = {"machine": machine(device), "small": options.small, "budget_seconds": options.budget}
    results = Results(options.json, facts)
    # As a script, what Python has computed so far is importing PyTorch, which counts as well.
    left = options.budget - (time.process_time() if arguments is None else 0.0)
    timer = end_process_after(left, results)
    scale = SMALL if options.small else replace(TRUE_SIZES, seconds=figure_seconds(options.budget))
    run(results, device, scale, time.monotonic() + left - MARGIN, names)
    timer.cancel()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
