"""What this machine takes for the work of a recipe, by a short measurement of its own network and models."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from plaudit import hub
from plaudit.backbone.flops import TRAINING
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.backbone.initialization import initialize
from plaudit.bench.measure import matrix_peak, seconds_of
from plaudit.chain.plan import Plan, Prices
from plaudit.errors import ModelError, RunError
from plaudit.flow.path import flow_loss
from plaudit.generate.execution import Execution
from plaudit.generate.ready import make_ready
from plaudit.stages.parallel import blocks_of, checkpoint_blocks, restore_blocks
from plaudit.types import TextFeatures

ENOUGH = 50e9
"""Operations of a forward pass from which on more clips at once make a CPU no faster (ours)."""


def calibrate(plan: Plan, device: torch.device) -> Prices:
    """Measure: a matrix product, forward and backward of clips in the recipe's network and precision, one solver step
    of sampling, and one clip through codec, CLAP and listener, each where it is here.

    Weights are random. AdamW and averages are left out: they are once an update, the passes once a clip of it.
    A GPU is given the recipe's batches, another device as many clips of them as keep it busy. RunError where these
    don't fit into memory.
    """
    precision = torch.bfloat16 if plan.recipe.precision == "bf16" else torch.float32
    try:
        training, sampling, small, large = _network(plan, precision, device)
    except (torch.OutOfMemoryError, MemoryError):
        raise RunError("this recipe's batches don't fit into memory here; make them smaller") from None
    peak = matrix_peak(precision, device, repeats=3)
    return Prices(
        training,
        sampling,
        *_frozen(plan),
        activations=large - small,
        cast=max(0.0, 2 * small - large),
        facts={
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "threads": torch.get_num_threads(),
            "matrix_flops": peak,
            "training_share": training / peak,
            "sampling_share": sampling / peak,
        },
    )


def _network(plan: Plan, precision: torch.dtype, device: torch.device) -> tuple[float, float, float, float]:
    """Operations a second in training and in sampling, and bytes kept for the backward pass of one clip and of two."""
    clips, network = _clips(plan, plan.recipe.stages.sft.train.batch, device), FluxAudio(plan.backbone)
    initialize(network, 0)
    network.to(device)
    step = _TrainingPass(network, plan.frames, precision, plan.recipe.loop.activation_checkpointing)
    step.run(clips)
    seconds = min(seconds_of(lambda: step.run(clips)) for _ in range(2))
    small, large = step.kept(1), step.kept(2)
    restore_blocks(blocks_of(network))
    return TRAINING * plan.forward * clips / seconds, _sampling(plan, network.eval()), small, large


def _clips(plan: Plan, batch: int, device: torch.device) -> int:
    return batch if device.type == "cuda" else min(batch, math.ceil(ENOUGH / plan.forward))


class _TrainingPass:
    """Forward and backward of random clips, with blocks computed twice where the recipe wants that."""

    def __init__(self, network: FluxAudio, frames: int, precision: torch.dtype, twice: bool) -> None:
        self.network, self.frames, self.precision = network.train(), frames, precision
        self.device = network.latent_mean.device
        blocks = blocks_of(network) if twice else []
        checkpoint_blocks(blocks)
        tokens = frames + network.config.text_length
        # What a block begins with is kept outside of the graph, where no hook sees it.
        self.inputs = len(blocks) * tokens * network.config.hidden_dim * torch.float32.itemsize

    def loss(self, clips: int) -> Tensor:
        config = self.network.config
        latents = torch.randn(clips, self.frames, config.latent_dim, device=self.device)
        text = random_text(config.text_length, config.text_dim, config.text_c_dim, clips, self.device)
        t, scores = torch.rand(clips, device=self.device), torch.zeros(clips, device=self.device)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            return flow_loss(self.network(latents, text, t, scores), latents).mean()

    def run(self, clips: int) -> None:
        self.loss(clips).backward()
        self.network.zero_grad(set_to_none=True)

    def kept(self, clips: int) -> float:
        """Bytes that a forward pass keeps for the backward one, weights aside."""
        own = {p.untyped_storage().data_ptr() for p in (*self.network.parameters(), *self.network.buffers())}
        seen: dict[int, int] = {}
        alive: list[Tensor] = []  # so that no address is used twice

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                seen[storage.data_ptr()] = storage.nbytes()
                alive.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            self.loss(clips)
        return float(sum(seen.values()) + clips * self.inputs)


def random_text(length: int, width: int, pooled: int, clips: int, device: torch.device) -> TextFeatures:
    """Features of no text."""
    return TextFeatures(torch.randn(clips, length, width, device=device), torch.randn(clips, pooled, device=device))


def _sampling(plan: Plan, network: FluxAudio) -> float:
    """Operations a second of sampling: a step of the recipe's solver, guided, in its precision."""
    settings = plan.recipe.sampling.model_copy(update={"steps": 1, "score": 0.0})
    device = network.latent_mean.device
    clips = _clips(plan, plan.recipe.generation_batch, device)
    sampler = make_ready(network, settings, plan.frames, Execution(batch=clips))
    config = network.config
    text = random_text(config.text_length, config.text_dim, config.text_c_dim, clips, device)
    negative, seeds = network.empty_text(1), list(range(clips))
    sampler.latents(text, negative, seeds)
    seconds = min(seconds_of(lambda: sampler.latents(text, negative, seeds)) for _ in range(2))
    return plan.generated(clips) / plan.recipe.sampling.steps / seconds


def _frozen(plan: Plan) -> tuple[float | None, float | None, float | None]:
    """Seconds a clip of encoding, decoding and hearing; None where the model is not here."""
    models, seconds = plan.recipe.models, plan.recipe.corpus.seconds

    def price(work: Callable[[], float]) -> float | None:
        try:
            with torch.inference_mode():
                return work()
        except ModelError:
            return None

    def encoding() -> float:
        codec = hub.build(hub.CODECS, models.codec)
        wave = torch.randn(1, int(seconds * codec.sample_rate) // codec.hop * codec.hop)
        return _once_or_twice(lambda: codec.encode(wave))

    def decoding() -> float:
        codec = hub.build(hub.CODECS, models.codec)
        latents = torch.randn(1, plan.frames, codec.latent_dim)
        return _once_or_twice(lambda: codec.decode(latents))

    def hearing() -> float:
        ears = (hub.build(hub.CLAPS, models.clap), hub.build(hub.AUDIO_EMBEDDERS, models.audio_embedder))
        waves = [torch.randn(1, int(seconds * ear.sample_rate)) for ear in ears]
        return sum(
            _once_or_twice(lambda ear=ear, wave=wave: ear.audio(wave))  # type: ignore[misc]
            for ear, wave in zip(ears, waves, strict=True)
        )

    return price(encoding), price(decoding), price(hearing)


def _once_or_twice(work: Callable[[], object]) -> float:
    """Seconds of `work`; what is over quickly is done again, because the first time is slower."""
    first = seconds_of(work)
    return first if first > 1 else min(first, seconds_of(work))
