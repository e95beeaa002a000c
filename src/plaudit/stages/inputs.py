"""Inputs of stages: the previous model, training data, candidates, preference pairs, and the training loop."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from plaudit import loading
from plaudit.audio import read_audio
from plaudit.backbone.base import FORWARD_AND_BACKWARD
from plaudit.corpus.manifest import Entry, ListedCorpus
from plaudit.corpus.shards import ShardSet, encode_corpus
from plaudit.devices import batched
from plaudit.errors import RecipeError
from plaudit.evaluate.embeddings import embed_waves
from plaudit.generate.clips import ClipRequest, generate_clips
from plaudit.generate.model import TextToMusic, save_model
from plaudit.generate.settings import Execution, Guidance, SamplingSettings
from plaudit.models.inspecting import require_fit
from plaudit.reward.scoring import score_waves
from plaudit.stages import Use
from plaudit.storage import read_json, write_json
from plaudit.training.checkpoints import CHECKPOINTS
from plaudit.training.data import Source, validation_losses
from plaudit.training.distributed import ProcessGroup
from plaudit.training.loop import Callback, Objective, train
from plaudit.training.lora import add_adapters, merge_adapters, without_adapters
from plaudit.training.settings import LoopSettings, TrainSettings
from plaudit.types import AudioEmbedder, Codec, Embedder, Reward, TextEncoder

VALIDATION, SAMPLES, ADAPTERS = "validation", "samples", "adapters"


class FrozenModels:
    """The frozen models around the backbone, by name, each loaded once to `device`."""

    def __init__(
        self, codec: str, text_encoder: str, clap: str, audio_embedder: str, device: str | torch.device = "auto"
    ) -> None:
        self.names = {"codec": codec, "text_encoder": text_encoder, "clap": clap, "audio_embedder": audio_embedder}
        self.device = device

    @cached_property
    def codec(self) -> Codec:
        """The codec."""
        return loading.load_part(loading.CODECS, self.names["codec"], self.device)

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """The text encoder."""
        return loading.load_part(loading.TEXT_ENCODERS, self.names["text_encoder"], self.device)

    @cached_property
    def clap(self) -> Embedder:
        """Part of the reward, and the measure of text-audio agreement."""
        return loading.load_part(loading.CLAPS, self.names["clap"], self.device)

    @cached_property
    def audio_embedder(self) -> AudioEmbedder:
        """The reward's second encoder of audio (MERT's place)."""
        return loading.load_part(loading.AUDIO_ENCODERS, self.names["audio_embedder"], self.device)


@dataclass(frozen=True)
class Candidates:
    """Clips sampled for `prompts` under the conditioning score `score`, with the reward and CLAP score of each."""

    prompts: list[str]
    paths: list[Path]
    score: float | None
    reward: np.ndarray
    clap: np.ndarray


@dataclass(frozen=True)
class StageInputs:
    """The inputs of one stage, limited to those its class names in `uses`.

    start: loads the model to start from. rows: the clips of a split with their rewards. pairs_folder: of the last pairs
    stage. provenance: what the config.json of the stage's model says of its origin.
    """

    uses: tuple[Use, ...]
    start: Callable[[], TextToMusic]
    rows: Callable[[str], Source]
    pairs_folder: Path | None
    models: FrozenModels
    reward: Callable[[], Reward]
    sampling: SamplingSettings
    sampling_batch: int
    seconds: float
    loop: LoopSettings
    provenance: dict[str, Any]
    accelerator: Accelerator
    processes: ProcessGroup
    progress: Callable[[str], AbstractContextManager[Callable[[int, int], None]]]

    def model(self) -> TextToMusic:
        """A fresh copy of the model that the stage starts from; a second call gives a second copy."""
        return self.start()

    def corpus(self) -> Source:
        """The training split of the corpus with its rewards."""
        self._require("corpus", "candidates")
        return self.rows("train")

    def pairs(self) -> Path:
        """The folder of the last pairs stage before this one."""
        self._require("pairs")
        assert self.pairs_folder is not None  # validated with the recipe
        return self.pairs_folder

    def captions(self, count: int, seed: int) -> list[str]:
        """`count` captions of the training split, without repetition as far as there are enough."""
        source = self.corpus()
        distinct = sorted({source.shards.captions[row] for row in source.rows})
        order = np.random.default_rng(seed).permutation(len(distinct))
        return [distinct[order[i % len(distinct)]] for i in range(count)]

    def candidates(
        self,
        model: TextToMusic,
        prompts: list[str],
        seed: int,
        score: float | None,
        folder: Path,
        reward_prompts: list[str] | None = None,
        guidance: Guidance | None = None,
    ) -> Candidates:
        """Sample one clip per prompt, with seeds from `seed` on, and score them; continues an unfinished folder.

        reward_prompts: what the reward is given with the clips, in place of their prompts. guidance: by default the
        recipe's.
        """
        self._require("candidates")
        requests = [ClipRequest(f"{i:05d}", prompt, seed + i) for i, prompt in enumerate(prompts)]
        settings = self.sampling.model_copy(update={"score": score, "guidance": guidance or self.sampling.guidance})
        with self.progress("candidates") as advance:
            paths = generate_clips(
                model, requests, settings, folder, Execution(batch=self.sampling_batch), progress=advance
            )
        if not (folder / "scores.json").exists():
            waves = [torch.from_numpy(read_audio(path)[0]) for path in paths]
            rate = model.codec.sample_rate
            with torch.inference_mode():
                reward = score_waves(self.reward(), waves, rate, reward_prompts or prompts).numpy()
                text = batched(self.models.clap, self.models.clap.text, prompts).numpy()
                clap = (embed_waves(self.models.clap, waves, rate) * text).sum(1)
            write_json(folder / "scores.json", {"reward": reward.tolist(), "clap": clap.tolist()})
        scores = read_json(folder / "scores.json")
        reward, clap = (np.array(scores[name], dtype=np.float64) for name in ("reward", "clap"))
        return Candidates(prompts, paths, score, reward, clap)

    def encode(self, clips: dict[str, tuple[str, Path]], folder: Path) -> ShardSet:
        """Audio files by id, each with its caption, as a shard set; unusable audio is listed in its quarantine."""
        self._require("candidates")
        if self.processes.is_main:
            entries = [Entry(id, caption, "train", "generated", None, path) for id, (caption, path) in clips.items()]
            corpus = ListedCorpus("generated", entries)
            encode_corpus(corpus, self.models.codec, self.models.text_encoder, folder, self.seconds)
        return ShardSet(folder, verify=False)

    def train(
        self,
        model: TextToMusic,
        objective: Objective,
        settings: TrainSettings,
        folder: Path,
        trained: int = 1,
        frozen: int = 0,
    ) -> None:
        """Train the model's backbone in place, up to its raw weights or their running average, as the settings say.

        trained, frozen: how many times one sample passes the trained network, forward and backward, and a frozen one.
        Adapters, where the settings ask for them, are saved in `folder` and merged.
        """
        self._require("training")
        require_fit(model)
        callbacks = self._callbacks(model, settings, folder)
        adapters = add_adapters(model.backbone, settings.lora, settings.seed) if settings.lora is not None else None
        # The gradients of frozen weights, a third of the products, are not computed.
        passes = trained * (FORWARD_AND_BACKWARD if adapters is None else FORWARD_AND_BACKWARD - 1) + frozen
        flops = passes * model.backbone.forward_flops(model.frames)
        with self.progress(f"training {folder.name}") as advance:
            ema = train(
                model.backbone, objective, settings, folder, self.accelerator, advance, self.loop, callbacks, flops
            )
        if settings.steps and settings.weights == "ema":
            ema.copy_to(model.backbone)
        if adapters is not None:
            merge_adapters(adapters, model.backbone, folder / ADAPTERS)

    def load_finished(self, model: TextToMusic, folder: Path) -> bool:
        """Whether `folder` holds a saved model; its weights are then loaded into `model`."""
        if not self.processes.broadcast((folder / "config.json").exists()):
            return False
        saved = loading.load(str(folder), "cpu")
        model.backbone.load_state_dict(saved.backbone.state_dict())
        model.config = saved.config
        return True

    def save(self, model: TextToMusic, folder: Path) -> None:
        """Save the model of a stage, or of a pass within one, and remove the pass's checkpoints."""
        provenance = {**self.provenance, "stage": folder.name}
        model.config = replace(model.config, backbone=model.backbone.config, provenance=provenance)
        if self.processes.is_main:
            save_model(folder, model)
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)

    def _require(self, *uses: Use) -> None:
        if not set(uses) & set(self.uses):
            raise RecipeError(f"this stage uses {uses[0]} and doesn't declare it; add it to the class's `uses`")

    def _callbacks(self, model: TextToMusic, settings: TrainSettings, folder: Path) -> list[Callback]:
        """Validation losses to `validation.jsonl` and sample clips to `samples/<step>/`, as `training_loop` says.

        model: the one in training, with its adapters.
        """
        loop, callbacks = self.loop, []
        if loop.validate_every:
            held_out = self.rows("validation")
            if not len(held_out.rows):
                raise RecipeError("training_loop.validate_every needs held-out clips; raise corpus.validation_fraction")

            def validate(step: int) -> dict[str, float]:
                with self.accelerator.autocast():
                    return validation_losses(model.backbone, held_out, loop.validation_clips, settings.batch)

            callbacks.append(Callback(VALIDATION, loop.validate_every, validate))
        if loop.sample_every:
            requests = [ClipRequest(f"{i:02d}", prompt, i) for i, prompt in enumerate(loop.sample_prompts)]

            def sample(step: int) -> dict[str, float]:
                plain = model if settings.lora is None else replace(model, backbone=without_adapters(model.backbone))
                clips = folder / SAMPLES / f"{step:08d}"
                generate_clips(plain, requests, self.sampling, clips, Execution(batch=len(requests)))
                return {}

            callbacks.append(Callback(SAMPLES, loop.sample_every, sample))
        return callbacks
