"""A folder of generated clips: audio files with a sidecar each, made in fixed batches, continued where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.assets import finite, read_json, write_json
from plaudit.audio import write_file, write_wav
from plaudit.errors import ModelError
from plaudit.generate.delivery import Delivery, deliver
from plaudit.generate.execution import Execution
from plaudit.generate.model import ANYHOW, TextToMusic
from plaudit.generate.optimize import Optimizer, optimize_noise
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
    delivery: Delivery | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    optimizer: Optimizer | None = None,
) -> list[Path]:
    """All files of `stream_clips`; progress(done, total) hears of each."""
    paths = []
    for path in stream_clips(model, requests, settings, folder, execution, delivery, optimizer):
        paths.append(path)
        progress(len(paths), len(requests))
    return paths


def stream_clips(
    model: TextToMusic,
    requests: Sequence[ClipRequest],
    settings: SamplingSettings,
    folder: Path,
    execution: Execution = ANYHOW,
    delivery: Delivery | None = None,
    optimizer: Optimizer | None = None,
) -> Iterator[Path]:
    """Write an audio file and `<id>.json` (prompt, seed, settings, measurements) for each request; each file once made.

    Batches are cut from the list of requests before looking at what exists, so that a continued folder holds exactly
    what an uninterrupted one does: a batch with any clip missing is made again whole. Without a delivery, clips are
    written as the model makes them, as 16-bit wav. With an optimizer, they come from noise that its reward
    likes better.
    """
    suffix = ".wav" if delivery is None else delivery.file.suffix
    paths = [folder / f"{request.id}{suffix}" for request in requests]
    sidecars = [_sidecar(model, request, settings, delivery, optimizer) for request in requests]
    sampler = model.sampler(settings, execution)
    for start in range(0, len(requests), sampler.batch):
        group = range(start, min(start + sampler.batch, len(requests)))
        if not all(paths[i].exists() and _made_so(paths[i], sidecars[i]) for i in group):
            prompts, seeds = [requests[i].prompt for i in group], [requests[i].seed for i in group]
            rewards: list[dict[str, Any]] = [{} for _ in group]
            if optimizer is None:
                waves = [wave.numpy() for wave in model.stream(prompts, seeds, sampler)]
            else:
                found = optimize_noise(model, prompts, seeds, settings, optimizer)
                waves, rewards = list(found.waves.numpy()), [{"rewards": row} for row in found.rewards.T.tolist()]
            rate, told = model.codec.sample_rate, [sidecars[i] for i in group]
            if delivery is None:
                for i, wave in zip(group, waves, strict=True):
                    write_wav(paths[i], wave, rate)
            else:
                made = deliver(waves, rate, delivery, told)
                for i, one in zip(group, made, strict=True):
                    write_file(paths[i], one.encoded)
                rewards = [row | one.measured for row, one in zip(rewards, made, strict=True)]
            for i, measured in zip(group, rewards, strict=True):
                write_json(paths[i].with_suffix(".json"), {**sidecars[i], "measured": measured})
        for i in group:
            yield paths[i]


def _sidecar(
    model: TextToMusic,
    request: ClipRequest,
    settings: SamplingSettings,
    delivery: Delivery | None,
    optimizer: Optimizer | None,
) -> dict[str, Any]:
    optimized = {} if optimizer is None else {"reward": optimizer.name, **optimizer.settings.model_dump()}
    delivered: dict[str, Any] = {"postprocessing": None}
    if delivery is not None:
        post, file = delivery.post.model_dump(mode="json"), delivery.file.model_dump(mode="json")
        delivered = {"postprocessing": post, "file": file}
        if delivery.post.separate.passes:  # clips made before the extra was installed are made again
            delivered["separator"] = None if delivery.separator is None else delivery.separator.name
    sidecar = {
        "prompt": request.prompt,
        "seed": request.seed,
        "model": model.config.made,
        "sampling": settings.model_dump(mode="json"),
        **delivered,
        **({"optimization": optimized} if optimized else {}),
        **({"second_model": model.second.config.made} if model.second else {}),
    }
    plain: dict[str, Any] = finite(sidecar)  # as it is read back, or the clip would be made again for ever
    return plain


def _made_so(path: Path, sidecar: dict[str, Any]) -> bool:
    try:
        found = read_json(path.with_suffix(".json"))
    except ModelError:
        return False
    return all(found.get(key) == value for key, value in sidecar.items())
