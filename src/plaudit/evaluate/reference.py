"""What a set is compared with: the statistics of reference music under each encoder, kept, and given to others.

A reference file is a safetensors file with, for each encoder, the mean and a factor of the covariance of the embeddings
(plaudit.evaluate.distances.frechet) and, where they were asked for, the embeddings themselves. Its metadata say which
encoder, by name and by a digest of its weights, and how many clips. So others can compare without the audio, and never
against another encoder's numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from plaudit import __version__
from plaudit.assets import cache_home, load_tensors, save_tensors
from plaudit.audio import audio_files
from plaudit.errors import AudioError, EvaluationError, ModelError
from plaudit.evaluate.distances.embeddings import Array
from plaudit.evaluate.distances.frechet import Gaussian, gaussian
from plaudit.evaluate.listening import Listener, heard_files

KIND = "plaudit.reference"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Reference:
    """Reference music as one encoder hears it.

    embedding, digest: the encoder. clips: how many the statistics are of. embeddings: [clips, E], or None where only
    the Gaussian was passed on. source: the folder or file that it comes from, for messages.
    """

    embedding: str
    digest: str
    clips: int
    gaussian: Gaussian
    embeddings: Array | None
    source: str


def reference_of(listener: Listener, embeddings: Array, source: str) -> Reference:
    """The reference that embeddings [M, E] make; EvaluationError where there are fewer than two."""
    return Reference(listener.name, listener.digest, len(embeddings), gaussian(embeddings), embeddings, source)


def export_references(path: Path, references: Sequence[Reference], with_embeddings: bool) -> None:
    """Write references into one file, whole or not at all; EvaluationError where embeddings are wanted but unknown."""
    tensors: dict[str, torch.Tensor] = {}
    told = []
    for number, one in enumerate(references):
        parts: dict[str, Array] = {"mean": one.gaussian.mean, "factor": one.gaussian.factor}
        if with_embeddings:
            if one.embeddings is None:
                raise EvaluationError(f"{one.source} holds no embeddings of {one.embedding} to export; hear the audio")
            parts["embeddings"] = one.embeddings
        tensors |= {f"{number}.{name}": torch.from_numpy(np.ascontiguousarray(part)) for name, part in parts.items()}
        told.append({"embedding": one.embedding, "digest": one.digest, "clips": one.clips})
    save_tensors(path, tensors, {"kind": KIND, "version": __version__, "references": json.dumps(told)})


def load_references(path: Path) -> list[Reference]:
    """Read what `export_references` wrote; EvaluationError or ModelError, in one line, where the file is another."""
    tensors = load_tensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("kind") != KIND:
            raise ValueError("no such kind")
        told = json.loads(metadata["references"])
        found = [_reference(path, one, tensors, number) for number, one in enumerate(told)]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise EvaluationError(
            f"{path} is no reference ({error}); write one with plaudit evaluate --export-reference"
        ) from None
    return found


def reference_for(references: Sequence[Reference], listener: Listener) -> Reference:
    """The one that `listener` heard; EvaluationError where the references are of other encoders or other weights."""
    for one in references:
        if one.digest == listener.digest:
            return replace(one, embedding=listener.name)
    source = references[0].source if references else "the reference"
    if any(one.embedding == listener.name for one in references):
        raise EvaluationError(
            f"{source} was made with other weights of {listener.name!r} than those here; make it again from the audio"
        )
    held = ", ".join(repr(one.embedding) for one in references)
    raise EvaluationError(f"{source} is of the embedding {held}, not of {listener.name!r}; use that with --embedding")


def hear_reference(
    folder: Path, listeners: Sequence[Listener], cache: Path | None, progress: Progress
) -> tuple[list[Reference], list[str], set[str]]:
    """The audio under `folder` as each listener hears it, notes on what can't be heard, and digests of the files.

    Embeddings are kept in `cache` by the content of the files and the encoder's digest: renamed or copied music is
    known again. A folder with files that can't be heard is heard again each time, so that they are told each time.
    """
    files = audio_files([folder])
    contents = [content_of(file) for file in files]
    known = {one.name: _cached(_place(cache, contents, one), one, folder) for one in listeners}
    unknown = [one for one in listeners if known[one.name] is None]
    rows: dict[str, list[Array]] = {one.name: [] for one in unknown}
    notes = []
    if unknown:
        for number, clip in enumerate(heard_files(files)):
            try:
                if isinstance(clip, str):
                    raise AudioError(clip)
                heard = [clip.embedding(one) for one in unknown]
                for one, embedding in zip(unknown, heard, strict=True):
                    rows[one.name].append(embedding)
            except AudioError as error:
                told = str(error)
                notes.append(f"reference: {told if str(files[number]) in told else f'{files[number]}: {told}'}")
            progress(number + 1, len(files))
    for one in unknown:
        if len(rows[one.name]) < 2:
            raise EvaluationError(f"{folder} holds {len(rows[one.name])} clips that can be heard; a reference needs 2")
        made = reference_of(one, np.stack(rows[one.name]), str(folder))
        known[one.name] = made
        place = _place(cache, contents, one)
        if place is not None and not notes:
            _keep(place, made)
    heard_by = [reference for one in listeners if (reference := known[one.name]) is not None]
    return heard_by, notes, {content for content in contents if content}


def content_of(file: Path) -> str:
    """A digest of a file's bytes; "" where it can't be read."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError:
        return ""


def default_cache() -> Path:
    """`plaudit/references` in the user's cache folder."""
    return cache_home() / "references"


def _place(cache: Path | None, contents: Sequence[str], listener: Listener) -> Path | None:
    if cache is None or "" in contents:
        return None
    told = " ".join([__version__, listener.digest, *sorted(contents)])
    return cache / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.safetensors"


def _cached(place: Path | None, listener: Listener, folder: Path) -> Reference | None:
    """What is kept at `place`; a damaged file is as good as none."""
    if place is None or not place.is_file():
        return None
    try:
        return replace(reference_for(load_references(place), listener), source=str(folder))
    except (EvaluationError, ModelError):
        return None


def _keep(place: Path, reference: Reference) -> None:
    try:
        export_references(place, [reference], with_embeddings=True)
    except OSError:  # a cache that can't be written costs time, not the evaluation
        pass


def _reference(path: Path, told: dict[str, Any], tensors: dict[str, torch.Tensor], number: int) -> Reference:
    """ValueError or KeyError where a part is missing or does not fit the others."""
    mean, factor = (tensors[f"{number}.{part}"].double().numpy() for part in ("mean", "factor"))
    held = tensors.get(f"{number}.embeddings")
    embeddings = None if held is None else held.double().numpy()
    clips = int(told["clips"])
    if mean.ndim != 1 or factor.ndim != 2 or factor.shape[1] != len(mean) or clips < 2:
        raise ValueError("mean and factor do not fit")
    if embeddings is not None and embeddings.shape != (clips, len(mean)):
        raise ValueError("the embeddings do not fit the mean")
    if not all(np.isfinite(part).all() for part in (mean, factor, *([] if embeddings is None else [embeddings]))):
        raise ValueError("not finite")
    return Reference(str(told["embedding"]), str(told["digest"]), clips, Gaussian(mean, factor), embeddings, str(path))
