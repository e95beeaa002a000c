"""What a set is compared with: the statistics of reference music under each encoder, kept, and given to others.

A reference file is a safetensors file with, for each encoder, the mean and a factor of the covariance of the embeddings
(plaudit.evaluate.distances.frechet) and, where they were asked for, the embeddings themselves. Its metadata say which
encoder, by name and by a digest of its weights, and how many clips. So others can compare without the audio, and never
against another encoder's numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from plaudit import __version__
from plaudit.assets import load_tensors, save_tensors
from plaudit.audio import audio_files
from plaudit.errors import AudioError, EvaluationError
from plaudit.evaluate.distances.embeddings import Array
from plaudit.evaluate.distances.frechet import Gaussian, gaussian
from plaudit.evaluate.distances.neighbours import Balls
from plaudit.evaluate.listening import EmbeddingCache, Listener, clip_of_file, content_of, heard_by_all, of_file

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

    @cached_property
    def balls(self) -> Balls:
        """The balls of precision and its like around the embeddings; EvaluationError where there are none."""
        if self.embeddings is None:
            raise EvaluationError(f"{self.source} holds no embeddings")
        return Balls(self.embeddings)


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
    folder: Path, listeners: Sequence[Listener], cache: EmbeddingCache | None, progress: Progress
) -> tuple[list[Reference], list[str], set[str]]:
    """The audio under `folder` as each listener hears it, a note on each file that can't be heard, and the contents.

    A file that one listener can't hear is part of no reference. EvaluationError where fewer than two can be heard.
    """
    files = audio_files([folder])
    heard, notes = [], []
    for number, file in enumerate(files, start=1):
        try:
            heard.append(heard_by_all(clip_of_file(file, cache), listeners))
        except AudioError as error:
            notes.append(f"reference: {of_file(file, error)}")
        progress(number, len(files))
    if len(heard) < 2:
        raise EvaluationError(f"{folder} holds {len(heard)} clips that can be heard; a reference needs 2")
    made = [reference_of(one, np.stack([clip[one.digest] for clip in heard]), str(folder)) for one in listeners]
    return made, notes, {content for file in files if (content := content_of(file))}


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
