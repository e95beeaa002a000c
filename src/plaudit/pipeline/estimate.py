"""`plaudit run --dry-run`: the cost of a recipe's steps on this machine.

Neither data nor models need to be there. Steps that cost little (votes, reward, report) are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from plaudit import loading
from plaudit.audio import audio_under
from plaudit.backbone.base import FORWARD_AND_BACKWARD, Backbone, build_backbone, configure, initialize
from plaudit.backbone.compiling import blocks_of, restore_blocks
from plaudit.backbone.config import RATES, BackboneConfig
from plaudit.backbone.ema import KEPT_LENGTHS
from plaudit.corpus.sources import CorpusSource, corpus_source
from plaudit.devices import batched
from plaudit.errors import CorpusError, ModelError, RecipeError, RunError
from plaudit.flow import branches, flow_loss
from plaudit.generate.model import read_model_config
from plaudit.generate.sampling import Sampler
from plaudit.generate.settings import Execution, Guidance
from plaudit.machine import matrix_peak, seconds_of
from plaudit.pipeline.models import FIRST_INJECTION
from plaudit.pipeline.requirements import training_passes
from plaudit.pipeline.results import stages_of
from plaudit.recipe import ROWS, Recipe, stage_of
from plaudit.stages import StepCost
from plaudit.training.distributed import checkpoint_blocks
from plaudit.training.lora import adapted_layers
from plaudit.training.settings import TrainSettings
from plaudit.types import TextFeatures
from plaudit.workers import thread_count

EVALUATIONS = {"euler": 1, "heun": 2, "midpoint": 2, "ab2": 1, "heun-euler": 2}
"""Evaluations of the velocity in one step of a solver."""

FLOAT, MOMENTS = 4, 2
"""Bytes of a weight in training; moments of AdamW."""


@dataclass(frozen=True)
class UnitCosts:
    """Costs measured on this machine. training, sampling: operations a second in this network. encode, decode, embed:
    seconds a clip, None where the model is missing. activations: bytes kept for the backward pass by one clip; cast:
    by a pass of any number of clips. facts: other measurements, for people."""

    training: float
    sampling: float
    encode: float | None
    decode: float | None
    embed: float | None
    activations: float
    cast: float
    facts: dict[str, object] = field(default_factory=dict)

    def seconds(self, work: StepCost) -> float:
        """The seconds that `work` takes, as far as its unit costs were measured."""
        clips = ((work.to_encode, self.encode), (work.to_decode, self.decode), (work.to_embed, self.embed))
        of_clips = sum(count * cost for count, cost in clips if cost is not None)
        return work.training / self.training + work.sampling / self.sampling + of_clips

    def without_cost(self, work: StepCost) -> list[str]:
        """The parts of `work` that `seconds` leaves out because they were not measured."""
        names = {"encoding": (work.to_encode, self.encode), "decoding": (work.to_decode, self.decode)}
        names["embedding"] = (work.to_embed, self.embed)
        return [name for name, (count, cost) in names.items() if count and cost is None]

    def memory(self, work: StepCost) -> float:
        """Bytes that training holds on the device at once; 0 for a step that doesn't train."""
        return work.memory + self.cast + work.clips * self.activations if work.memory else 0.0


class CostEstimate:
    """The work of a recipe's steps."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @cached_property
    def backbone(self) -> BackboneConfig:
        """The network's sizes: of the model that training starts from, where it is here, or of the preset."""
        settings = self.recipe.backbone
        injection = settings.injection or FIRST_INJECTION
        try:
            if settings.start_from is not None:
                return read_model_config(loading.model_folder(settings.start_from, loading.MODELS)).backbone
        except ModelError:
            pass
        return configure(settings.kind, settings.preset, injection, settings.overrides)

    @cached_property
    def frames(self) -> int:
        """Latent frames of a clip."""
        name, preset = self.recipe.models.codec, self.recipe.backbone.preset
        if name in loading.CODECS.builtin or preset.rsplit("-", 1)[-1] not in RATES:
            codec = loading.CODECS.load(name)
            rate, hop = codec.sample_rate, codec.hop
        else:
            rate, hop = RATES[preset.rsplit("-", 1)[-1]]
        return int(self.recipe.corpus.seconds * rate / hop + 1e-9)

    @cached_property
    def forward(self) -> int:
        """Operations of one clip's pass."""
        return self.network.forward_flops(self.frames)

    @cached_property
    def network(self) -> Backbone:
        """The network without any weights, to be counted."""
        with torch.device("meta"):
            return build_backbone(self.backbone)

    @cached_property
    def source(self) -> CorpusSource:
        """The corpus."""
        return corpus_source(self.recipe.corpus)

    @cached_property
    def clips(self) -> int | None:
        """Clips of the corpus; None where it is missing."""
        try:
            return self.source.count()
        except CorpusError:
            return None

    def works(self) -> dict[str, StepCost]:
        """The work of every step that is counted, by the step's name."""
        stages = {stage.name: stage_of(stage).cost(stage, self) for stage in self.recipe.stages}
        return self._of_data() | stages | self._of_results()

    def training(self, settings: TrainSettings, sides: int = 1, frozen: int = 0) -> StepCost:
        """A training pass. sides: clips in one sample; frozen: forward passes of a frozen network for it."""
        total, trained = self._parameters(settings)
        passes = sides * (FORWARD_AND_BACKWARD if settings.lora is None else FORWARD_AND_BACKWARD - 1) + frozen
        clips = settings.steps * settings.batch * settings.accumulate
        averages = len({settings.ema.sigma_rel, *KEPT_LENGTHS}) + (settings.ema.decay is not None)
        weights = total * (2 if frozen else 1) + trained * (1 + MOMENTS + averages)  # the 1 is the gradient
        what = f"{settings.steps:,} updates of {settings.batch * settings.accumulate}{' pairs' * (sides == 2)}"
        memory = FLOAT * weights if settings.steps else 0
        return StepCost(what, training=passes * clips * self.forward, memory=memory, clips=sides * settings.batch)

    def _parameters(self, settings: TrainSettings) -> tuple[int, int]:
        """Parameters of the network, and those that are trained, or are in adapters."""
        total = sum(p.numel() for p in self.network.parameters())
        if settings.lora is None:
            return total, total
        layers = dict(self.network.named_modules())
        shapes = [layers[name].weight.shape for name in adapted_layers(self.network, settings.lora)]
        adapters = sum(settings.lora.rank * (rows + columns) for rows, columns in shapes)
        return total + adapters, adapters + sum(p.numel() for p in self.network.score.parameters())

    def sampling(
        self, clips: int, guidance: Guidance | None = None, scored: bool = True, stage: str | None = None
    ) -> float:
        """Operations of sampling so many clips of a stage's model, or as the recipe's `sampling` says."""
        sampling = self.recipe.sampling if stage is None else self.recipe.sampling_of(stage)
        passes = len(branches(guidance or sampling.guidance, scored)) * EVALUATIONS[sampling.solver] * sampling.steps
        return clips * passes * self.forward

    def _of_data(self) -> dict[str, StepCost]:
        if not self.source.has_audio:
            return {"shards": StepCost("prepared before")}
        scoring = {"train": "features", "load": "labels", "table": ""}[self.recipe.reward.kind]
        if self.clips is None:
            missing = StepCost("encoding", unknown="the corpus is not here")
            return {"shards": missing} | ({scoring: missing} if scoring else {})
        costs = {"shards": StepCost(f"{self.clips:,} clips encoded", to_encode=self.clips)}
        if scoring:
            costs[scoring] = StepCost(f"{self.clips:,} clip embeddings", to_embed=self.clips)
        return costs

    def _of_results(self) -> dict[str, StepCost]:
        evaluate, shown = self.recipe.evaluate, stages_of(self.recipe)
        count = self.reference
        what = f"{count:,} clip embeddings" if count else "clip embeddings"
        costs = {"reference": StepCost(what, to_embed=count or 0)}
        if count is None:
            costs["reference"] = replace(costs["reference"], unknown="its music is not here")
        elif evaluate.reference is None and not self.source.has_audio:
            costs["reference"] = replace(costs["reference"], to_decode=count)
        for stage in shown:
            model = self.recipe.model_stages[0] if stage in ROWS else stage
            sampling = self.sampling(evaluate.prompts, scored=stage not in ROWS, stage=model)
            what = f"{evaluate.prompts} clips sampled"
            costs[f"clips-{stage}"] = StepCost(what, sampling=sampling, to_decode=evaluate.prompts)
        for stage in (*shown, "finished"):
            costs[f"values-{stage}"] = StepCost(f"{evaluate.prompts} clip embeddings", to_embed=evaluate.prompts)
        clips = len(evaluate.sweep_scores) * evaluate.sweep_prompts
        for stage in self.recipe.swept_stages:
            what = f"{clips} clips sampled and scored"
            costs[f"sweep-{stage}"] = StepCost(what, sampling=self.sampling(clips), to_decode=clips, to_embed=clips)
        return costs

    @property
    def reference(self) -> int | None:
        """The number of reference clips; None where it depends on missing data."""
        recipe, place = self.recipe, self.recipe.evaluate.reference
        if place is not None:
            return len(audio_under(place)) if place.is_dir() else 0 if place.is_file() else None
        if self.source.has_audio and not self.source.truth_known:
            return self.clips
        return recipe.evaluate.reference_clips


def checked_estimate(plan: CostEstimate) -> CostEstimate:
    """The estimate; RecipeError where neither the preset nor the codec gives the network's sizes."""
    try:
        assert plan.forward
    except ModelError as error:
        raise RecipeError(f"the sizes of this recipe's network depend on its codec: {error}") from None
    return plan


MIN_TIMED_FLOPS = 50e9
"""Operations of a forward pass above which larger batches make a CPU no faster (ours)."""


def calibrate(plan: CostEstimate, device: torch.device) -> UnitCosts:
    """Measure: a matrix product, forward and backward of clips in the recipe's network and precision, one solver step
    of sampling, and one clip through codec, CLAP and audio embedder, each where it is here.

    Weights are random. AdamW and averages, which run once an update, are left out. A GPU runs the recipe's batches,
    another device as many of their clips as keep it busy. RunError where these don't fit into memory.
    """
    precision = torch.bfloat16 if plan.recipe.precision == "bf16" else torch.float32
    try:
        training, sampling, small, large = _network(plan, precision, device)
    except (torch.OutOfMemoryError, MemoryError):
        raise RunError("this recipe's batches don't fit into memory here; make them smaller") from None
    peak = matrix_peak(precision, device, repeats=3)
    return UnitCosts(
        training,
        sampling,
        *_frozen(plan, device),
        activations=large - small,
        cast=max(0.0, 2 * small - large),
        facts={
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "threads": thread_count(),
            "matrix_flops": peak,
            "training_share": training / peak,
            "sampling_share": sampling / peak,
        },
    )


def _network(plan: CostEstimate, precision: torch.dtype, device: torch.device) -> tuple[float, float, float, float]:
    """Operations a second in training and in sampling, and bytes kept for the backward pass of one clip and of two."""
    clips, network = _clips(plan, _batch(plan.recipe), device), build_backbone(plan.backbone)
    initialize(network, 0)
    network.to(device)
    step = _TrainingPass(network, plan.frames, precision, plan.recipe.training_loop.activation_checkpointing)
    step.run(clips)
    seconds = min(seconds_of(lambda: step.run(clips)) for _ in range(2))
    small, large = step.activation_bytes(1), step.activation_bytes(2)
    restore_blocks(blocks_of(network))
    return FORWARD_AND_BACKWARD * plan.forward * clips / seconds, _sampling(plan, network.eval()), small, large


def _batch(recipe: Recipe) -> int:
    """The batch of the first training pass."""
    return next((settings.batch for settings in training_passes(recipe)), 1)


def _clips(plan: CostEstimate, batch: int, device: torch.device) -> int:
    return batch if device.type == "cuda" else min(batch, math.ceil(MIN_TIMED_FLOPS / plan.forward))


class _TrainingPass:
    """Forward and backward of random clips, with blocks computed twice where the recipe wants that."""

    def __init__(self, network: Backbone, frames: int, precision: torch.dtype, twice: bool) -> None:
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
        t = torch.rand(clips, device=self.device)
        scores = torch.zeros(clips, device=self.device) if config.injection != "none" else None
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            return flow_loss(self.network(latents, text, t, scores), latents).mean()

    def run(self, clips: int) -> None:
        self.loss(clips).backward()
        self.network.zero_grad(set_to_none=True)

    def activation_bytes(self, clips: int) -> float:
        """Bytes that a forward pass keeps for the backward one, weights aside."""
        weights = {p.untyped_storage().data_ptr() for p in (*self.network.parameters(), *self.network.buffers())}
        sizes: dict[int, int] = {}
        alive: list[Tensor] = []  # so that no address is used twice

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                sizes[storage.data_ptr()] = storage.nbytes()
                alive.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            self.loss(clips)
        return float(sum(sizes.values()) + clips * self.inputs)


def random_text(length: int, width: int, pooled: int, clips: int, device: torch.device) -> TextFeatures:
    """Features of no text."""
    return TextFeatures(torch.randn(clips, length, width, device=device), torch.randn(clips, pooled, device=device))


def _sampling(plan: CostEstimate, network: Backbone) -> float:
    """Operations a second of sampling: a step of the recipe's solver, guided, in its precision."""
    score = 0.0 if plan.backbone.injection != "none" else None
    settings = plan.recipe.sampling.model_copy(update={"steps": 1, "score": score})
    device = network.latent_mean.device
    clips = _clips(plan, plan.recipe.sampling_batch, device)
    sampler = Sampler.build(network, settings, plan.frames, Execution(batch=clips))
    config = network.config
    text = random_text(config.text_length, config.text_dim, config.text_c_dim, clips, device)
    negative, seeds = network.empty_text(1), list(range(clips))
    sampler.latents(text, negative, seeds)
    seconds = min(seconds_of(lambda: sampler.latents(text, negative, seeds)) for _ in range(2))
    return plan.sampling(clips, scored=score is not None) / plan.recipe.sampling.steps / seconds


def _frozen(plan: CostEstimate, device: torch.device) -> tuple[float | None, float | None, float | None]:
    """Seconds a clip of encoding, decoding and embedding; None where the model is missing."""
    models, seconds = plan.recipe.models, plan.recipe.corpus.seconds

    def measured(work: Callable[[], float]) -> float | None:
        try:
            with torch.inference_mode():
                return work()
        except ModelError:
            return None

    def encoding() -> float:
        codec = loading.load_part(loading.CODECS, models.codec, device)
        wave = torch.randn(1, int(seconds * codec.sample_rate) // codec.hop * codec.hop)
        return _once_or_twice(lambda: batched(codec, codec.encode, wave))

    def decoding() -> float:
        codec = loading.load_part(loading.CODECS, models.codec, device)
        latents = torch.randn(1, plan.frames, codec.latent_dim)
        return _once_or_twice(lambda: batched(codec, codec.decode, latents))

    def embedding() -> float:
        clap = loading.load_part(loading.CLAPS, models.clap, device)
        encoders = (clap, loading.load_part(loading.AUDIO_ENCODERS, models.audio_embedder, device))
        waves = [torch.randn(1, int(seconds * encoder.sample_rate)) for encoder in encoders]
        return sum(
            _once_or_twice(partial(batched, encoder, encoder.audio, wave))
            for encoder, wave in zip(encoders, waves, strict=True)
        )

    return measured(encoding), measured(decoding), measured(embedding)


def _once_or_twice(work: Callable[[], object]) -> float:
    """Seconds of `work`; short work is repeated, because the first time is slower."""
    first = seconds_of(work)
    return first if first > 1 else min(first, seconds_of(work))
