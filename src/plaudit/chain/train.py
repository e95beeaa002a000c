"""The training steps: SFT, expert iteration, cross-load, CRPO. Each leaves a model folder for the next."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import plaudit
from plaudit import hub
from plaudit.assets import read_json, write_json
from plaudit.audio import read_audio
from plaudit.backbone.config import PRESETS, BackboneConfig
from plaudit.backbone.cross_loading import cross_load
from plaudit.backbone.flops import TRAINING, forward_flops
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.backbone.initialization import initialize
from plaudit.chain.data import labels, reward_model, shards
from plaudit.chain.events import training_events
from plaudit.chain.runner import Context
from plaudit.corpus.manifest import Entry
from plaudit.corpus.shards import ShardSet, encode_corpus
from plaudit.errors import RecipeError
from plaudit.evaluate.evaluator import embed_audio
from plaudit.generate.clips import ClipRequest, make_clips
from plaudit.generate.execution import Execution
from plaudit.generate.model import ModelConfig, TextToMusic, save_model
from plaudit.generate.settings import SamplingSettings
from plaudit.models.verifying import require_fit
from plaudit.recipe import Recipe
from plaudit.stages.checkpoints import CHECKPOINTS
from plaudit.stages.crpo import CrpoObjective, choose_pairs
from plaudit.stages.data import Source, TrainingSet
from plaudit.stages.expert_iteration import keep_best
from plaudit.stages.objective import Objective
from plaudit.stages.settings import TrainSettings
from plaudit.stages.sft import SftObjective
from plaudit.stages.training import train
from plaudit.types import Codec, TextEncoder


def sft(context: Context, folder: Path) -> None:
    """Train a new backbone on the labelled corpus."""
    recipe, data = context.recipe, training_rows(context)
    settings = recipe.stages.sft
    config = backbone_config(recipe, context.codec, context.text_encoder)
    backbone = FluxAudio(config)
    initialize(backbone, recipe.backbone.seed)
    backbone.set_statistics(
        torch.as_tensor(data.shards.latent_mean),
        torch.as_tensor(data.shards.latent_std),
        float(data.scores.mean()),
        float(data.scores.std()),
        context.text_encoder.encode([""]),
    )
    model = TextToMusic(
        backbone,
        context.codec,
        context.text_encoder,
        ModelConfig(
            backbone=config,
            codec=recipe.models.codec,
            text_encoder=recipe.models.text_encoder,
            seconds=recipe.corpus.seconds,
            licence=_licence(recipe),
            made={},
            sampling=recipe.sampling,
        ),
    )
    fit_flow(context, model, [data], settings.train, folder)


def expert_iteration(context: Context, folder: Path) -> None:
    """Rounds of: make candidates, rank them, train on corpus + kept, then on the kept alone."""
    settings = context.recipe.stages.expert_iteration
    assert settings is not None
    model = load_stage(context, "sft")
    for number in range(settings.rounds):
        place = folder / f"round-{number + 1}"
        with context.team.lead_first():
            kept = _keep(context, model, place, settings.seed + number * settings.candidates)
        sources = [training_rows(context), replace(kept, weight=settings.oversample)]
        fit_flow(context, model, sources, settings.train, place / "mixed")
        fit_flow(context, model, [kept], settings.polish, place / "polish")
    _save(context, model, folder)


def cross_loaded(context: Context, folder: Path) -> None:
    """Load the weights into the forward of another injection, without training."""
    settings = context.recipe.stages.cross_load
    assert settings is not None
    model = load_stage(context, "expert_iteration")
    config = replace(model.config.backbone, injection=settings.injection)
    backbone, report = cross_load(model.backbone.state_dict(), config)
    write_json(folder / "cross_load.json", asdict(report))
    _save(context, TextToMusic(backbone, model.codec, model.text_encoder, model.config), folder)


def crpo(context: Context, folder: Path) -> None:
    """Make candidates, choose pairs by CLAP, and tune on them against a frozen reference."""
    settings = context.recipe.stages.crpo
    assert settings is not None
    model, reference = load_stage(context, "cross_load"), load_stage(context, "cross_load").backbone
    captions = training_captions(context, settings.captions, settings.seed)
    prompts = [caption for caption in captions for _ in range(settings.candidates)]
    with context.team.lead_first():
        made = candidates(context, model, prompts, settings.seed, context.recipe.sampling.score, folder / "candidates")
        pairs = choose_pairs(made.prompts, made.clap, settings.pairs)
        write_json(folder / "pairs.json", [asdict(pair) for pair in pairs])
        (won, won_rows), (lost, lost_rows) = (
            encoded(context, made, [getattr(pair, side) for pair in pairs], folder / f"{side}s")
            for side in ("winner", "loser")
        )
    usable = [pair for pair in pairs if pair.winner in won_rows and pair.loser in lost_rows]
    scores = np.full(len(usable), np.nan if made.score is None else made.score)
    winners = Source(won, np.array([won_rows[pair.winner] for pair in usable]), scores)
    losers = Source(lost, np.array([lost_rows[pair.loser] for pair in usable]), scores)
    reference.requires_grad_(False)
    objective = CrpoObjective(model.backbone, reference, winners, losers, settings)
    # Of each pair both clips pass the trained network forward and back, and the reference forward.
    _train(context, model, objective, settings.train, folder, passes=2 * TRAINING + 2)
    _save(context, model, folder)


@dataclass(frozen=True)
class Candidates:
    """Clips a model made for `prompts`, asked for `score`, with what reward and CLAP say of each."""

    prompts: list[str]
    paths: list[Path]
    score: float | None
    reward: np.ndarray
    clap: np.ndarray


def candidates(
    context: Context, model: TextToMusic, prompts: list[str], seed: int, score: float | None, folder: Path
) -> Candidates:
    """Generate one clip per prompt, with seeds from `seed` on, and score them; continues a folder half made."""
    requests = [ClipRequest(f"{i:05d}", prompt, seed + i) for i, prompt in enumerate(prompts)]
    settings, batches = sampling_settings(context, score), Execution(batch=context.recipe.generation_batch)
    with context.reporter.progress("candidates") as advance:
        paths = make_clips(model, requests, settings, folder, batches, progress=advance)
    if not (folder / "scores.json").exists():
        waves = [torch.from_numpy(read_audio(path)[0]) for path in paths]
        rate = model.codec.sample_rate
        with torch.inference_mode():
            reward = reward_model(context).score(waves, rate, prompts).numpy()
            clap = (embed_audio(context.clap, waves, rate) * context.clap.text(prompts).numpy()).sum(1)
        write_json(folder / "scores.json", {"reward": reward.tolist(), "clap": clap.tolist()})
    scores = read_json(folder / "scores.json")
    return Candidates(prompts, paths, score, np.array(scores["reward"]), np.array(scores["clap"]))


def encoded(context: Context, made: Candidates, chosen: list[int], folder: Path) -> tuple[ShardSet, dict[int, int]]:
    """Some of the candidates as a shard set, and the row of each; one that can't be used as audio has no row."""
    if context.team.leads:
        encode_corpus(
            _Chosen([Entry(f"{i:05d}", made.prompts[i], "train", "generated", None, made.paths[i]) for i in chosen]),
            context.codec,
            context.text_encoder,
            folder,
            context.recipe.corpus.seconds,
        )
    found = ShardSet(folder, verify=False)
    return found, {int(id): row for row, id in enumerate(found.ids)}


@dataclass(frozen=True)
class _Chosen:
    """Chosen candidates as a corpus."""

    chosen: list[Entry]
    name: str = "generated"

    def entries(self) -> list[Entry]:
        return self.chosen

    def load(self, entry: Entry) -> tuple[np.ndarray, int]:
        assert entry.path is not None
        return read_audio(entry.path)


def _keep(context: Context, model: TextToMusic, folder: Path, seed: int) -> Source:
    """One round's candidates, the best of them, and these as a training source: their rewards are their conditions."""
    settings = context.recipe.stages.expert_iteration
    assert settings is not None
    captions = training_captions(context, settings.candidates, seed)
    made = candidates(context, model, captions, seed, settings.score, folder / "candidates")
    chosen = keep_best(made.reward, made.clap, settings.keep)
    kept = [{"clip": made.paths[i].name, "reward": made.reward[i], "clap": made.clap[i]} for i in chosen]
    write_json(folder / "kept.json", kept)
    found, rows = encoded(context, made, chosen.tolist(), folder / "kept")
    usable = [i for i in chosen.tolist() if i in rows]
    return Source(found, np.array([rows[i] for i in usable]), made.reward[usable])


def training_rows(context: Context) -> Source:
    """The training split of the corpus with its rewards."""
    found = shards(context)
    rows = found.rows("train")
    return Source(found, rows, labels(context)[rows])


def training_captions(context: Context, count: int, seed: int) -> list[str]:
    """`count` captions of the training split, without repetition as far as there are enough."""
    source = training_rows(context)
    distinct = sorted({source.shards.captions[row] for row in source.rows})
    order = np.random.default_rng(seed).permutation(len(distinct))
    return [distinct[order[i % len(distinct)]] for i in range(count)]


def sampling_settings(context: Context, score: float | None) -> SamplingSettings:
    """The recipe's sampling, asking for `score`."""
    return context.recipe.sampling.model_copy(update={"score": score})


def load_stage(context: Context, stage: str) -> TextToMusic:
    """The model that a stage of this run left."""
    return hub.load(str(context.path(stage)), str(context.accelerator.device))


def fit_flow(
    context: Context, model: TextToMusic, sources: list[Source], settings: TrainSettings, folder: Path
) -> None:
    """Flow training on `sources`; leaves a model folder, and takes the weights from it where it is there already."""
    if context.team.told((folder / "config.json").exists()):
        model.backbone.load_state_dict(hub.load(str(folder)).backbone.state_dict())
        return
    objective = SftObjective(model.backbone, TrainingSet(sources, settings.seed), settings)
    _train(context, model, objective, settings, folder, passes=TRAINING)
    _save(context, model, folder)


def _train(
    context: Context, model: TextToMusic, objective: Objective, settings: TrainSettings, work: Path, passes: int
) -> None:
    """Train the model's backbone, once its parts are seen to fit; its average then takes the place of its weights.

    passes: forward passes of the backbone that one clip's part of an update costs.
    """
    require_fit(model)
    loop, events = context.recipe.loop, training_events(context, model, settings, work)
    flops = passes * forward_flops(model.backbone.config, model.frames)
    with context.reporter.progress(f"training {work.name}") as advance:
        ema = train(model.backbone, objective, settings, work, context.accelerator, advance, loop, events, flops)
    if settings.steps:
        ema.copy_to(model.backbone)


def backbone_config(recipe: Recipe, codec: Codec, text: TextEncoder) -> BackboneConfig:
    """The recipe's preset and overrides; what it takes in has the sizes of the codec and the text encoder."""
    taken = {
        "latent_dim": codec.latent_dim,
        "text_dim": text.token_dim,
        "text_c_dim": text.pooled_dim,
        "text_length": text.length,
    }
    for name, size in taken.items():
        if recipe.backbone.overrides.get(name, size) != size:
            raise RecipeError(f"backbone.overrides.{name} is {size} with this codec and text encoder; leave it out")
    sizes = {**recipe.backbone.overrides, **taken}
    return replace(PRESETS[recipe.backbone.preset], injection=recipe.stages.sft.injection, **sizes)


def _licence(recipe: Recipe) -> str:
    """Of weights trained on the synthetic world alone it is known; elsewhere the data's owner decides."""
    parts = {recipe.models.codec, recipe.models.text_encoder}
    own = recipe.corpus.kind == "embedded" and parts <= hub.SHIPPED.keys()
    return "Apache-2.0" if own else "not stated; those of the data, the reward and the parts named here apply"


def _save(context: Context, model: TextToMusic, folder: Path) -> None:
    made: dict[str, Any] = {
        "recipe": context.recipe.name,
        "recipe_hash": context.recipe.fingerprint(),
        "stage": folder.name,
        "version": plaudit.__version__,
    }
    model.config = replace(model.config, backbone=model.backbone.config, made=made)
    if context.team.leads:
        save_model(folder, model)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
