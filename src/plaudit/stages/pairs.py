"""The step that makes preference pairs, or takes those that others made: one folder in one format."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from plaudit.corpus.shard_set import ShardSet
from plaudit.errors import CorpusError
from plaudit.pipeline.candidates import encode_clips, make_candidates, training_captions
from plaudit.pipeline.runner import Context
from plaudit.pipeline.stage_models import load_stage
from plaudit.stages.preference_data import (
    CANDIDATES,
    PAIRS,
    SHARDS,
    Candidate,
    Pair,
    choose_pairs,
    clips_of,
    filtered,
    pairs_file,
    read_pairs,
    write_lines,
)
from plaudit.storage import file_digest, write_json
from plaudit.training.settings import PairSettings

AUDIO = "clips"


def make_pairs_step(context: Context, folder: Path) -> None:
    """Fill the folder: the run's own candidates with their scores, or none; the pairs; latents of all clips."""
    settings = context.recipe.stages.pairs
    assert settings is not None
    if settings.read_from is None:
        candidates = _candidates(context, settings, folder)
        write_lines(folder / CANDIDATES, candidates)
        pairs, clips = choose_pairs(candidates, settings), {c.clip: (c.caption, folder / c.clip) for c in candidates}
    else:
        place = pairs_file(settings.read_from).parent.resolve()
        pairs = filtered(read_pairs(settings.read_from), settings)
        clips = {clip: (caption, place / clip) for clip, caption in clips_of(pairs).items()}
    if not pairs:
        raise CorpusError("no pair passes stages.pairs.min_margin; lower it")
    encoded = encode_clips(context, clips, folder / SHARDS)
    write_lines(folder / PAIRS, pairs)
    write_json(folder / "facts.json", _facts(pairs, clips, encoded))


def _candidates(context: Context, settings: PairSettings, folder: Path) -> list[Candidate]:
    captions = training_captions(context, settings.captions, settings.seed)
    prompts = [caption for caption in captions for _ in range(settings.candidates)]
    model = load_stage(context, context.recipe.stages.before("pairs"))
    made = make_candidates(context, model, prompts, settings.seed, context.recipe.sampling.score, folder / AUDIO)
    return [
        Candidate(f"{AUDIO}/{path.name}", prompt, reward, clap, made.score)
        for path, prompt, reward, clap in zip(
            made.paths, prompts, made.reward.tolist(), made.clap.tolist(), strict=True
        )
    ]


def _facts(pairs: list[Pair], clips: dict[str, tuple[str, Path]], encoded: ShardSet) -> dict[str, object]:
    margins = [pair.margin for pair in pairs if pair.margin is not None]
    return {
        "captions": len({caption for caption, _ in clips.values()}),
        "clips": len(clips),
        "usable_clips": len(encoded),
        "pairs": len(pairs),
        "margin_mean": float(np.mean(margins)) if margins else None,
        "margin_least": min(margins, default=None),
    }


def pairs_digest(settings: PairSettings) -> str:
    """A hash of the pairs file that was named and of the audio that it names; "none" where there is none."""
    if settings.read_from is None:
        return "none"
    try:
        file = pairs_file(settings.read_from)
        clips = sorted({clip for pair in read_pairs(file) for clip in (pair.winner, pair.loser)})
    except CorpusError:
        return "none"
    audio = [path for clip in clips if (path := file.parent / clip).is_file()]
    return hashlib.sha256(" ".join(map(file_digest, [file, *audio])).encode()).hexdigest()
