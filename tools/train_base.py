"""Train the base model of the synthetic world: text to music, no score, on an endless corpus.

    python tools/train_base.py --minutes 9 --device auto -o runs/base

Worker processes render clips and write captions while the device encodes and trains, so clips are repeated no more
often than the machine's speed requires. A killed run that is started again continues from its last checkpoint for the
rest of the minutes. The output is a model folder per kind of weights (`ema-0.05`, `ema-0.10`, `raw`),
written in float16, and `early` ones from a tenth of the way, a weaker system for listening comparisons.
"""

from __future__ import annotations

import argparse
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as multiprocessing
from torch import Tensor, nn

from plaudit.backbone.base import FORWARD_AND_BACKWARD, initialize
from plaudit.backbone.config import FluxAudioConfig
from plaudit.backbone.ema import PostHocEMA, load_parameters
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.encoders.words import WordBatch, batch_words, words
from plaudit.flow import flow_loss, interpolate, velocity
from plaudit.generate.model import ModelConfig
from plaudit.generate.settings import SamplingSettings
from plaudit.processors import processors
from plaudit.storage import save_checkpoint, save_module, write_json
from plaudit.synthetic.captions import STYLES, caption
from plaudit.synthetic.codec import SyntheticCodec, load_synthetic_codec
from plaudit.synthetic.corpus import SyntheticClip, SyntheticCorpus, describe_clip
from plaudit.synthetic.text import SyntheticTextEncoder, load_synthetic_text_encoder
from plaudit.types import TextFeatures

RATE, SECONDS, HOP = 16000, 10.0, 1024
FRAMES = int(SECONDS * RATE) // HOP
CORPUS_SEED, VALIDATION_SEED = 41, 42
"""Corpora of different seeds share no clip; no recipe uses these."""

BACKBONE = FluxAudioConfig(
    latent_dim=40, text_dim=128, text_c_dim=128, text_length=32,
    hidden_dim=160, num_heads=5, depth=6, fused_depth=4, mlp_multiple=8,
)  # fmt: skip
"""8.3 M parameters: just under 16 MiB in float16, its score embedder included."""


@dataclass(frozen=True)
class Settings:
    """minutes: training time in all, over every start. clips_per_chunk: clips a worker renders and encodes at a time.
    captions: captions written for each clip, one of which is drawn at each use. capacity: clips kept on the device; new
    ones replace the oldest. start_after: clips before the first update; they give the latents' statistics.
    short_fraction: of the updates, on the first half of each clip, at twice the batch."""

    minutes: float
    batch: int
    learning_rate: float
    workers: int
    capacity: int
    start_after: int
    compile: bool
    clips_per_chunk: int = 32
    captions: int = 6
    warmup: int = 300
    decay_from: float = 0.55
    text_dropout: float = 0.1
    short_fraction: float = 0.15
    weight_decay: float = 1e-4
    max_grad_norm: float = 1.0
    seed: int = 0
    checkpoint_minutes: float = 2.0
    early: float = 0.1


# --- Rendering, in worker processes -----------------------------------------------------------------------------------


def render_forever(slots: Tensor, free: Any, ready: Any, worker: int, workers: int, settings: Settings) -> None:
    """Render chunk after chunk into free slots [S, clips, T] of shared memory; `ready` gets (slot, words, count)."""
    torch.set_num_threads(1)
    corpus = SyntheticCorpus(1, SECONDS, CORPUS_SEED)
    chunk = worker
    while (slot := free.get()) is not None:
        first = chunk * settings.clips_per_chunk
        clips = [describe_clip(CORPUS_SEED, first + i) for i in range(settings.clips_per_chunk)]
        for row, clip in enumerate(clips):
            wave = corpus.render(clip)[: FRAMES * HOP]
            slots[slot, row] = torch.from_numpy(np.rint(wave * 32767).astype(np.int16))
        batch = batch_words([words(text) for clip in clips for text in captions_of(clip, settings.captions)])
        ready.put((slot, batch.grams.numpy(), batch.index.numpy()))
        chunk += workers


def captions_of(clip: SyntheticClip, count: int) -> list[str]:
    """`count` captions of one clip, in all styles, each stating other facts; the corpus's caption first."""
    more = [caption(clip.caption_truth, STYLES[k % len(STYLES)], clip.seed + 7919 * k) for k in range(1, count)]
    return [clip.caption, *more]


# --- The pool of encoded clips, on the device -------------------------------------------------------------------------


class Pool:
    """Latents and caption features of the clips rendered so far, float16, at most `capacity`: a ring.

    mean, std [capacity, FRAMES, 40]; tokens [capacity, captions, 32, 128]; pooled [capacity, captions, 128].
    """

    def __init__(self, capacity: int, captions: int, device: torch.device) -> None:
        empty = {"dtype": torch.float16, "device": device}
        c = BACKBONE
        self.mean = torch.empty(capacity, FRAMES, c.latent_dim, **empty)
        self.std = torch.empty(capacity, FRAMES, c.latent_dim, **empty)
        self.tokens = torch.empty(capacity, captions, c.text_length, c.text_dim, **empty)
        self.pooled = torch.empty(capacity, captions, c.text_c_dim, **empty)
        self.capacity, self.rendered = capacity, 0

    def __len__(self) -> int:
        return min(self.rendered, self.capacity)

    def add(self, mean: Tensor, std: Tensor, text: TextFeatures) -> None:
        """Append clips [B]; text has the features of their captions, [B * captions]."""
        at = (torch.arange(self.rendered, self.rendered + len(mean)) % self.capacity).to(self.mean.device)
        self.mean[at], self.std[at] = mean.half(), std.half()
        captions = self.tokens.shape[1]
        self.tokens[at] = text.tokens.half().unflatten(0, (-1, captions))
        self.pooled[at] = text.pooled.half().unflatten(0, (-1, captions))
        self.rendered += len(mean)

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, TextFeatures]:
        """Posterior mean and std [B, FRAMES, 40] of random clips, each with the features of one of its captions."""
        device = self.mean.device
        rows = torch.randint(len(self), (batch,), generator=generator, device=device)
        which = torch.randint(self.tokens.shape[1], (batch,), generator=generator, device=device)
        return self.mean[rows], self.std[rows], TextFeatures(self.tokens[rows, which], self.pooled[rows, which])


@torch.inference_mode()
def encode(codec: SyntheticCodec, waves: Tensor) -> tuple[Tensor, Tensor]:
    """int16 waves [B, FRAMES * HOP] on the codec's device -> posterior mean and std, [B, FRAMES, 40] each."""
    posterior = codec.encode(waves.float() / 32767)
    return posterior.mean, posterior.std


@torch.inference_mode()
def encode_words(encoder: SyntheticTextEncoder, batch: WordBatch) -> TextFeatures:
    """Caption features of hashed words on the encoder's device."""
    return TextFeatures(encoder.text(batch), encoder.clap.embed_words(batch))


class Feeder(threading.Thread):
    """Moves rendered chunks to the device, encodes them and appends them to the pool, until stopped."""

    def __init__(self, pool: Pool, codec: SyntheticCodec, text: SyntheticTextEncoder, settings: Settings) -> None:
        super().__init__(daemon=True)
        self.pool, self.codec, self.text, self.device = pool, codec, text, pool.mean.device
        context = multiprocessing.get_context("spawn")
        shape = (3 * settings.workers, settings.clips_per_chunk, FRAMES * HOP)
        self.slots = torch.zeros(shape, dtype=torch.int16).share_memory_()
        self.free, self.ready, self.stopped = context.Queue(), context.Queue(), threading.Event()
        for slot in range(len(self.slots)):
            self.free.put(slot)
        self.workers = [
            context.Process(
                target=render_forever,
                args=(self.slots, self.free, self.ready, worker, settings.workers, settings),
                daemon=True,
            )
            for worker in range(settings.workers)
        ]
        for process in self.workers:
            process.start()

    def run(self) -> None:
        while not self.stopped.is_set():
            try:
                slot, grams, index = self.ready.get(timeout=0.5)
            except queue.Empty:
                if any(process.exitcode for process in self.workers):
                    raise RuntimeError("a rendering process died") from None
                continue
            waves = self.slots[slot].to(self.device)
            self.free.put(slot)
            batch = WordBatch(torch.from_numpy(grams).to(self.device), torch.from_numpy(index).to(self.device))
            self.pool.add(*encode(self.codec, waves), encode_words(self.text, batch))

    def stop(self) -> None:
        """End the rendering."""
        self.stopped.set()
        for process in self.workers:
            process.terminate()


# --- Training ---------------------------------------------------------------------------------------------------------


@dataclass
class State:
    """Progress of training: updates, seconds of training, clips seen."""

    step: int = 0
    seconds: float = 0.0
    clips: int = 0
    losses: list[float] = field(default_factory=list)


def learning_rate(step: int, progress: float, settings: Settings) -> float:
    """Linear warm-up over updates, constant, then linear to zero from `decay_from` of the time on."""
    warm = min(1.0, (step + 1) / settings.warmup)
    left = min(1.0, (1.0 - progress) / (1.0 - settings.decay_from))
    return settings.learning_rate * warm * max(left, 0.0)


def loss_of(network: nn.Module, latents: Tensor, text: TextFeatures, noise: Tensor, t: Tensor) -> Tensor:
    """Flow-matching loss of standardized latents [B, N, C] under their captions, a scalar."""
    predicted = network(interpolate(latents, noise, t), text, t)
    return flow_loss(predicted.float(), velocity(latents, noise)).mean()


def train(settings: Settings, device: torch.device, output: Path, scratch: Path) -> None:
    """Train until the minutes are spent; see the module's docstring."""
    scratch.mkdir(parents=True, exist_ok=True)
    codec, encoder = load_synthetic_codec().to(device), load_synthetic_text_encoder()
    encoder.text.to(device), encoder.clap.to(device)
    pool = Pool(settings.capacity, settings.captions, device)
    feeder = Feeder(pool, codec, encoder, settings)
    feeder.start()
    model = FluxAudio(BACKBONE)
    initialize(model, settings.seed)
    model.to(device)
    fused = {"fused": True} if device.type == "cuda" else {"foreach": True}
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.learning_rate, (0.9, 0.95), weight_decay=settings.weight_decay, **fused
    )
    ema, state = PostHocEMA(model), State()
    empty = encode_words(encoder, WordBatch(*(part.to(device) for part in _words_of([""]))))
    started = time.monotonic()
    while len(pool) < settings.start_after:
        time.sleep(0.2)
        if not feeder.is_alive():
            raise RuntimeError("rendering stopped")
    say(f"{len(pool)} clips after {time.monotonic() - started:.1f} s")
    checkpoint = scratch / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        ema.load_state_dict(saved["ema"])
        state = State(**saved["state"])
        say(f"continuing at update {state.step}, {state.seconds / 60:.1f} minutes done")
    else:
        ready = pool.mean[: len(pool)].float()
        variance = ready.var((0, 1)) + pool.std[: len(pool)].float().square().mean((0, 1))
        model.set_statistics(ready.mean((0, 1)), variance.sqrt(), 0.0, 1.0, empty)
        del ready
    compute = torch.compile(loss_of, dynamic=False, fullgraph=True) if settings.compile else loss_of
    generator = torch.Generator(device).manual_seed(settings.seed + state.step)
    flops = FORWARD_AND_BACKWARD * model.forward_flops(FRAMES)
    total, last, last_saved = 60 * settings.minutes, time.monotonic(), time.monotonic()
    reported, running = state.clips, torch.zeros((), device=device)
    early_done = state.seconds > settings.early * total
    started, first_clips = time.monotonic(), state.clips
    while state.seconds < total:
        short = torch.rand((), generator=torch.Generator().manual_seed(state.step)).item() < settings.short_fraction
        size = settings.batch * (2 if short else 1)
        mean, std, text = pool.draw(size, generator)
        if short:
            mean, std = mean[:, : FRAMES // 2], std[:, : FRAMES // 2]
        latents = mean.float() + std.float() * normal(mean, generator)
        latents = model.standardize(latents)
        noise = normal(mean, generator)
        t = torch.sigmoid(torch.randn(size, generator=generator, device=device))
        dropped = torch.rand(size, generator=generator, device=device) < settings.text_dropout
        tokens = torch.where(dropped[:, None, None], model.empty_tokens, text.tokens.float())
        pooled = torch.where(dropped[:, None], model.empty_pooled, text.pooled.float())
        rate = learning_rate(state.step, state.seconds / total, settings)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(device.type, torch.bfloat16):
            loss = compute(model, latents, TextFeatures(tokens, pooled), noise, t)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm, foreach=True)
        optimizer.step()
        state.step += 1
        ema.update(state.step)
        state.clips += size // (2 if short else 1)
        running += loss.detach()
        if state.step % 100 == 0 or device.type == "cpu":
            value = float(running) / (100 if state.step % 100 == 0 else 1)  # waits for the device
            if not np.isfinite(value):
                raise RuntimeError(f"the loss is {value} at update {state.step}")
            if state.step % 100 == 0:
                running.zero_()
                state.losses.append(round(value, 5))
                now = time.monotonic()
                speed = (state.clips - reported) / (now - last)
                reported = state.clips
                say(
                    f"update {state.step}  loss {value:.4f}  rate {rate:.2e}  {speed:.0f} clips/s  "
                    f"{speed * flops / 1e12:.1f} TFLOP/s  rendered {pool.rendered}  {state.seconds / 60:.2f} min"
                )
                last = now
        state.seconds += time.monotonic() - started
        started = time.monotonic()
        if not early_done and state.seconds > settings.early * total:
            with replaced(model, ema.weights(0.05)):
                export(output / "early", model, state)
            early_done = True
        if time.monotonic() - last_saved > 60 * settings.checkpoint_minutes:
            save_checkpoint(checkpoint, _saved(model, optimizer, ema, state))
            last_saved = time.monotonic()
    save_checkpoint(checkpoint, _saved(model, optimizer, ema, state))
    feeder.stop()
    figures: dict[str, Any] = {}
    validation = held_out(model, codec, encoder)
    for name, weights in {"raw": None, "ema-0.05": ema.weights(0.05), "ema-0.10": ema.weights(0.10)}.items():
        with replaced(model, weights):
            export(output / name, model, state)
            figures[name] = validation_loss(model, validation)
        say(f"{name}: validation loss {figures[name]:.4f}")
    seen = state.clips - first_clips
    write_json(
        output / "training.json",
        {"updates": state.step, "clips": state.clips, "rendered": pool.rendered, "minutes": state.seconds / 60,
         "clips_per_second": seen / max(state.seconds, 1e-9), "validation_loss": figures, "losses": state.losses,
         "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu"},
    )  # fmt: skip


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise of a tensor's shape, float32."""
    return torch.randn(like.shape, generator=generator, device=like.device)


@dataclass(frozen=True)
class HeldOut:
    """Clips that are not trained on, without flaws or wrong captions: latents [M, N, C] and caption features."""

    latents: Tensor
    text: TextFeatures


@torch.inference_mode()
def held_out(model: FluxAudio, codec: SyntheticCodec, encoder: SyntheticTextEncoder, clips: int = 256) -> HeldOut:
    """Render and encode `clips` of the validation corpus on the model's device."""
    device = model.latent_mean.device
    corpus = SyntheticCorpus(clips, SECONDS, VALIDATION_SEED, flawed_fraction=0.0, miscaptioned_fraction=0.0)
    waves = torch.stack([torch.from_numpy(corpus.render(clip)[: FRAMES * HOP]) for clip in corpus.clips])
    latents = torch.cat([codec.encode(part.to(device)).mean for part in waves.split(32)])
    batch = WordBatch(*(part.to(device) for part in _words_of([clip.caption for clip in corpus.clips])))
    return HeldOut(model.standardize(latents), encode_words(encoder, batch))


@torch.no_grad()
def validation_loss(model: FluxAudio, clips: HeldOut, times: int = 8) -> float:
    """Mean loss, every clip at the same `times` evenly spaced times."""
    device = clips.latents.device
    generator = torch.Generator(device).manual_seed(0)
    losses = []
    for rows in torch.arange(len(clips.latents), device=device).split(64):
        latents, text = clips.latents[rows], clips.text.rows(rows)
        for k in range(times):
            t = torch.full((len(rows),), (k + 0.5) / times, device=device)
            with torch.autocast(device.type, torch.bfloat16):
                losses.append(loss_of(model, latents, text, normal(latents, generator), t) * len(rows))
    return float(torch.stack(losses).sum()) / (times * len(clips.latents))


@contextmanager
def replaced(model: nn.Module, weights: dict[str, Tensor] | None) -> Iterator[None]:
    """The model with other weights, where any are given, until the block ends."""
    current = {name: p.detach().clone() for name, p in model.named_parameters()}
    load_parameters(model, weights or current)
    try:
        yield
    finally:
        load_parameters(model, current)


def export(folder: Path, model: FluxAudio, state: State) -> None:
    """Write the model in float16 as a model folder."""
    provenance = {"stage": "base", "updates": state.step, "clips": state.clips, "minutes": round(state.seconds / 60, 2)}
    config = ModelConfig(
        BACKBONE, "synthetic", "synthetic", SECONDS, "Apache-2.0", provenance, SamplingSettings(steps=16, score=None)
    )
    save_module(folder, model, config.to_dict(), torch.float16)


def _saved(model: nn.Module, optimizer: torch.optim.Optimizer, ema: PostHocEMA, state: State) -> dict[str, Any]:
    return {
        "model": model.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema.state_dict(), "state": vars(state),
    }  # fmt: skip


def _words_of(texts: list[str]) -> tuple[Tensor, Tensor]:
    batch = batch_words([words(text) for text in texts])
    return batch.grams, batch.index


def say(text: str) -> None:
    """A line of progress, at once."""
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, required=True, help="training time in all, over every start")
    parser.add_argument("--device", default="auto", help="auto, cuda or cpu")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/base"))
    parser.add_argument("--scratch", type=Path, help="folder of checkpoints; by default the output folder")
    parser.add_argument("--batch", type=int, help="clips per update (256 on CUDA, 32 on a CPU)")
    parser.add_argument("--learning-rate", type=float, default=None)
    parser.add_argument("--workers", type=int, help="rendering processes (all cores but two; one on a small machine)")
    parser.add_argument("--capacity", type=int, help="clips held on the device")
    parser.add_argument("--start-after", type=int, default=None, help="clips rendered before the first update")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    cuda = torch.cuda.is_available() if options.device == "auto" else options.device == "cuda"
    device = torch.device("cuda" if cuda else "cpu")
    if cuda:
        torch.set_float32_matmul_precision("high")
    train(
        Settings(
            minutes=options.minutes,
            batch=options.batch or (256 if cuda else 32),
            learning_rate=options.learning_rate or (1.5e-3 if cuda else 1e-3),
            workers=options.workers or max(1, processors() - 2),
            capacity=options.capacity or (700_000 if cuda else 60_000),
            start_after=options.start_after or (8192 if cuda else 2048),
            compile=options.compile,
        ),
        device,
        options.output,
        options.scratch or options.output,
    )


if __name__ == "__main__":
    main()
