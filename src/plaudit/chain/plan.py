"""What a run will cost, from its recipe alone: the work of each step, in units whose prices a machine is asked for.

Neither data nor models need to be there. Steps that are not named here (votes, reward, labels, report) cost little
beside the others and are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from plaudit import hub
from plaudit.backbone.config import PRESETS, RATES, BackboneConfig
from plaudit.backbone.flops import TRAINING, forward_flops
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.chain.data import list_clips
from plaudit.chain.results import stages_of
from plaudit.chain.stage_models import FIRST_INJECTION
from plaudit.corpus.shard_set import ShardSet
from plaudit.errors import CorpusError, ModelError, RecipeError
from plaudit.flow.guidance import branches
from plaudit.generate.model import read_model_config
from plaudit.recipe import Recipe
from plaudit.stages.lora import adapted_layers
from plaudit.stages.pairs import read_pairs
from plaudit.stages.settings import TrainSettings

EVALUATIONS = {"euler": 1, "heun": 2, "midpoint": 2, "ab2": 1}
"""Velocities that a solver's step takes."""

FLOAT, AVERAGES, MOMENTS = 4, 2, 2
"""Bytes of a weight in training; running averages kept; moments of AdamW."""


@dataclass(frozen=True)
class Work:
    """What a step does. training, sampling: floating-point operations; encoded, decoded, heard: clips through the
    codec, and before reward and CLAP. unknown: what can't be told without the data. memory: bytes on the device but for
    activations; clips: of which so many clips' are held at once."""

    what: str
    training: float = 0.0
    sampling: float = 0.0
    encoded: int = 0
    decoded: int = 0
    heard: int = 0
    memory: int = 0
    clips: int = 0
    unknown: str = ""


@dataclass(frozen=True)
class Prices:
    """What the machine at hand takes. training, sampling: operations a second that it reaches in this network; encode,
    decode, hear: seconds a clip, None where the model is not here. activations: bytes that one clip leaves for the
    backward pass, and `cast` what a pass of any number leaves once. facts: what else was measured, for people."""

    training: float
    sampling: float
    encode: float | None
    decode: float | None
    hear: float | None
    activations: float
    cast: float
    facts: dict[str, object] = field(default_factory=dict)

    def seconds(self, work: Work) -> float:
        """How long `work` takes, as far as its prices are known."""
        clips = ((work.encoded, self.encode), (work.decoded, self.decode), (work.heard, self.hear))
        known = sum(count * price for count, price in clips if price is not None)
        return work.training / self.training + work.sampling / self.sampling + known

    def unpriced(self, work: Work) -> list[str]:
        """What is not in `seconds` because it was not measured."""
        names = {"encoding": (work.encoded, self.encode), "decoding": (work.decoded, self.decode)}
        names["hearing"] = (work.heard, self.hear)
        return [name for name, (count, price) in names.items() if count and price is None]

    def memory(self, work: Work) -> float:
        """Bytes that training holds on the device at once; 0 for a step that doesn't train."""
        return work.memory + self.cast + work.clips * self.activations if work.memory else 0.0


class Plan:
    """The work of a recipe's steps."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @cached_property
    def backbone(self) -> BackboneConfig:
        """The network's sizes: of the model that training starts from, where it is here, or of the preset."""
        settings, injection = self.recipe.backbone, self.recipe.stages.sft.injection or FIRST_INJECTION
        try:
            if settings.start_from is not None:
                return read_model_config(hub.model_folder(settings.start_from, hub.MODELS)).backbone
        except ModelError:
            pass
        return replace(PRESETS[settings.preset], injection=injection, **settings.overrides)

    @cached_property
    def frames(self) -> int:
        """Latent frames of a clip."""
        name, preset = self.recipe.models.codec, self.recipe.backbone.preset
        if name in hub.CODECS.named or preset.rsplit("-", 1)[-1] not in RATES:
            codec = hub.build(hub.CODECS, name)
            rate, hop = codec.sample_rate, codec.hop
        else:
            rate, hop = RATES[preset.rsplit("-", 1)[-1]]
        return int(self.recipe.corpus.seconds * rate / hop + 1e-9)

    @cached_property
    def forward(self) -> int:
        """Operations of one clip's pass."""
        return forward_flops(self.backbone, self.frames)

    @cached_property
    def network(self) -> FluxAudio:
        """The network without any weights, to be counted."""
        with torch.device("meta"):
            return FluxAudio(self.backbone)

    @cached_property
    def clips(self) -> int | None:
        """Clips of the corpus; None where it isn't here."""
        corpus = self.recipe.corpus
        try:
            if corpus.kind == "shards":
                assert corpus.folder is not None  # validated with the recipe
                return len(ShardSet(corpus.folder, verify=False))
            return corpus.size if corpus.kind == "embedded" else sum(not e.problem for e in list_clips(corpus).entries)
        except CorpusError:
            return None

    def works(self) -> dict[str, Work]:
        """The work of every step that is counted, by the step's name."""
        stages = self.recipe.stages
        found = self._of_data()
        found["sft"] = self.trained(stages.sft.train)
        if stages.expert_iteration is not None:
            found["expert_iteration"] = self._of_experts()
        if stages.pairs is not None:
            found["pairs"] = self._of_pairs()
        if stages.crpo is not None:
            found["crpo"] = self.trained(stages.crpo.train, sides=2, frozen=2)
        if stages.nft is not None:
            found["nft"] = self.trained(stages.nft.train, frozen=1)
        return found | self._of_results()

    def trained(self, settings: TrainSettings, sides: int = 1, frozen: int = 0) -> Work:
        """A training pass. sides: how many clips one of the batch is; frozen: passes of a frozen network for it."""
        every, trained = self._parameters(settings)
        passes = sides * (TRAINING if settings.lora is None else TRAINING - 1) + frozen
        clips = settings.steps * settings.batch * settings.accumulate
        weights = every * (2 if frozen else 1) + trained * (1 + MOMENTS + AVERAGES)  # the 1 is the gradient
        what = f"{settings.steps:,} updates of {settings.batch * settings.accumulate}{' pairs' * (sides == 2)}"
        memory = FLOAT * weights if settings.steps else 0
        return Work(what, training=passes * clips * self.forward, memory=memory, clips=sides * settings.batch)

    def _parameters(self, settings: TrainSettings) -> tuple[int, int]:
        """How many the network has, and how many of them are trained, or stand in adapters."""
        every = sum(p.numel() for p in self.network.parameters())
        if settings.lora is None:
            return every, every
        layers = dict(self.network.named_modules())
        shapes = [layers[name].weight.shape for name in adapted_layers(self.network, settings.lora)]
        adapters = sum(settings.lora.rank * (rows + columns) for rows, columns in shapes)
        return every + adapters, adapters + sum(p.numel() for p in self.network.score.parameters())

    def generated(self, clips: int, scored: bool = True) -> float:
        """Operations of sampling so many clips."""
        sampling = self.recipe.sampling
        passes = len(branches(sampling.guidance, scored)) * EVALUATIONS[sampling.solver] * sampling.steps
        return clips * passes * self.forward

    def _of_data(self) -> dict[str, Work]:
        if self.recipe.corpus.kind == "shards":
            return {"shards": Work("prepared before")}
        if self.clips is None:
            missing = Work("encoding", unknown="the corpus is not here")
            return {"shards": missing} | ({"features": missing} if self.recipe.reward.kind != "table" else {})
        found = {"shards": Work(f"{self.clips:,} clips encoded", encoded=self.clips)}
        if self.recipe.reward.kind != "table":
            found["features"] = Work(f"{self.clips:,} clips heard", heard=self.clips)
        return found

    def _of_experts(self) -> Work:
        settings = self.recipe.stages.expert_iteration
        assert settings is not None
        made, kept = settings.rounds * settings.candidates, settings.rounds * settings.keep
        mixed = self.trained(settings.train)
        polish = self.trained(settings.polish) if settings.polish is not None else Work("")
        updates = mixed.what + (f", {polish.what}" if polish.what else "")
        return replace(
            mixed,
            what=f"{settings.rounds} x ({settings.candidates:,} clips made, {settings.keep:,} kept, {updates})",
            training=settings.rounds * (mixed.training + polish.training),
            sampling=self.generated(made),
            encoded=kept,
            decoded=made,
            heard=made,
            memory=max(mixed.memory, polish.memory),
            clips=max(mixed.clips, polish.clips),
        )

    def _of_pairs(self) -> Work:
        settings = self.recipe.stages.pairs
        assert settings is not None
        if settings.read_from is not None:
            try:
                given = min(len(read_pairs(settings.read_from)), settings.pairs)
                return Work(f"{given:,} pairs read", encoded=2 * given)
            except CorpusError:
                return Work("pairs read", unknown="the pairs are not here")
        made = settings.captions * settings.candidates
        what = f"{made:,} clips made, at most {settings.pairs:,} pairs"
        return Work(what, sampling=self.generated(made), encoded=made, decoded=made, heard=made)

    def _of_results(self) -> dict[str, Work]:
        evaluate, shown = self.recipe.evaluate, stages_of(self.recipe)
        count = self.reference
        found = {"reference": Work(f"{count or 'all':,} clips heard" if count else "clips heard", heard=count or 0)}
        if count is None:
            found["reference"] = replace(found["reference"], unknown="the corpus is not here")
        elif self.recipe.corpus.kind == "shards":
            found["reference"] = replace(found["reference"], decoded=count)
        for stage in shown:
            sampling = self.generated(evaluate.prompts, scored=stage != "baseline")
            what = f"{evaluate.prompts} clips made"
            found[f"clips-{stage}"] = Work(what, sampling=sampling, decoded=evaluate.prompts)
        for stage in (*shown, "finished"):
            found[f"scores-{stage}"] = Work(f"{evaluate.prompts} clips heard", heard=evaluate.prompts)
        clips = len(evaluate.sweep_scores) * evaluate.sweep_prompts
        for stage in dict.fromkeys(["sft", shown[-1]]):
            what = f"{clips} clips made and heard"
            found[f"sweep-{stage}"] = Work(what, sampling=self.generated(clips), decoded=clips, heard=clips)
        return found

    @property
    def reference(self) -> int | None:
        """Clips that generated ones are compared with; None where that hangs on data that is not here."""
        recipe = self.recipe
        if recipe.corpus.kind == "folder":
            return self.clips
        return recipe.evaluate.reference


def checked(plan: Plan) -> Plan:
    """The plan, once its sizes are seen to be tellable; RecipeError where neither preset nor codec tells them."""
    try:
        assert plan.forward
    except ModelError as error:
        raise RecipeError(f"the sizes of this recipe can't be told without its codec: {error}") from None
    return plan
