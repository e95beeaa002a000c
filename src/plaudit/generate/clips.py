"""A folder of generated clips: wav files with a sidecar each, made in fixed batches, continued where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plaudit.assets import read_json, write_json
from plaudit.audio import write_wav
from plaudit.errors import ModelError
from plaudit.generate.execution import Execution
from plaudit.generate.model import ANYHOW, TextToMusic
from plaudit.generate.optimize import Optimizer, optimize_noise
from plaudit.generate.postprocess import PostprocessSettings, postprocess
from plaudit.generate.settings import SamplingSettings


@dataclass(frozen=True)
class ClipRequest:
    """One clip to make. `id` names its files; the same seed and prompt give the same clip."""

    id: str
    prompt: str
    seed: int


def make_clips(
    model: TextToMusic,
    requests: Sequence[ClipRequest],
    settings: SamplingSettings,
    folder: Path,
    execution: Execution = ANYHOW,
    post: PostprocessSettings | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    made: Callable[[Path], None] = lambda path: None,
    optimizer: Optimizer | None = None,
) -> list[Path]:
    """Write `folder/<id>.wav` and `<id>.json` (prompt, seed, settings, measurements) for each request; return the wavs.

    Batches are cut from the list of requests before looking at what exists, so that a continued folder holds exactly
    what an uninterrupted one does: a batch with any clip missing is made again whole. made(path) hears of each clip.
    With an optimizer, clips come from noise that its reward likes better.
    """
    paths = [folder / f"{request.id}.wav" for request in requests]
    sidecars = [_sidecar(model, request, settings, post, optimizer) for request in requests]
    sampler = model.sampler(settings, execution)
    for start in range(0, len(requests), sampler.batch):
        group = range(start, min(start + sampler.batch, len(requests)))
        if not all(paths[i].exists() and _made_so(paths[i], sidecars[i]) for i in group):
            prompts, seeds = [requests[i].prompt for i in group], [requests[i].seed for i in group]
            rewards: list[dict[str, Any]] = [{} for _ in group]
            if optimizer is None:
                waves = model.stream(prompts, seeds, sampler)
            else:
                found = optimize_noise(model, prompts, seeds, settings, optimizer)
                waves, rewards = iter(found.waves), [{"rewards": row} for row in found.rewards.T.tolist()]
            for i, clip, measured in zip(group, waves, rewards, strict=True):
                wave = clip.numpy()
                if post is not None:
                    wave, levels = postprocess(wave, model.codec.sample_rate, post)
                    measured = measured | levels
                write_wav(paths[i], wave, model.codec.sample_rate)
                write_json(paths[i].with_suffix(".json"), {**sidecars[i], "measured": measured})
        for i in group:
            made(paths[i])
        progress(group.stop, len(requests))
    return paths


def _sidecar(
    model: TextToMusic,
    request: ClipRequest,
    settings: SamplingSettings,
    post: PostprocessSettings | None,
    optimizer: Optimizer | None,
) -> dict[str, Any]:
    optimized = {} if optimizer is None else {"reward": optimizer.name, **optimizer.settings.model_dump()}
    return {
        "prompt": request.prompt,
        "seed": request.seed,
        "model": model.config.made,
        "sampling": settings.model_dump(mode="json"),
        "postprocessing": None if post is None else asdict(post),
        **({"optimization": optimized} if optimized else {}),
        **({"second_model": model.second.config.made} if model.second else {}),
    }


def _made_so(path: Path, sidecar: dict[str, Any]) -> bool:
    try:
        found = read_json(path.with_suffix(".json"))
    except ModelError:
        return False
    return all(found.get(key) == value for key, value in sidecar.items())
