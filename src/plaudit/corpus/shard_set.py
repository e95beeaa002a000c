"""A shard set on disk: its ledger of finished files, and reading it memory-mapped in any order.

The folder holds `index.parquet` (id, source, caption, caption_row, reward, split, shard, row, and licence if known),
`latents-00000.safetensors` ... (mean and std, float16 [n, N, C]), `captions-00000.safetensors` ... (tokens and pooled,
float16, one row per distinct caption), `stats.json`, `quarantine.jsonl`, and `shards.json` with the size and SHA-256
of all of these. `plaudit.corpus.shards` writes it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from plaudit.errors import CorpusError, is_no_room
from plaudit.storage import STEP, differences, file_digest, save_tensors, write_atomically, write_json
from plaudit.types import Posterior, TextFeatures
from plaudit.writing import locked

LEDGER, INDEX, STATS, QUARANTINE = "shards.json", "index.parquet", "stats.json", "quarantine.jsonl"
SOURCE, LOCK = "source.json", ".lock"
WRITTEN_ALONE = (LEDGER, INDEX, STATS, QUARANTINE, SOURCE)
"""The files that are not shards."""
SHARD = re.compile(r"(latents|captions)-\d+\.safetensors")
LEFTOVERS = (".*.partial", ".tmp??????", *(f".{name}.*" for name in WRITTEN_ALONE))
"""Files of a killed process; those of safetensors begin as .tmp and six characters."""

Facts = dict[str, Any]
"""A file's record in the ledger: bytes, sha256, and for shards the key of their inputs."""


@dataclass(frozen=True)
class ShardProvenance:
    """Inputs of a shard set: `source` identifies the data set, `settings` are options by name, as plain data."""

    source: dict[str, str]
    settings: dict[str, Any]

    def differences(self, earlier: ShardProvenance) -> list[str]:
        """The settings that differ from earlier ones, as text."""
        changed = differences(earlier.settings, self.settings)
        return [f"{name} was {old}, is now {new}" for name, (old, new) in changed.items()]


ApproveChanges = Callable[[Sequence[str]], bool]
"""Whether shards may be replaced, given the settings that differ."""


def no_changes(differences: Sequence[str]) -> bool:
    """Refuses every change."""
    return False


def check_claim(folder: Path, provenance: ShardProvenance | None, approve: ApproveChanges = no_changes) -> None:
    """CorpusError where a folder holds anything but a shard set of the same source, or if shards may not be replaced.

    Without a provenance the folder may also be a step of a run, which has its own record of inputs.
    """
    try:
        names = [name for name in os.listdir(folder) if not _is_bookkeeping(name)]
    except FileNotFoundError:
        return
    except OSError as error:
        raise CorpusError(f"{folder} cannot be written ({error.strerror}); choose another folder") from None
    if not names:
        return
    recorded = read_provenance(folder)
    if provenance is None and recorded is None and (LEDGER in names or STEP in names):
        return
    if recorded is None:
        what = "a shard set without a record of its source" if LEDGER in names else "files, but no shard set"
        raise CorpusError(f"{folder} holds {what}; choose another folder with -o")
    if provenance is None or recorded.source != provenance.source:
        there = ", ".join(f"{name} {value}" for name, value in recorded.source.items())
        raise CorpusError(f"{folder} holds another data set ({there}); give this one a folder of its own with -o")
    differences = provenance.differences(recorded)
    if differences and read_ledger(folder) and not approve(differences):
        changes = "; ".join(differences)
        raise CorpusError(
            f"{folder} was made with other settings ({changes}); add --yes to make it again, or choose another folder"
        )


def read_provenance(folder: Path) -> ShardProvenance | None:
    """What a shard set was made from, where that is recorded."""
    try:
        return ShardProvenance(**json.loads((folder / SOURCE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _is_bookkeeping(name: str) -> bool:
    """Whether a file of this name may exist before the source is recorded."""
    return name == LOCK or any(fnmatch(name, pattern) for pattern in LEFTOVERS)


def read_ledger(folder: Path) -> dict[str, Facts]:
    """Finished files of a shard set by name; empty without a readable ledger."""
    try:
        ledger = json.loads((folder / LEDGER).read_bytes())
        return {name: facts for name, facts in ledger.items() if {"bytes", "sha256"} <= facts.keys()}
    except (OSError, ValueError, AttributeError):
        return {}


def damage_of(path: Path, facts: Facts, checksum: bool = True) -> str | None:
    """Why a file listed as finished in the ledger is damaged, or None."""
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != facts["bytes"]:
        return f"is damaged ({size} bytes instead of {facts['bytes']})"
    if checksum and file_digest(path) != facts["sha256"]:
        return "is damaged (its checksum differs)"
    return None


class Ledger:
    """The ledger for writing. Every file is written atomically, then recorded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = read_ledger(folder)
        self._current: set[str] = set()
        for leftover in (path for pattern in LEFTOVERS for path in folder.glob(pattern)):
            leftover.unlink()

    def finished(self, name: str, key: str) -> Facts | None:
        """The record of a shard if it has the same `key` and is intact."""
        self._current.add(name)
        facts = self._files.get(name)
        if facts is None or facts.get("key") != key or damage_of(self.folder / name, facts):
            return None
        return facts

    def save_shard(self, name: str, tensors: dict[str, Tensor], facts: Facts) -> None:
        """Write a shard, after removing the index, which would no longer match."""
        with _one_line_errors(self.folder / name):
            self._set({k: v for k, v in self._files.items() if k not in (INDEX, STATS, QUARANTINE)})
            save_tensors(self.folder / name, tensors)
            self._set(self._files | {name: facts | _measured(self.folder / name)})

    def save_file(self, name: str, data: bytes | str) -> None:
        """Write one of the small files."""
        self._current.add(name)
        with _one_line_errors(self.folder / name):
            write_atomically(self.folder / name, data)
            self._set(self._files | {name: _measured(self.folder / name)})

    def forget_others(self) -> None:
        """Remove shards of an earlier, larger corpus: those not looked up since."""
        with _one_line_errors(self.folder):
            current = self._current | set(WRITTEN_ALONE)
            self._set({name: facts for name, facts in self._files.items() if name in current})
            for path in self.folder.glob("*.safetensors"):
                if SHARD.fullmatch(path.name) and path.name not in current:
                    path.unlink()

    def _set(self, files: dict[str, Facts]) -> None:
        if files != self._files:
            files = dict(sorted(files.items(), key=lambda item: _place(item[0])))
            write_json(self.folder / LEDGER, files)
            self._files = files


@contextmanager
def locked_ledger(
    folder: Path, provenance: ShardProvenance | None = None, approve: ApproveChanges = no_changes
) -> Iterator[Ledger]:
    """The folder's ledger, the folder created if need be.

    CorpusError while another process writes there, and as check_claim does.
    """
    check_claim(folder, provenance, approve)
    with ExitStack() as stack:
        with _one_line_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(locked(folder / LOCK, wait=False))
            except BlockingIOError:
                raise CorpusError(f"{folder} is being written by another process; wait for it to end") from None
        check_claim(folder, provenance, lambda differences: True)  # another process may have begun meanwhile
        if provenance is not None:
            with _one_line_errors(folder):
                write_json(folder / SOURCE, asdict(provenance))
        yield Ledger(folder)


def _place(name: str) -> tuple[int, str]:
    """Latents, then captions, then the rest, so that the order in which shards were finished does not matter."""
    kind = name.partition("-")[0]
    return {"latents": (0, name), "captions": (1, name)}.get(kind, (2, ""))


def _measured(path: Path) -> Facts:
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    """Errors of the operating system in writing `path` as a CorpusError of one line."""
    try:
        yield
    except OSError as error:
        free_space = "free some space and run again, finished shards are kept"
        advice = free_space if is_no_room(error) else "choose another folder"
        raise CorpusError(f"{path} cannot be written ({error.strerror}); {advice}") from None


class ShardSet:
    """An encoded corpus, row by row in the order of its entries, quarantined ones left out.

    frames (N) and latent_dim (C) are the posteriors' shape; latent_mean and latent_std are float32 [C] over the train
    split. `verify=False` skips the checksums, which cost a second per gigabyte or so, but not the sizes.
    Raises CorpusError, naming the file, where the folder is unfinished, damaged or no shard set.
    """

    def __init__(self, folder: Path | str, verify: bool = True) -> None:
        self.folder = Path(folder)
        ledger = read_ledger(self.folder)
        if not ledger:
            raise CorpusError(f"{self.folder} is not a shard set (it has no {LEDGER}); check the path")
        if INDEX not in ledger:
            raise CorpusError(f"{self.folder} is not finished; run its encoding again, finished shards are kept")
        for name, facts in ledger.items():
            damage = damage_of(self.folder / name, facts, checksum=verify)
            if damage:
                raise CorpusError(f"{self.folder / name} {damage}; run its encoding again, only this file is remade")
        columns = pyarrow.parquet.read_table(self.folder / INDEX).to_pydict()
        self.ids: list[str] = columns["id"]
        self.captions: list[str] = columns["caption"]
        self.splits: list[str] = columns["split"]
        self.sources: list[str] = columns["source"]
        self.licences: list[str] = columns.get("licence", [""] * len(self.ids))
        self.rewards = np.array([np.nan if r is None else r for r in columns["reward"]], dtype=np.float64)
        self._shard = np.array(columns["shard"], dtype=np.int64)
        self._row = np.array(columns["row"], dtype=np.int64)
        self._caption_row = np.array(columns["caption_row"], dtype=np.int64)
        self.stats: dict[str, Any] = json.loads((self.folder / STATS).read_bytes())
        self.frames: int = self.stats["frames"]
        self.latent_dim: int = self.stats["latent_dim"]
        self.latent_mean = torch.tensor(self.stats["latent_mean"], dtype=torch.float32)
        self.latent_std = torch.tensor(self.stats["latent_std"], dtype=torch.float32)
        self._latents = _Mapped([self.folder / n for n in sorted(ledger) if n.startswith("latents-")])
        self._texts = _Mapped([self.folder / n for n in sorted(ledger) if n.startswith("captions-")])
        counts = [self._texts.rows(shard, "pooled") for shard in range(len(self._texts))]
        self._caption_starts = np.cumsum([0, *counts])

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, split: str) -> np.ndarray:
        """The rows of one split, ascending: int64 [M]."""
        return np.flatnonzero(np.array(self.splits) == split)

    def posterior(self, rows: np.ndarray, dtype: torch.dtype = torch.float32) -> Posterior:
        """Posterior of the clips at `rows` [M], as they come out of the codec: [M, N, C].

        In float16, as they are stored, nothing is copied but the rows themselves.
        """
        shards, places = self._shard[rows], self._row[rows]
        mean, std = (self._latents.take(name, shards, places) for name in ("mean", "std"))
        return Posterior(mean.to(dtype), std.to(dtype))

    def text(self, rows: np.ndarray, dtype: torch.dtype = torch.float32) -> TextFeatures:
        """Features of the captions of the clips at `rows` [M]: [M, L, D] and [M, P]."""
        caption_rows = self._caption_row[rows]
        shards = np.searchsorted(self._caption_starts, caption_rows, side="right") - 1
        places = caption_rows - self._caption_starts[shards]
        tokens, pooled = (self._texts.take(name, shards, places) for name in ("tokens", "pooled"))
        return TextFeatures(tokens.to(dtype), pooled.to(dtype))


class _Mapped:
    """Tensors of several safetensors files, mapped into memory on first use."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._open: dict[tuple[int, str], np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def rows(self, shard: int, name: str) -> int:
        return self._array(shard, name).shape[0]

    def take(self, name: str, shards: np.ndarray, places: np.ndarray) -> Tensor:
        """Row places[i] of file shards[i], for all i: [M, ...], as stored."""
        like = self._array(int(shards[0]) if len(shards) else 0, name)
        out = np.empty((len(shards), *like.shape[1:]), like.dtype)
        # Row by row: in a shuffled corpus each row is in another file, and gathering by file would copy twice.
        for i, (shard, place) in enumerate(zip(shards.tolist(), places.tolist(), strict=True)):
            out[i] = self._array(shard, name)[place]
        return torch.from_numpy(out)

    def _array(self, shard: int, name: str) -> np.ndarray:
        if (shard, name) not in self._open:
            try:
                # On the CPU the tensor is a view of the mapped file: only the pages of the selected rows are read.
                with safe_open(self._paths[shard], framework="pt") as file:
                    self._open[shard, name] = file.get_tensor(name).numpy()
            except (SafetensorError, OSError) as error:
                raise CorpusError(f"{self._paths[shard]} is damaged ({error}); run its encoding again") from None
        return self._open[shard, name]
