"""How well a model of the synthetic world follows its prompts, as the probes measure it.

    python tools/evaluate_synthetic.py synthetic-base -n 96 --guidance 3 --steps 32
    python tools/evaluate_synthetic.py clean -n 96

Prompts are captions of pieces that no recipe and no training uses. `clean` measures those pieces themselves, as from a
perfect model, `corpus` pieces with the flaws and wrong captions of a training corpus, as from a perfect imitation of
it. Prints one JSON object: fractions of clips with the genre, mood, tempo and key of the prompt (tempo and
key also over the captions that state them), the mean probability of the instruments named, the mean severity of each
flaw, and true utility with its standard error.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import torch
from torch import Tensor

import plaudit
from plaudit.synthetic.corpus import SyntheticClip, SyntheticCorpus
from plaudit.synthetic.flaws import FLAWS
from plaudit.synthetic.listeners import Taste, utility
from plaudit.synthetic.probes import TEMPI, Measurement, load_probes, measure
from plaudit.synthetic.truth import GENRES, INSTRUMENTS, KEYS, MODES, MOODS

CORPUS_SEED = 77
"""Of the pieces whose captions are the prompts."""


def rates(measurement: Measurement, clips: Sequence[SyntheticClip]) -> dict[str, float | int | None]:
    """Metrics of clips [B] that were generated for the captions of `clips`."""
    truths = [clip.caption_truth for clip in clips]
    tempo_stated = [f"{truth.tempo} bpm" in clip.caption for clip, truth in zip(clips, truths, strict=True)]
    key_stated = [f"{truth.key} {truth.mode}" in clip.caption for clip, truth in zip(clips, truths, strict=True)]
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
    print(json.dumps(facts | rates(measure(load_probes(), waves), corpus.clips)))


if __name__ == "__main__":
    main()
