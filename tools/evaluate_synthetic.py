"""How well a model of the synthetic world follows its prompts, as the probes measure it.

    python tools/evaluate_synthetic.py synthetic-base -n 96 --guidance 3 --steps 32
    python tools/evaluate_synthetic.py clean -n 96

Prompts are captions of pieces that no recipe and no training uses. `clean` measures those pieces themselves, as from a
perfect model, `corpus` pieces with the flaws and wrong captions of a training corpus, as from a perfect imitation of
it. Prints one JSON object: fractions of clips with the genre, mood, tempo and key of the prompt (tempo and
key also over the captions that state them), the mean probability of the instruments named, the mean severity of each
flaw, and true utility with its standard error. `--librosa` adds what librosa, which knows nothing of this world,
estimates: the fraction of clips with the tempo of a caption that states one, or half or twice that, and with the key
of a caption that states one, or its relative.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import librosa
import numpy as np
import torch
from torch import Tensor

import plaudit
from plaudit.synthetic.corpus import SyntheticClip, SyntheticCorpus
from plaudit.synthetic.flaws import FLAWS
from plaudit.synthetic.listeners import Taste, utility
from plaudit.synthetic.probes import TEMPI, Measurement, load_probes, measure
from plaudit.synthetic.truth import GENRES, INSTRUMENTS, KEYS, MODES, MOODS, Truth

CORPUS_SEED = 77
"""Of the pieces whose captions are the prompts."""

RATE = 16_000
TEMPO_TOLERANCE = 0.04
KEY_PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
"""How well each degree of the scale fits a key (Krumhansl and Kessler, 1982)."""


def rates(measurement: Measurement, clips: Sequence[SyntheticClip]) -> dict[str, float | int | None]:
    """Metrics of clips [B] that were generated for the captions of `clips`."""
    truths = [clip.caption_truth for clip in clips]
    tempo_stated, key_stated = [states_tempo(clip) for clip in clips], [states_key(clip) for clip in clips]
    tempi = torch.tensor([TEMPI[i] for i in measurement.tempo.argmax(1).tolist()])
    prompted = torch.tensor([float(truth.tempo) for truth in truths])
    tempo = (tempi / prompted - 1).abs() < Taste().tempo_tolerance
    keys = measurement.key.flatten(1).argmax(1)
    key = keys == torch.tensor([len(MODES) * KEYS.index(t.key) + MODES.index(t.mode) for t in truths])
    named = torch.tensor([[float(name in t.instruments) for name in INSTRUMENTS] for t in truths])
    utilities = utility(measurement, truths)
    figures: dict[str, float | int | None] = {
        "genre": _fraction(measurement.genre.argmax(1) == torch.tensor([GENRES.index(t.genre) for t in truths])),
        "mood": _fraction(measurement.mood.argmax(1) == torch.tensor([MOODS.index(t.mood) for t in truths])),
        "instruments": round(float(((measurement.instruments * named).sum(1) / named.sum(1)).mean()), 3),
        "tempo": _fraction(tempo),
        "tempo_where_stated": _fraction(tempo[torch.tensor(tempo_stated)]),
        "tempi_stated": sum(tempo_stated),
        "key": _fraction(key),
        "key_where_stated": _fraction(key[torch.tensor(key_stated)]),
        "keys_stated": sum(key_stated),
    }
    figures |= {name: round(float(measurement.flaws[:, i].mean()), 3) for i, name in enumerate(FLAWS)}
    figures["utility"] = round(float(utilities.mean()), 3)
    figures["utility_standard_error"] = round(float(utilities.std()) / len(clips) ** 0.5, 3)
    return figures


def states_tempo(clip: SyntheticClip) -> bool:
    """Whether the caption has the tempo in bpm."""
    return f"{clip.caption_truth.tempo} bpm" in clip.caption


def states_key(clip: SyntheticClip) -> bool:
    """Whether the caption has the key and its mode."""
    return f"{clip.caption_truth.key} {clip.caption_truth.mode}" in clip.caption


def librosa_rates(waves: Tensor, clips: Sequence[SyntheticClip]) -> dict[str, float | int | None]:
    """librosa's estimates of waves [B, T] at 16 kHz against the captions that state a tempo, or a key."""
    tempo = [has_tempo(wave, clip.caption_truth) for wave, clip in zip(waves.numpy(), clips, strict=True)
             if states_tempo(clip)]  # fmt: skip
    key = [has_key(wave, clip.caption_truth) for wave, clip in zip(waves.numpy(), clips, strict=True)
           if states_key(clip)]  # fmt: skip
    return {
        "librosa_tempo": _fraction(torch.tensor(tempo)),
        "librosa_tempi_stated": len(tempo),
        "librosa_key": _fraction(torch.tensor(key)),
        "librosa_keys_stated": len(key),
    }


def has_tempo(wave: np.ndarray, truth: Truth) -> bool:
    """Whether librosa estimates the truth's tempo, or half or twice that, of a wave [T] at 16 kHz."""
    ratio = float(librosa.feature.tempo(y=wave, sr=RATE)[0]) / truth.tempo
    return bool(min(abs(ratio * factor - 1) for factor in (0.5, 1, 2)) < TEMPO_TOLERANCE)


def has_key(wave: np.ndarray, truth: Truth) -> bool:
    """Whether the mean chroma of a wave [T] at 16 kHz fits the truth's key, or its relative, best."""
    chroma = librosa.feature.chroma_cqt(y=wave, sr=RATE, fmin=librosa.note_to_hz("C2"), n_octaves=5).mean(axis=1)
    fits = {
        (tonic, mode): np.corrcoef(np.roll(profile, tonic), chroma)[0, 1]
        for mode, profile in KEY_PROFILES.items()
        for tonic in range(len(KEYS))
    }
    tonic = KEYS.index(truth.key)
    relative = ((tonic + 9) % 12, "minor") if truth.mode == "major" else ((tonic + 3) % 12, "major")
    return max(fits, key=fits.__getitem__) in {(tonic, truth.mode), relative}


def _fraction(right: Tensor) -> float | None:
    return round(float(right.float().mean()), 3) if len(right) else None


def main() -> None:
    """Parse, generate, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model's name or folder, or clean, or corpus")
    parser.add_argument("-n", "--prompts", type=int, default=96)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--score", type=float, default=None, help="conditioning score; none by default")
    parser.add_argument("--librosa", action="store_true", help="also measure tempo and key with librosa")
    options = parser.parse_args()
    flawless = {"flawed_fraction": 0.0, "miscaptioned_fraction": 0.0}
    corpus = SyntheticCorpus(options.prompts, 10.0, CORPUS_SEED, **({} if options.model == "corpus" else flawless))
    if options.model in ("clean", "corpus"):
        waves = torch.stack([torch.from_numpy(corpus.render(clip)) for clip in corpus.clips])
    else:
        model = plaudit.load(options.model)
        guidance = model.config.sampling.guidance.model_copy(update={"weight": options.guidance})
        changes = {"steps": options.steps, "score": options.score, "guidance": guidance}
        settings = model.config.sampling.model_copy(update=changes)
        prompts = [clip.caption for clip in corpus.clips]
        waves = model.generate(prompts, seeds=list(range(len(prompts))), settings=settings)
    facts = {"model": options.model, "prompts": options.prompts}
    if options.model not in ("clean", "corpus"):
        facts |= {"guidance": options.guidance, "steps": options.steps, "score": options.score}
    figures = rates(measure(load_probes(), waves), corpus.clips)
    if options.librosa:
        figures |= librosa_rates(waves, corpus.clips)
    print(json.dumps(facts | figures))


if __name__ == "__main__":
    main()
