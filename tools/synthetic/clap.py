"""Training and evaluation of the synthetic CLAP: matching captions with music."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plaudit.encoders.words import batch_words, words
from plaudit.places import SHIPPED_WEIGHTS
from plaudit.storage import save_module
from plaudit.synthetic.captions import STYLES, caption
from plaudit.synthetic.clap import MEL_HOP, PITCH_HOP, SyntheticCLAP, Views
from plaudit.synthetic.corpus import SyntheticCorpus
from plaudit.synthetic.truth import Truth
from plaudit.types import Embedder
from tools.synthetic.facts import FactHeads, facts_of, stated_facts
from tools.synthetic.loop import FitSettings, fit
from tools.synthetic.pool import Pool, rendered_pool
from tools.synthetic.text import dropped

CLAP_SETTINGS = FitSettings(steps=1600, learning_rate=2e-3, weight_decay=2e-2, checkpoint_every=100)
TRAINING_SEED, HELD_OUT_SEED = 4001, 4002
"""Seeds of the corpora for training and evaluation; corpora of different seeds share no clip."""

FACTS_WEIGHT = 0.3
"""Weight of classifying facts beside matching captions; it shortens training several times (ours)."""


@dataclass(frozen=True)
class Retrieval:
    """Accuracy of ranking a clip's caption first of `candidates`, over `batches`; 95 % interval over batches."""

    accuracy: float
    low: float
    high: float
    candidates: int
    batches: int


class ClapTraining(nn.Module):
    """The CLAP with its learned temperature, and classifiers of facts on both of its embeddings."""

    def __init__(self, clap: SyntheticCLAP) -> None:
        super().__init__()
        self.clap = clap
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.audio_heads, self.text_heads = FactHeads(clap.dim), FactHeads(clap.dim)


def train_clap(
    folder: Path,
    cache: Path,
    weights: Path = SHIPPED_WEIGHTS / "clap",
    settings: FitSettings = CLAP_SETTINGS,
    clips: int = 10_000,
    seconds: float = 6.4,
    crop: float = 4.8,
    batch: int = 128,
    seed: int = 0,
    log: Callable[[str], None] = print,
) -> SyntheticCLAP:
    """Train on `clips` clips, half of them flawed, resuming from `folder`; float16 weights go to `weights`."""
    torch.manual_seed(seed)
    model = ClapTraining(SyntheticCLAP())
    pool = rendered_pool(SyntheticCorpus(clips, seconds, TRAINING_SEED, miscaptioned_fraction=0), cache, "clap")
    views = pool_views(model.clap, pool)

    def losses(step: int) -> dict[str, Tensor]:
        random = np.random.default_rng((seed, step))
        rows = random.choice(len(pool.clips), batch, replace=False)
        truths = [pool.clips[row].truth for row in rows]
        texts = [dropped(words(text), random) for text in random_captions_of(truths, random)]
        audio = model.clap.audio_tower(random_crops(views, rows, crop, random)).float()
        text = model.clap.read(batch_words(texts)).float()
        match, accuracy = contrastive(F.normalize(audio, dim=1), F.normalize(text, dim=1), model.log_scale)
        of_audio = model.audio_heads(audio, facts_of(truths))
        of_text = model.text_heads(text, stated_facts(truths, texts))
        total = match + FACTS_WEIGHT * (sum(of_audio.values()) + sum(of_text.values()))
        return {"loss": total, "match": match, "accuracy": accuracy, "scale": model.log_scale.exp(), **of_audio}

    def export() -> None:
        save_module(weights, model.clap, model.clap.config, torch.float16)

    fit(model, losses, settings, folder, log, export)
    return model.clap.eval()


def contrastive(audio: Tensor, text: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """CLIP's symmetric loss of unit vectors [B, E] (Radford et al. 2021) and the accuracy over audio rows.

    The scale is kept below 100, as there.
    """
    logits = log_scale.clamp(max=math.log(100.0)).exp() * audio @ text.T  # [B, B]
    target = torch.arange(len(logits), device=logits.device)
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    return loss, (logits.argmax(1) == target).float().mean()


def random_captions_of(truths: Sequence[Truth], random: np.random.Generator) -> list[str]:
    """A new caption in a random style for each truth."""
    seeds, styles = random.integers(0, 2**63, len(truths)), random.integers(0, len(STYLES), len(truths))
    return [caption(t, STYLES[s], int(n)) for t, s, n in zip(truths, styles, seeds, strict=True)]


@torch.inference_mode()
def pool_views(clap: SyntheticCLAP, pool: Pool, batch: int = 64) -> Views:
    """Spectral views of every clip of the pool, in float16, computed once."""
    rows = np.arange(len(pool.clips))
    parts = [clap.listening(pool.batch(rows[i : i + batch])) for i in range(0, len(rows), batch)]
    return Views(torch.cat([p.mel.half() for p in parts]), torch.cat([p.pitch.half() for p in parts]))


def random_crops(views: Views, rows: np.ndarray, seconds: float, random: np.random.Generator) -> Views:
    """A random stretch of each clip, up to 3 dB louder or softer; both views show the same stretch."""
    frames = round(seconds * SyntheticCLAP.sample_rate / PITCH_HOP)
    per_frame = PITCH_HOP // MEL_HOP
    starts = random.integers(0, views.pitch.shape[-1] - frames + 1, len(rows))
    gains = torch.from_numpy(random.uniform(-0.075, 0.075, (len(rows), 1, 1)).astype(np.float32))
    mel = [views.mel[r, :, s * per_frame : (s + frames) * per_frame].float() for r, s in zip(rows, starts, strict=True)]
    pitch = [views.pitch[r, :, s : s + frames].float() for r, s in zip(rows, starts, strict=True)]
    return Views(torch.stack(mel) + gains, torch.stack(pitch) + gains)


@torch.inference_mode()
def evaluate_clap(
    clap: Embedder,
    batches: int = 24,
    candidates: int = 32,
    seconds: float = 10.0,
    flawed_fraction: float = 0.0,
    seed: int = HELD_OUT_SEED,
) -> Retrieval:
    """How often a held-out clip's caption ranks first of `candidates`, on batches rendered anew."""
    corpus = SyntheticCorpus(batches * candidates, seconds, seed, flawed_fraction, miscaptioned_fraction=0)
    accuracies = np.empty(batches)
    for i in range(batches):
        clips = corpus.clips[i * candidates : (i + 1) * candidates]
        audio = clap.audio(torch.from_numpy(np.stack([corpus.render(clip) for clip in clips])))
        best = (audio @ clap.text([clip.caption for clip in clips]).T).argmax(1)
        accuracies[i] = float((best == torch.arange(candidates)).float().mean())
    mean, margin = float(accuracies.mean()), 1.96 * float(accuracies.std(ddof=1)) / math.sqrt(batches)
    return Retrieval(mean, mean - margin, mean + margin, candidates, batches)
