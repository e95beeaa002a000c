"""File names of clips: a readable part of the prompt, a digest where that does not tell clips apart, and the seed.

Two clips have the same name only where prompt, seed, model and all settings are the same, so that any number of calls
can share a folder: `slow-piano-0` is that prompt's clip with seed 0, and `slow-piano-3f9a01bc-0` one of another prompt
that reads alike, or of other settings.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plaudit.audio import SUFFIXES
from plaudit.errors import AudioError
from plaudit.sidecars import read_sidecar

if TYPE_CHECKING:
    from plaudit.generate.clips import ClipRequest

Facts = Mapping[str, Any]
"""What decides how a clip sounds, as its sidecar has it: prompt, seed, model, settings."""

RESULTS = ("measured", "best_of", "unread")
"""Keys of a sidecar that are no facts but follow from them."""

_CHARACTERS, _BYTES = 48, 96
"""Most of a prompt that goes into a name (ours): with number, digest, seed and suffix it stays under the 143 bytes
that the strictest common file systems allow."""

_DIGESTS = (8, 16, 64)
"""Digits of a digest; more where fewer are taken by another."""


def slug(prompt: str) -> str:
    """The readable part of a file name: the letters and digits of any script, the rest as single hyphens."""
    return _cut(_words(prompt)) or "clip"


def is_faithful(prompt: str) -> bool:
    """Whether `slug` keeps all of a prompt but case, spaces and ASCII punctuation."""
    text = _normalized(prompt)
    kept = all(_is_letter(c) or c.isspace() or c.isascii() for c in text)
    return bool(_words(prompt)) and kept and _cut(_words(prompt)) == _words(prompt)


def facts_of(sidecar: Facts) -> dict[str, Any]:
    """A sidecar without what was measured or found out afterwards."""
    return {key: value for key, value in sidecar.items() if key not in RESULTS}


def digest_of(facts: Facts) -> str:
    """64 hexadecimal digits for everything but the seed."""
    plain = {key: value for key, value in facts.items() if key != "seed"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def distinct_names(folder: Path, requests: Sequence[ClipRequest], facts: Sequence[Facts]) -> list[str]:
    """A name for each request's clip that no other clip in `folder` has: its id, or with a digest before the seed.

    facts: of each request's clip. All clips of a prompt that one call makes, and those of the same call made before,
    have names that differ in the seed alone. Nothing is written; `names_for` is asked again when a clip is.
    """
    there = _entries(folder)
    chosen: dict[tuple[str, str], str] = {}
    names = []
    for request, own in zip(requests, facts, strict=True):
        key = _stem(request), digest_of(own)
        if key not in chosen:
            chosen[key] = next(s for s in _stems(request, own) if _is_free(folder, there.get(_key(s), ()), key[1]))
        names.append(f"{chosen[key]}-{request.seed}")
    return names


def names_for(request: ClipRequest, facts: Facts, first: str) -> Iterator[str]:
    """Names for a clip: `first`, and should another process have taken that meanwhile, those with longer digests."""
    yield first
    for stem in _stems(request, facts):
        if (name := f"{stem}-{request.seed}") != first:
            yield name


def has_foreign_audio(folder: Path, name: str) -> bool:
    """Whether there is an audio file of this name about which no sidecar says anything."""
    if (folder / f"{name}.json").exists():
        return False
    return any((folder / f"{name}{suffix}").exists() for suffix in SUFFIXES)


def _stems(request: ClipRequest, facts: Facts) -> Iterator[str]:
    stem, digest = _stem(request), digest_of(facts)
    if is_faithful(request.prompt):
        yield stem
    for digits in _DIGESTS:
        yield f"{stem}-{digest[:digits]}"
    raise AudioError(f"every name for {request.prompt[:60]!r} is taken by another clip; choose another folder")


def _stem(request: ClipRequest) -> str:
    """What a request's clips are called before digest and seed."""
    return request.id.removesuffix(f"-{request.seed}")


def _entries(folder: Path) -> dict[str, set[str]]:
    """Names of the clips and sidecars in a folder, without suffix, by their part before the seed."""
    found: dict[str, set[str]] = {}
    for file in os.listdir(folder) if folder.is_dir() else ():
        name, suffix = os.path.splitext(file)
        match = re.fullmatch(r"(.+)-\d+", name)
        if match and (suffix == ".json" or suffix.lower() in SUFFIXES):
            found.setdefault(_key(match[1]), set()).add(name)
    return found


def _key(stem: str) -> str:
    """What makes two names one on file systems that ignore case or normalize letters."""
    return unicodedata.normalize("NFC", stem).casefold()


def _is_free(folder: Path, names: Iterable[str], digest: str) -> bool:
    """Whether all files of these names are of clips that differ from ours in the seed alone."""
    for name in names:
        sidecar = read_sidecar(folder / f"{name}.wav")
        if not sidecar or digest_of(facts_of(sidecar)) != digest:
            return False
    return True


def _normalized(prompt: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", prompt).lower())


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


def _words(prompt: str) -> str:
    return re.sub("-+", "-", "".join(c if _is_letter(c) else "-" for c in _normalized(prompt))).strip("-")


def _cut(words: str) -> str:
    """As much of a name as fits, between characters as people see them."""
    end = min(len(words), _CHARACTERS)
    while len(words[:end].encode()) > _BYTES or (end < len(words) and unicodedata.category(words[end])[0] == "M"):
        end -= 1
    whole_words = words[:end].rfind("-") if end < len(words) and words[end] != "-" else -1
    return words[: whole_words if whole_words > end // 2 else end].rstrip("-")
