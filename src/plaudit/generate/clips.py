"""A folder of generated clips: audio files with a sidecar each, made in fixed batches, continued where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.audio import encode_wav, write_file
from plaudit.encoders.unread import unread
from plaudit.errors import AudioError, PromptError
from plaudit.generate.model import DEFAULT_EXECUTION, TextToMusic
from plaudit.generate.names import Facts, digest_of, distinct_names, facts_of, has_foreign_audio, names_for
from plaudit.generate.optimize import Optimizer, optimize_noise
from plaudit.generate.postprocess import Delivery, deliver
from plaudit.generate.sampling import Execution
from plaudit.generate.settings import SamplingSettings
from plaudit.sidecars import read_sidecar, sidecar_path
from plaudit.storage import finite, to_json, write_json
from plaudit.writing import create_file


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
    execution: Execution = DEFAULT_EXECUTION,
    delivery: Delivery | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    optimizer: Optimizer | None = None,
    keep_others: bool = False,
) -> list[Path]:
    """All files of `stream_clips`; progress(done, total) is called after each."""
    paths = []
    for path in stream_clips(model, requests, settings, folder, execution, delivery, optimizer, keep_others):
        paths.append(path)
        progress(len(paths), len(requests))
    return paths


def stream_clips(
    model: TextToMusic,
    requests: Sequence[ClipRequest],
    settings: SamplingSettings,
    folder: Path,
    execution: Execution = DEFAULT_EXECUTION,
    delivery: Delivery | None = None,
    optimizer: Optimizer | None = None,
    keep_others: bool = False,
) -> Iterator[Path]:
    """Write an audio file and `<id>.json` (prompt, seed, settings, measurements) for each request; each file once made.

    Batches are cut from the list of requests before looking at what exists, so that a continued folder holds exactly
    what an uninterrupted one does: a batch with any clip missing is made again whole. Without a delivery, clips are
    written as the model makes them, as 16-bit wav. With an optimizer, they come from noise that its reward
    likes better.

    The folder belongs to this call, and a file of a request's name that was made otherwise is replaced. With
    `keep_others` it does not, nothing of another clip is replaced, and names are those of `plaudit.generate.names`.
    """
    suffix = ".wav" if delivery is None else delivery.file.suffix
    facts = clip_facts(model, requests, settings, delivery, optimizer)
    names = distinct_names(folder, requests, facts) if keep_others else [request.id for request in requests]
    paths = [folder / f"{name}{suffix}" for name in names]
    sampler = model.sampler(settings, execution)
    for start in range(0, len(requests), sampler.batch):
        group = range(start, min(start + sampler.batch, len(requests)))
        if not all(paths[i].exists() and is_clip_of(paths[i], facts[i]) for i in group):
            prompts, seeds = [requests[i].prompt for i in group], [requests[i].seed for i in group]
            measured: list[dict[str, Any]] = [{} for _ in group]
            if optimizer is None:
                waves = [wave.numpy() for wave in model.stream(prompts, seeds, sampler)]
            else:
                optimized = optimize_noise(model, prompts, seeds, settings, optimizer)
                waves = list(optimized.waves.numpy())
                measured = [{"rewards": row} for row in optimized.rewards.T.tolist()]
            rate = model.codec.sample_rate
            if delivery is None:
                encoded = [encode_wav(wave, rate) for wave in waves]
            else:
                delivered = deliver(waves, rate, delivery, [facts[i] for i in group])
                encoded = [one.encoded for one in delivered]
                measured = [row | one.measured for row, one in zip(measured, delivered, strict=True)]
            for i, content, found in zip(group, encoded, measured, strict=True):
                sidecar = {**facts[i], "unread": unread(model.text_encoder, settings.prefix + requests[i].prompt)}
                sidecar["measured"] = found
                if keep_others:
                    paths[i] = publish_clip(paths[i], content, requests[i], sidecar)
                else:
                    write_file(paths[i], content)
                    write_json(sidecar_path(paths[i]), sidecar)
        for i in group:
            yield paths[i]


def publish_clip(path: Path, encoded: bytes, request: ClipRequest, sidecar: dict[str, Any]) -> Path:
    """Write a clip and its sidecar at `path`, or beside it under the next name that no other clip has; where it is.

    The sidecar comes first and holds the name: of several processes that want one for different clips, one gets it.
    Where the clip is there already, it is written again. AudioError where the disk refuses.
    """
    folder, facts = path.parent, facts_of(sidecar)
    for name in names_for(request, facts, path.stem):
        path = folder / f"{name}{path.suffix}"
        if has_foreign_audio(folder, name):
            continue
        try:
            create_file(sidecar_path(path), to_json(sidecar, indent=2) + "\n")
        except FileExistsError:
            if not is_clip_of(path, facts):
                continue
            write_json(sidecar_path(path), sidecar)
        except OSError as error:
            raise AudioError(
                f"{path} cannot be written ({error.strerror}); free space or choose another folder"
            ) from None
        write_file(path, encoded)
        return path
    raise AssertionError("names_for ends with an error")


def clip_facts(
    model: TextToMusic,
    requests: Sequence[ClipRequest],
    settings: SamplingSettings,
    delivery: Delivery | None,
    optimizer: Optimizer | None,
) -> list[dict[str, Any]]:
    """What decides how each request's clip sounds, as plain values: prompt, seed, models and settings."""
    post = None if delivery is None else delivery.post.model_dump(mode="json")
    separator = None if delivery is None or delivery.separator is None else delivery.separator.name
    shared = {
        "model": model.config.provenance,
        "sampling": settings.model_dump(mode="json"),
        "postprocessing": post,
        "file": None if delivery is None else delivery.file.model_dump(mode="json"),
        "separator": separator,  # clips made before the extra was installed are made again
        "optimization": None
        if optimizer is None
        else {"reward": optimizer.name, **optimizer.settings.model_dump(mode="json")},
        "second_model": model.second.config.provenance if model.second else None,
        "weights": [model.weights_digest(), *([model.second.weights_digest()] if model.second else [])],
    }
    plain = finite(json.loads(json.dumps(shared)))  # as it is read back, or the clip would be made again for ever
    return [{"prompt": request.prompt, "seed": request.seed, **plain} for request in requests]


def check_names(folder: Path, requests: Sequence[ClipRequest], facts: Sequence[Facts]) -> None:
    """PromptError where a request's name belongs to another clip in `folder`, which making it would replace."""
    for request, own in zip(requests, facts, strict=True):
        path = folder / f"{request.id}.wav"
        if has_foreign_audio(folder, request.id) or (sidecar_path(path).exists() and not is_clip_of(path, own)):
            raise PromptError(
                f"{folder} holds {request.id} of another prompt, model or other settings; name another --output, or "
                "remove that folder"
            )


def is_clip_of(path: Path, facts: Facts) -> bool:
    """Whether the sidecar of a file says that it was made from exactly these facts."""
    sidecar = facts_of(read_sidecar(path))
    return sidecar.get("seed") == facts["seed"] and digest_of(sidecar) == digest_of(facts)
