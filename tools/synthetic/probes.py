"""Training and evaluation of the simulated listeners' probes."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from plaudit.places import SHIPPED_WEIGHTS
from plaudit.storage import WholeFolder, save_module
from plaudit.synthetic.corpus import SyntheticClip, SyntheticCorpus
from plaudit.synthetic.flaws import FLAWS
from plaudit.synthetic.probes import (
    PROBE_MEL_BANDS,
    TEMPI,
    Measurement,
    ProbeFeatures,
    Probes,
    measure_features,
    probe_features,
    round_trip,
)
from plaudit.synthetic.truth import GENRES, INSTRUMENTS, KEYS, MODES, MOODS, Truth
from plaudit.types import Codec
from tools.synthetic.loop import FitSettings, fit
from tools.synthetic.pool import rendered_pool

TRAINING_SEEDS = {"raw": 71, "codec": 73}
HELD_OUT_SEED = 72


@dataclass(frozen=True)
class ProbeSettings:
    """Settings of the training. `clips`: (seconds, how many) that are rendered, raw and once more for the codec. A step
    takes `batch` clean clips for the attributes and `batch` of all clips for the flaws, of one length, half of them
    raw and half reconstructed by the codec.
    """

    steps: int = 1000
    batch: int = 48
    learning_rate: float = 1.5e-3
    clips: tuple[tuple[float, int], ...] = ((5.0, 3000), (10.0, 600), (3.0, 400))
    seed: int = 0


@dataclass(frozen=True)
class ProbeData:
    """Features of some clips and the probes' targets.

    arrays: float16 features in the order of ProbeFeatures' fields, one row per clip; attributes: targets by name;
    flaws [n, len(FLAWS)]; clean: the rows without a flaw.
    """

    arrays: list[np.ndarray]
    attributes: dict[str, Tensor]
    flaws: Tensor
    clean: np.ndarray

    def features(self, rows: np.ndarray) -> ProbeFeatures:
        """Features of `rows` [B] as float32."""
        return ProbeFeatures(*(torch.from_numpy(array[rows].astype(np.float32)) for array in self.arrays))


def train_probes(
    folder: Path,
    cache: Path,
    codec: Codec | None,
    settings: ProbeSettings | None = None,
    export: Path = SHIPPED_WEIGHTS / "probes",
    log: Callable[[str], None] = print,
) -> Probes:
    """Train both probes and export them as float16, with their held-out figures in config.json.

    Without a codec (it may not exist yet) they are trained on raw audio only and mistake codec artefacts for flaws.
    `folder` has the checkpoint to resume from, `cache` rendered clips and their features.
    """
    settings = settings or ProbeSettings()
    pools = [
        [
            clip_features(SyntheticCorpus(size, seconds, seed, miscaptioned_fraction=0.0), version, cache, log)
            for seed, version in versions(codec)
        ]
        for seconds, size in settings.clips
    ]
    sizes = np.array([size for _, size in settings.clips], dtype=np.float64)
    torch.manual_seed(settings.seed)  # for the initial weights and dropout, which take no generator
    probes = Probes().train()

    def losses(step: int) -> dict[str, Tensor]:
        random = np.random.default_rng([settings.seed, step])
        pool = pools[random.choice(len(pools), p=sizes / sizes.sum())]
        each = settings.batch // len(pool)
        clean = [random.choice(data.clean, each) for data in pool]
        truth = {
            name: torch.cat([data.attributes[name][rows] for data, rows in zip(pool, clean, strict=True)])
            for name in pool[0].attributes
        }
        values = attribute_losses(probes.attributes(augmented(joined(pool, clean), random)), truth)
        attributes = sum(values.values())
        rows = [random.integers(0, len(data.flaws), each) for data in pool]
        severity = torch.cat([data.flaws[drawn] for data, drawn in zip(pool, rows, strict=True)])
        values["flaws"] = functional.mse_loss(probes.flaws(joined(pool, rows)), severity)
        # Squared errors of severities are about 0.01 where cross-entropies are about 0.5.
        return {"loss": attributes + 40 * values["flaws"], **values}

    config = {"probes": asdict(settings)}
    fit(
        probes, losses, FitSettings(settings.steps, settings.learning_rate), folder, log,
        lambda: save_module(export, probes, config, torch.float16),
    )  # fmt: skip
    figures = evaluate_probes(probes.eval(), codec, cache, log=log)
    save_module(export, probes, {**config, "held_out": figures}, torch.float16)
    return probes


def versions(codec: Codec | None) -> list[tuple[int, Codec | None]]:
    """(seed of the corpus, codec that reconstructs its clips) of each half of the training clips."""
    raw: list[tuple[int, Codec | None]] = [(TRAINING_SEEDS["raw"], None)]
    return raw if codec is None else [*raw, (TRAINING_SEEDS["codec"], codec)]


def joined(pool: list[ProbeData], rows: list[np.ndarray]) -> ProbeFeatures:
    """The features of rows[i] of pool[i], concatenated."""
    parts = [data.features(drawn) for data, drawn in zip(pool, rows, strict=True)]
    return ProbeFeatures(*(torch.cat([getattr(p, field.name) for p in parts]) for field in fields(ProbeFeatures)))


def attribute_losses(logits: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, Tensor]:
    """One cross-entropy per attribute."""
    logits = {name: value.float() for name, value in logits.items()}
    return {
        "genre": functional.cross_entropy(logits["genre"], truth["genre"]),
        "mood": functional.cross_entropy(logits["mood"], truth["mood"]),
        "instruments": 4 * functional.binary_cross_entropy_with_logits(logits["instruments"], truth["instruments"]),
        "tempo": functional.cross_entropy(logits["tempo"], truth["tempo"]),
        "key": functional.cross_entropy(logits["key"].flatten(1), truth["key"]),
    }


def augmented(features: ProbeFeatures, random: np.random.Generator) -> ProbeFeatures:
    """Another equalization of the same clips: a random tilt of the mel spectrogram up to about 4 dB at its ends."""
    tilt = torch.from_numpy(random.normal(0, 0.1, (len(features.mel), 1, 1)).astype(np.float32))
    return replace(features, mel=features.mel + tilt * torch.linspace(-1, 1, PROBE_MEL_BANDS)[:, None])


def attribute_targets(truths: list[Truth]) -> dict[str, Tensor]:
    """Targets of the attribute probe: class indices; tempo as probabilities over TEMPI; instruments multi-hot.

    Tempo is a narrow bell around the truth, so that neighbouring candidates count as nearly right.
    """
    instruments = torch.tensor([[float(name in t.instruments) for name in INSTRUMENTS] for t in truths])
    distance = torch.tensor([[36 * math.log2(t.tempo / tempo) for tempo in TEMPI] for t in truths])
    return {
        "genre": torch.tensor([GENRES.index(t.genre) for t in truths]),
        "mood": torch.tensor([MOODS.index(t.mood) for t in truths]),
        "instruments": instruments,
        "tempo": torch.softmax(-0.5 * (distance / 0.7).square(), -1),
        "key": torch.tensor([KEYS.index(t.key) * len(MODES) + MODES.index(t.mode) for t in truths]),
    }


def flaw_targets(clips: list[SyntheticClip]) -> Tensor:
    """Severities [n, len(FLAWS)]."""
    return torch.tensor([[clip.flaws.get(name, 0.0) for name in FLAWS] for clip in clips])


@torch.inference_mode()
def clip_features(corpus: SyntheticCorpus, codec: Codec | None, cache: Path, log: Callable[[str], None]) -> ProbeData:
    """Features of every clip of `corpus`, raw or reconstructed by `codec`, computed once into `cache`, and targets.

    The folder of the features appears in `cache` only once it is complete.
    """
    pool = rendered_pool(corpus, cache, "probes")
    name = f"{pool.name}-{'raw' if codec is None else signature(codec)}"
    folder = cache / name
    if not folder.exists():
        arrays: list[np.memmap] = []
        generator = torch.Generator().manual_seed(0)
        with WholeFolder(folder).draft() as draft:
            for start in range(0, corpus.size, 16):
                rows = np.arange(start, min(start + 16, corpus.size))
                features = probe_features(round_trip(pool.batch(rows), codec, generator))
                parts = [getattr(features, field.name) for field in fields(ProbeFeatures)]
                if not arrays:
                    arrays = [
                        np.lib.format.open_memmap(draft / f"{i}.npy", "w+", np.float16, (corpus.size, *part.shape[1:]))
                        for i, part in enumerate(parts)
                    ]
                for array, part in zip(arrays, parts, strict=True):
                    array[rows] = part.half().numpy()
                if start % 800 == 0:
                    log(f"{name}: {start} of {corpus.size} clips")
            for array in arrays:
                array.flush()
    return ProbeData(
        [np.load(folder / f"{i}.npy", mmap_mode="r") for i in range(len(fields(ProbeFeatures)))],
        attribute_targets([clip.truth for clip in corpus.clips]),
        flaw_targets(corpus.clips),
        np.array([i for i, clip in enumerate(corpus.clips) if not clip.flaws]),
    )


@torch.inference_mode()
def signature(codec: Codec) -> str:
    """A name for the current version of `codec`, so that features from an earlier one are not reused."""
    wave = torch.randn(1, 16 * codec.hop, generator=torch.Generator().manual_seed(0)) * 0.1
    decoded = codec.decode(codec.encode(wave).mean)
    return f"{codec.name}-{zlib.crc32(decoded.numpy().round(4).tobytes()):08x}"



@torch.inference_mode()
def evaluate_probes(
    probes: Probes,
    codec: Codec | None,
    cache: Path,
    size: int = 1000,
    seconds: float = 5.0,
    log: Callable[[str], None] = print,
) -> dict[str, dict[str, float]]:
    """Held-out metrics on the same clips "raw" and, with a codec, after its round trip ("codec").

    Attributes on clean clips: accuracy of genre, mood, key with mode; fraction of tempi within 4 % (and within 4 % of
    half, once or twice the tempo); mean over instruments of balanced accuracy. Flaws on all clips: R2 of each severity,
    and the mean predicted severity of clean clips (false alarms).
    """
    corpus = SyntheticCorpus(size, seconds, HELD_OUT_SEED, miscaptioned_fraction=0.0)
    figures: dict[str, dict[str, float]] = {}
    for name, version in {"raw": None, **({} if codec is None else {"codec": codec})}.items():
        data = clip_features(corpus, version, cache, log)
        parts = [
            measure_features(probes, data.features(rows)) for rows in np.array_split(np.arange(size), size // 50 + 1)
        ]
        predicted = Measurement(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Measurement)))
        figures[name] = probe_figures(predicted, data, torch.tensor([float(clip.truth.tempo) for clip in corpus.clips]))
        log(f"{name}: {json.dumps(figures[name])}")
    return figures


def probe_figures(predicted: Measurement, data: ProbeData, tempi: Tensor) -> dict[str, float]:
    """The metrics of `evaluate_probes` for one version of the clips; tempi [n] are the true ones."""
    clean, truth = torch.from_numpy(data.clean), data.attributes
    ratio = torch.tensor(TEMPI)[predicted.tempo.argmax(1)] / tempi
    present, called = truth["instruments"][clean] > 0.5, predicted.instruments[clean] > 0.5
    sensitivity = (called & present).sum(0) / present.sum(0).clamp_min(1)
    specificity = (~called & ~present).sum(0) / (~present).sum(0).clamp_min(1)
    within = torch.stack([(ratio * factor - 1).abs() < 0.04 for factor in (1.0, 0.5, 2.0)])
    figures = {
        "genre": (predicted.genre.argmax(1) == truth["genre"])[clean].float().mean(),
        "mood": (predicted.mood.argmax(1) == truth["mood"])[clean].float().mean(),
        "instruments": ((sensitivity + specificity) / 2).mean(),
        "tempo": within[0][clean].float().mean(),
        "tempo_octave": within.any(0)[clean].float().mean(),
        "key": (predicted.key.flatten(1).argmax(1) == truth["key"])[clean].float().mean(),
    }
    for index, name in enumerate(FLAWS):
        error = (predicted.flaws[:, index] - data.flaws[:, index]).square().mean()
        figures[f"{name}_r2"] = 1 - error / data.flaws[:, index].var(correction=0)
        figures[f"{name}_in_clean"] = predicted.flaws[clean, index].mean()
    return {name: round(float(value), 4) for name, value in figures.items()}
