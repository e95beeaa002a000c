"""Folders of generated clips: requests, file names, audio files with a JSON sidecar each, and the best of several.

A name holds a readable part of the prompt, a digest where that does not tell clips apart, and the seed. Two clips have
the same name only where prompt, seed, model and all settings are the same, so any number of calls can share a folder:
`slow-piano-0` is that prompt's clip with seed 0, and `slow-piano-3f9a01bc-0` one of a similar prompt or other settings.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from plaudit.audio import SUFFIXES, encode_wav, write_file
from plaudit.encoders.truncation import truncation
from plaudit.errors import AudioError, PromptError
from plaudit.flow import OnStep, unobserved
from plaudit.generate.model import DEFAULT_EXECUTION, TextToMusic
from plaudit.generate.optimize import Optimizer, optimize_noise
from plaudit.generate.postprocess import PostProcessor
from plaudit.generate.settings import Execution, SamplingSettings
from plaudit.reward.scoring import Clip, score_clips
from plaudit.sidecars import read_sidecar, sidecar_path
from plaudit.storage import digest_of, finite, to_json, write_json
from plaudit.types import Reward
from plaudit.writing import create_file

SEEDS = 2**64
"""Number of distinct seeds of a generator."""

Provenance = Mapping[str, Any]
"""What determines a clip, as its sidecar records it: prompt, seed, model and settings."""

RESULTS = ("measured", "best_of", "truncation")
"""Keys of a sidecar that are results, not provenance."""


@dataclass(frozen=True)
class ClipRequest:
    """One clip to generate. `id` names its files; the same seed and prompt give the same clip."""

    id: str
    prompt: str
    seed: int


def clip_requests(prompts: Sequence[str], count: int, seed: int, candidates: int = 1) -> list[list[ClipRequest]]:
    """`count` groups for each prompt, each with the requests of one clip's candidates.

    Seeds count on from `seed` over all of them, so that no two clips of a call begin with the same noise: with the same
    seed, clips of different prompts have a rhythm in common. PromptError where seeds would not fit into 64 bits.
    """
    last = seed + len(prompts) * count * candidates - 1
    if seed < 0 or last >= SEEDS:
        raise PromptError(f"seeds go from {seed} to {last}, but must lie between 0 and {SEEDS - 1}; choose another")
    width = len(str(len(prompts)))
    groups = []
    for number, prompt in enumerate(prompts, start=1):
        name = f"{number:0{width}d}-{slug(prompt)}" if len(prompts) > 1 else slug(prompt)
        for _ in range(count):
            groups.append([ClipRequest(f"{name}-{s}", prompt, s) for s in range(seed, seed + candidates)])
            seed += candidates
    return groups


def generate_clips(
    model: TextToMusic,
    requests: Sequence[ClipRequest],
    settings: SamplingSettings,
    folder: Path,
    execution: Execution = DEFAULT_EXECUTION,
    postprocessor: PostProcessor | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    optimizer: Optimizer | None = None,
    keep_others: bool = False,
) -> list[Path]:
    """All files of `stream_clips`; progress(done, total) is called after each."""
    paths = []
    for path in stream_clips(model, requests, settings, folder, execution, postprocessor, optimizer, keep_others):
        paths.append(path)
        progress(len(paths), len(requests))
    return paths


def stream_clips(
    model: TextToMusic,
    requests: Sequence[ClipRequest],
    settings: SamplingSettings,
    folder: Path,
    execution: Execution = DEFAULT_EXECUTION,
    postprocessor: PostProcessor | None = None,
    optimizer: Optimizer | None = None,
    keep_others: bool = False,
    on_step: OnStep = unobserved,
) -> Iterator[Path]:
    """Write an audio file and a sidecar `<id>.json` for each request; the files, in order, as they are finished.

    Requests are cut into batches before looking at what exists, so that a resumed folder holds exactly what an
    uninterrupted one does: a batch with any clip missing is generated again. Without a postprocessor, clips are written
    as the codec decodes them, as 16-bit wav. With an optimizer, their noise is optimized for its reward.

    The folder belongs to this call: a file of a request's name with other provenance is replaced. With `keep_others`
    it may hold other clips; none of them is replaced, and names are those of `distinct_names`.
    on_step: see `Sampler`; noise that is optimized does not call it.
    """
    suffix = ".wav" if postprocessor is None else postprocessor.file.suffix
    provenance = clip_provenance(model, requests, settings, postprocessor, optimizer)
    names = distinct_names(folder, requests, provenance) if keep_others else [request.id for request in requests]
    paths = [folder / f"{name}{suffix}" for name in names]
    sampler, rate = replace(model.sampler(settings, execution), on_step=on_step), model.codec.sample_rate
    for start in range(0, len(requests), sampler.batch):
        group = range(start, min(start + sampler.batch, len(requests)))
        if not all(paths[i].exists() and is_clip_of(paths[i], provenance[i]) for i in group):
            prompts, seeds = [requests[i].prompt for i in group], [requests[i].seed for i in group]
            measured: list[dict[str, Any]] = [{} for _ in group]
            if optimizer is None:
                waves = [wave.numpy() for wave in model.stream(prompts, seeds, sampler)]
            else:
                optimized = optimize_noise(model, prompts, seeds, settings, optimizer)
                waves = list(optimized.waves.numpy())
                measured = [{"rewards": row} for row in optimized.rewards.T.tolist()]
            if postprocessor is None:
                encoded = [encode_wav(wave, rate) for wave in waves]
            else:
                files = postprocessor.encode(waves, rate, [provenance[i] for i in group])
                encoded = [file.content for file in files]
                measured = [row | file.measured for row, file in zip(measured, files, strict=True)]
            for i, content, row in zip(group, encoded, measured, strict=True):
                cut = truncation(model.text_encoder, settings.text_of(requests[i].prompt))
                sidecar = {**provenance[i], "truncation": cut, "measured": row}
                if keep_others:
                    paths[i] = publish_clip(paths[i], content, requests[i], sidecar)
                else:
                    write_file(paths[i], content)
                    write_json(sidecar_path(paths[i]), sidecar)
        for i in group:
            yield paths[i]


def stream_best_of(
    groups: Sequence[Sequence[ClipRequest]], files: Iterator[Path], reward: Reward, name: str, folder: Path
) -> Iterator[Path]:
    """Copy the best of each group to `folder` as soon as its candidates exist; the copies.

    `files` yields those of all candidates, group by group. The sidecar of a chosen clip has the rewards of all its
    candidates; of equal ones the first is chosen. No other clip is replaced. AudioError where none can be scored.
    """
    names: Iterator[str] | None = None
    for group in groups:
        candidates = list(islice(files, len(group)))
        clips = [Clip(file, request.prompt) for file, request in zip(candidates, group, strict=True)]
        rows = score_clips(clips, reward)
        scores = [row.score for row in rows]
        usable = [score for score in scores if score is not None]
        if not usable:
            raise AudioError(f"no candidate for {group[0].prompt[:60]!r} can be scored: {rows[0].error}")
        best = scores.index(max(usable))
        sidecar = read_sidecar(candidates[best])
        if names is None:  # all candidates differ in prompt and seed alone
            requests, common = list(chain.from_iterable(groups)), provenance_of(sidecar)
            provenance = [{**common, "prompt": request.prompt, "seed": request.seed} for request in requests]
            names = iter(distinct_names(folder, requests, provenance))
        target = folder / f"{list(islice(names, len(group)))[best]}{candidates[best].suffix}"
        sidecar["best_of"] = {"reward": name, "candidates": len(group), "rewards": scores}
        yield publish_clip(target, candidates[best].read_bytes(), group[best], sidecar)


def publish_clip(path: Path, encoded: bytes, request: ClipRequest, sidecar: dict[str, Any]) -> Path:
    """Write a clip and its sidecar at `path`, or under the next name that no other clip has; where it is.

    The sidecar is written first and reserves the name: of several processes that want it for different clips, one gets
    it. The same clip is written again. AudioError where the disk refuses.
    """
    folder, provenance = path.parent, provenance_of(sidecar)
    longer = (f"{stem}-{request.seed}" for stem in _stems(request, provenance))
    for name in chain([path.stem], (name for name in longer if name != path.stem)):
        path = folder / f"{name}{path.suffix}"
        if _is_foreign(folder, name):
            continue
        try:
            create_file(sidecar_path(path), to_json(sidecar, indent=2) + "\n")
        except FileExistsError:
            if not is_clip_of(path, provenance):
                continue
            write_json(sidecar_path(path), sidecar)
        except OSError as error:
            raise AudioError(
                f"{path} cannot be written ({error.strerror}); free space or choose another folder"
            ) from None
        write_file(path, encoded)
        return path
    raise AssertionError("_stems ends with an error")


def clip_provenance(
    model: TextToMusic,
    requests: Sequence[ClipRequest],
    settings: SamplingSettings,
    postprocessor: PostProcessor | None,
    optimizer: Optimizer | None,
) -> list[dict[str, Any]]:
    """The provenance of each request's clip, as plain values."""
    post = postprocessor
    common = {
        "model": model.config.provenance,
        "sampling": settings.model_dump(mode="json"),
        "postprocessing": None if post is None else post.settings.model_dump(mode="json"),
        "file": None if post is None else post.file.model_dump(mode="json"),
        # Clips generated before the separator was installed are generated again.
        "separator": None if post is None or post.separator is None else post.separator.name,
        "optimization": None
        if optimizer is None
        else {"reward": optimizer.name, **optimizer.settings.model_dump(mode="json")},
        "second_model": model.second.config.provenance if model.second else None,
        "weights": [model.weights_digest(), *([model.second.weights_digest()] if model.second else [])],
    }
    plain = finite(json.loads(json.dumps(common)))  # as it is read back, or the clip would be generated on every call
    return [{"prompt": request.prompt, "seed": request.seed, **plain} for request in requests]


def provenance_of(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """A sidecar without its results."""
    return {key: value for key, value in sidecar.items() if key not in RESULTS}


def settings_digest(provenance: Provenance) -> str:
    """64 hexadecimal digits for everything but the seed."""
    plain = {key: value for key, value in provenance.items() if key != "seed"}
    return digest_of(plain)


def is_clip_of(path: Path, provenance: Provenance) -> bool:
    """Whether the sidecar of a file records exactly this provenance."""
    sidecar = provenance_of(read_sidecar(path))
    return sidecar.get("seed") == provenance["seed"] and settings_digest(sidecar) == settings_digest(provenance)


def check_names(folder: Path, requests: Sequence[ClipRequest], provenance: Sequence[Provenance]) -> None:
    """PromptError where a request's name belongs to another clip in `folder`, which would be replaced."""
    for request, expected in zip(requests, provenance, strict=True):
        path = folder / f"{request.id}.wav"
        if _is_foreign(folder, request.id) or (sidecar_path(path).exists() and not is_clip_of(path, expected)):
            raise PromptError(
                f"{folder} holds {request.id} of another prompt, model or other settings; name another --output, or "
                "remove that folder"
            )


def distinct_names(folder: Path, requests: Sequence[ClipRequest], provenance: Sequence[Provenance]) -> list[str]:
    """A name for each request's clip that no other clip in `folder` has: its id, or with a digest before the seed.

    All clips of a prompt from one call, and those of the same call made before, have names that differ in the seed
    alone. Nothing is reserved: `publish_clip` looks again when it writes.
    """
    used_names: dict[str, set[str]] = {}  # names of clips and sidecars by their part before the seed
    for file in os.listdir(folder) if folder.is_dir() else ():
        name, suffix = os.path.splitext(file)
        match = re.fullmatch(r"(.+)-\d+", name)
        if match and (suffix == ".json" or suffix.lower() in SUFFIXES):
            used_names.setdefault(_folded(match[1]), set()).add(name)
    chosen: dict[tuple[str, str], str] = {}
    names = []
    for request, clip in zip(requests, provenance, strict=True):
        key = _stem(request), settings_digest(clip)
        if key not in chosen:
            chosen[key] = next(
                stem for stem in _stems(request, clip) if _is_free(folder, used_names.get(_folded(stem), ()), key[1])
            )
        names.append(f"{chosen[key]}-{request.seed}")
    return names


def slug(prompt: str) -> str:
    """The readable part of a file name: the letters and digits of any script, the rest as single hyphens."""
    return _cut(_words(prompt)) or "clip"


def is_faithful(prompt: str) -> bool:
    """Whether `slug` keeps all of a prompt but case, spaces and ASCII punctuation."""
    words = _words(prompt)
    kept = all(_is_letter(c) or c.isspace() or c.isascii() for c in _normalized(prompt))
    return bool(words) and kept and _cut(words) == words


_CHARACTERS, _BYTES = 48, 96
"""Most of a prompt that goes into a name (ours): with number, digest, seed and suffix it stays under the 143 bytes
that the strictest common file systems allow."""

_DIGITS = (8, 16, 64)
"""Digits of a digest; more where fewer are taken by another clip."""


def _stems(request: ClipRequest, provenance: Provenance) -> Iterator[str]:
    """Names before the seed, in order of preference."""
    stem, digest = _stem(request), settings_digest(provenance)
    if is_faithful(request.prompt):
        yield stem
    for digits in _DIGITS:
        yield f"{stem}-{digest[:digits]}"
    raise AudioError(f"every name for {request.prompt[:60]!r} is taken by another clip; choose another folder")


def _stem(request: ClipRequest) -> str:
    return request.id.removesuffix(f"-{request.seed}")


def _is_free(folder: Path, names: Iterable[str], digest: str) -> bool:
    """Whether all files of these names are of clips that differ from ours in the seed alone."""
    sidecars = [read_sidecar(folder / f"{name}.wav") for name in names]
    return all(sidecar and settings_digest(provenance_of(sidecar)) == digest for sidecar in sidecars)


def _is_foreign(folder: Path, name: str) -> bool:
    """Whether there is an audio file of this name without a sidecar."""
    if (folder / f"{name}.json").exists():
        return False
    return any((folder / f"{name}{suffix}").exists() for suffix in SUFFIXES)


def _folded(stem: str) -> str:
    """The same for names that are one on file systems that ignore case or normalize letters."""
    return unicodedata.normalize("NFC", stem).casefold()


def _normalized(prompt: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", prompt).lower())


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


def _words(prompt: str) -> str:
    return re.sub("-+", "-", "".join(c if _is_letter(c) else "-" for c in _normalized(prompt))).strip("-")


def _cut(words: str) -> str:
    """As much of a name as fits, cut between grapheme clusters."""
    end = min(len(words), _CHARACTERS)
    while len(words[:end].encode()) > _BYTES or (end < len(words) and unicodedata.category(words[end])[0] == "M"):
        end -= 1
    boundary = words[:end].rfind("-") if end < len(words) and words[end] != "-" else -1
    return words[: boundary if boundary > end // 2 else end].rstrip("-")
