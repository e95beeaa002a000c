"""Where reward and true utility part in the rounds of expert iteration of a synthetic run.

    python -m benchmarks.expert_iteration runs/synthetic --json

For every round of every stage of that kind: the mean reward and true utility of its candidates and of those that were
kept, their rank correlation over candidates, the utility that keeping as many at random or by true utility would give,
and the fraction of candidates whose reward, and whose utility, exceeds that of the corpus's best tenth. Nothing is
sampled or trained.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from plaudit.audio import read_audio
from plaudit.corpus.sources import corpus_source
from plaudit.recipe import load_recipe
from plaudit.sidecars import read_sidecar
from plaudit.statistics import bootstrap_mean, spearman
from plaudit.storage import read_json
from plaudit.synthetic.corpus import SyntheticCorpus
from plaudit.synthetic.evaluators import SyntheticSource

CORPUS_SAMPLE = 512
"""Training clips whose utilities give the corpus's best tenth."""


def utilities_of_candidates(source: SyntheticSource, folder: Path) -> np.ndarray:
    """True utility of every clip of a folder of candidates, in the order of their names."""
    utility = source.true_utility()
    truths = {clip.caption: clip.caption_truth for clip in source.corpus.clips}
    values = []
    for path in sorted(folder.glob("*.wav")):
        prompt = read_sidecar(path)["prompt"]
        values.append(float(utility([torch.from_numpy(read_audio(path)[0])], [truths[prompt]])[0]))
    return np.array(values)


def corpus_top_decile(source: SyntheticSource) -> float:
    """The utility that a tenth of the training clips exceed, as renderings of their captions."""
    corpus: SyntheticCorpus = source.corpus
    clips = [clip for clip in corpus.clips if clip.split == "train"][:CORPUS_SAMPLE]
    utility = source.true_utility()
    values = [float(utility([torch.from_numpy(corpus.render(one))], [one.caption_truth])[0]) for one in clips]
    return float(np.quantile(values, 0.9))


def round_figures(source: SyntheticSource, folder: Path, top: float) -> dict[str, Any]:
    """The figures of one round."""
    facts = read_json(folder / "facts.json")
    rewards = np.array(read_json(folder / "candidates" / "scores.json")["reward"])
    utilities = utilities_of_candidates(source, folder / "candidates")
    names = [path.name for path in sorted((folder / "candidates").glob("*.wav"))]
    kept = [names.index(row["clip"]) for row in read_json(folder / "kept.json")]
    mean = bootstrap_mean(utilities, 0)
    return {
        **facts,
        "utility_mean": round(mean.mean, 3),
        "utility_interval": [round(mean.low, 3), round(mean.high, 3)],
        "utility_kept": round(float(utilities[kept].mean()), 3),
        "utility_kept_by_truth": round(float(np.sort(utilities)[-len(kept) :].mean()), 3),
        "spearman": round(spearman(rewards, utilities), 3),
        "utility_above_top_decile": round(float((utilities > top).mean()), 3),
    }


def main(
    run: Annotated[Path, typer.Argument(help="A run of a synthetic recipe.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Where reward and true utility part in the rounds of expert iteration of a synthetic run."""
    source = corpus_source(load_recipe(str(run / "recipe.yaml")).corpus)
    if not isinstance(source, SyntheticSource):
        raise typer.BadParameter("true utility is known of runs with the synthetic corpus only")
    top = corpus_top_decile(source)
    rounds = {
        f"{folder.parent.name}/{folder.name}": round_figures(source, folder, top)
        for folder in sorted(run.glob("*/round-*"))
        if (folder / "facts.json").exists()
    }
    if as_json:
        print(json.dumps({"corpus_top_decile_utility": round(top, 3), "rounds": rounds}))
        return
    print(f"corpus's best tenth: utility {top:.2f}")
    for name, figures in rounds.items():
        print(name, *(f"{key} {value}" for key, value in figures.items()), sep="\n  ")


if __name__ == "__main__":
    typer.run(main)
