"""Sources of a run's clips, prompts and references: the kinds of `corpus.kind` in a recipe."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, model_validator

from plaudit.corpus.clips import ClipReader, ClipSettings, cut_clips, cutting_notes, measure_durations, recording_of
from plaudit.corpus.duplicates import deduplicate
from plaudit.corpus.layouts import LAYOUTS, Listing, list_folder
from plaudit.corpus.manifest import Corpus, Entry, ListedCorpus, read_manifest
from plaudit.corpus.shard_set import LEDGER, ShardSet, read_provenance
from plaudit.corpus.shards import stamp
from plaudit.corpus.track_tables import ID_COLUMN, counted
from plaudit.devices import batched
from plaudit.errors import CorpusError, PlauditError
from plaudit.registry import Registry
from plaudit.reporting import Progress, no_progress
from plaudit.settings import Count, CountOrZero, Duplicates, Fraction, Peak, Place, Seed, Settings
from plaudit.storage import digest_of, file_digest
from plaudit.types import Codec, Vote


class CorpusSettings(Settings):
    """Where clips come from. `synthetic` renders `size` synthetic clips; `folder` reads `table` (CSV) beside audio;
    `shards` takes the shard set in `folder`, encoded before with the recipe's codec and text encoder; a layout
    (jamendo, song-describer, an installed one, or `path/to/file.py:NAME`) lists the recordings in `folder`, with
    `options` for its other arguments.

    Files that are longer than `seconds` are cut to clips as `plaudit prepare` does: at most `clips_per_track` of each
    (0: as many as fit), from where `place` says, after the whole file was scaled to `peak`. Of files with the same
    content, `duplicates` are in the same split ("together"), left out ("drop") or treated like others ("separate").
    What is set so for a shard set must be what it was prepared with.

    Rewards stand in `reward_column` of `table`, or, by track, in a CSV of scores, `score_table`; licences in
    `licence_column`. A shard set has its own.
    """

    kind: str = "synthetic"
    seconds: Annotated[float, Field(ge=1, le=300)] = 10.0
    size: Count = 2000
    seed: Seed = 0
    flawed_fraction: Fraction = 0.5
    miscaptioned_fraction: Fraction = 0.1
    folder: Path | None = None
    options: dict[str, str | bool | int | float | None] = Field(default_factory=dict)
    table: Path | None = None
    file_column: str = "file"
    caption_column: str = "caption"
    clips_per_track: CountOrZero = 10
    place: Place = "spread"
    peak: Peak | None = None
    duplicates: Duplicates = "together"
    licence_column: str | None = None
    reward_column: str | None = None
    score_table: Path | None = None
    score_id_column: str = ID_COLUMN
    validation_fraction: Fraction = 0.05
    test_fraction: Fraction = 0.05
    shard_size: Count = 512

    @model_validator(mode="after")
    def _check(self) -> CorpusSettings:
        corpus_source(self).check()
        return self


class LayoutOptions(Settings):
    """Arguments of a layout besides the folder."""

    options: dict[str, str | bool | int | float | None]


@dataclass(frozen=True)
class HeldOut:
    """Prompts that no stage is trained on, with the truth that each describes where it is known."""

    prompts: list[str]
    truths: list[Any] | None = None


@dataclass(frozen=True)
class Rendering:
    """A clip that a system made for the caption of the corpus's clip `prompted`.

    id: in votes and features. file: its audio; None for the corpus's own clip.
    """

    id: str
    system: str
    prompted: str
    prompt: str
    file: Path | None


class CorpusSource:
    """The interface of a run's corpus. Subclasses override what differs from recorded audio.

    truth_known: the corpus knows what each prompt describes and what listeners prefer, because it simulates both; then
    votes, the true utility of clips and a concept detector come with it.
    has_audio: it has waveforms, not only latents.
    has_rewards: its clips may come with rewards.
    licence: of weights trained on it alone, None where its owner decides.
    """

    truth_known = False
    has_audio = True
    licence: str | None = None

    def __init__(self, settings: CorpusSettings) -> None:
        self.settings = settings

    def check(self) -> None:
        """ValueError, in one line, where the settings lack something."""

    @property
    def has_rewards(self) -> bool:
        """Whether clips may come with rewards."""
        return False

    @property
    def rewards_at(self) -> str:
        """Where to add missing rewards, for messages."""
        return f"corpus {self.settings.kind}"

    @property
    def label(self) -> str:
        """A phrase that describes the clips."""
        return f"clips of {self.settings.folder}"

    @property
    def description(self) -> str:
        """The first paragraph of a run's report."""
        raise NotImplementedError

    def card(self) -> str:
        """The section on data of a model card."""
        raise NotImplementedError

    def requirements(self) -> list[tuple[str, str, bool, str]]:
        """Required files: (kind, name, whether it is present, what to do if not)."""
        return []

    def count(self) -> int:
        """Usable clips. CorpusError where the corpus is missing."""
        return sum(not clip.problem for clip in self.listing().entries)

    def listing(self, progress: Progress = no_progress) -> Listing:
        """All clips, with notes for the user; CorpusError where they cannot be listed."""
        raise NotImplementedError

    def open(self, manifest: Path | None = None) -> Corpus:
        """All clips, or those of a manifest that was written from `listing`."""
        raise NotImplementedError

    def digest(self, manifest: Path | None = None) -> str | None:
        """A digest of all clips by content, "none" where they are missing, None where the settings determine them.

        manifest: of an earlier listing; files of the same size and time of change are not read again.
        """
        raise NotImplementedError

    def held_out(self, count: int, shards: ShardSet | None = None) -> HeldOut:
        """At most `count` prompts that no stage is trained on: captions of the encoded test split."""
        assert shards is not None
        rows = [row for row, split in enumerate(shards.splits) if split == "test"]
        prompts = list(dict.fromkeys(shards.captions[row] for row in rows))
        if len(prompts) < 2:
            raise CorpusError(
                f"the test split has {len(prompts)} captions, evaluation needs 2; raise corpus.test_fraction or add "
                "clips"
            )
        return HeldOut(prompts[:count])

    def reference(
        self, count: int, shards: ShardSet | None = None, manifest: Path | None = None, codec: Codec | None = None
    ) -> tuple[int, Iterator[tuple[np.ndarray, int]]]:
        """The number of reference clips, and (waveform, rate) of each: all encoded clips."""
        assert shards is not None and manifest is not None
        clips = ClipReader(self.open(manifest), shards.ids, self.settings.seconds)
        return len(shards), map(clips.read, shards.ids)

    def reference_label(self, count: int) -> str:
        """A phrase that identifies the clips of `reference`."""
        return f"{count} {self.label}"

    # Of corpora whose truth is known.

    def save_truth(self, folder: Path) -> dict[str, Any]:
        """Write the facts of every clip into `folder`; a summary of them."""
        return {}

    def flaws(self, folder: Path) -> dict[str, float]:
        """The fraction of clips with each kind of flaw, by what `save_truth` wrote."""
        return {}

    def simulate_votes(
        self, counts: Mapping[str, int], seed: int, progress: Progress = no_progress
    ) -> tuple[dict[str, list[Vote]], dict[str, Any]]:
        """Votes of simulated listeners by split, on that many pairs of the split's clips; and facts about them."""
        raise CorpusError(f"corpus {self.settings.kind} has no simulated listeners; use votes of people")

    def simulate_system_votes(
        self,
        renderings: Mapping[str, Sequence[Rendering]],
        counts: Mapping[str, int],
        seed: int,
        progress: Progress = no_progress,
    ) -> tuple[dict[str, list[Vote]], dict[str, Any], dict[str, float]]:
        """Votes by split, each on two renderings of one prompt; facts about them; and the utility of every rendering.

        renderings, counts: by split.
        """
        raise CorpusError(f"corpus {self.settings.kind} has no simulated listeners; use votes of people")

    def true_utility(self) -> Callable[[list[torch.Tensor], Sequence[Any]], torch.Tensor] | None:
        """(waves, truths of their prompts) -> the listeners' utility of each wave."""
        return None

    def detector(self) -> Any:
        """The concept detector of this corpus's vocabulary (plaudit.evaluate.concepts.detectors.Detector), or None."""
        return None

    def measure_detector(
        self, detector: Any, vocabulary: Any, clips: int, progress: Progress, codec: Codec | None = None
    ) -> Any:
        """Error rates of a concept detector on `clips` clips whose concepts are known."""
        raise CorpusError(f"corpus {self.settings.kind} does not know what its clips contain; take the synthetic one")


class LayoutSource(CorpusSource):
    """Recordings with captions, as a layout lists them."""

    @property
    def has_rewards(self) -> bool:
        return True

    @property
    def description(self) -> str:
        return "The whole pipeline on a folder of audio. True preferences are not available; the reward predicts them."

    def card(self) -> str:
        return self._card(f"`{self.settings.kind}`")

    def _card(self, table: str) -> str:
        return f"Captioned audio listed in {table}, as clips of {self.settings.seconds:g} s."

    def check(self) -> None:
        settings = self.settings
        try:
            layout = LAYOUTS.load(settings.kind)
        except PlauditError as error:
            raise ValueError(f"corpus.kind is synthetic, folder, shards or a layout: {error}") from None
        if settings.folder is None:
            raise ValueError(f"corpus.kind {settings.kind} needs corpus.folder")
        try:
            inspect.signature(layout).bind(settings.folder, **settings.options)
        except TypeError as error:
            raise ValueError(f"corpus.options do not fit layout {settings.kind}: {error}") from None

    def requirements(self) -> list[tuple[str, str, bool, str]]:
        folder = self.settings.folder
        assert folder is not None  # validated with the recipe
        return [("audio", str(folder), folder.exists(), "set corpus.* to yours")]

    def recordings(self) -> Listing:
        """Whole recordings, as the layout lists them."""
        assert self.settings.folder is not None  # validated with the recipe
        return list_layout(self.settings.kind, self.settings.folder, self.settings.options)

    def listing(self, progress: Progress = no_progress) -> Listing:
        settings, recordings = self.settings, self.recordings()
        unique = deduplicate(recordings.entries, settings.duplicates)
        durations = measure_durations(unique.entries, progress)
        cutting = ClipSettings(
            seconds=settings.seconds, per_track=settings.clips_per_track, place=settings.place, peak=settings.peak
        )
        clips = cut_clips(unique.entries, durations, cutting)
        notes = cutting_notes(clips, durations, cutting, "corpus.clips_per_track")
        unusable = counted("entries of the table cannot be used", [clip.problem for clip in clips if clip.problem])
        return Listing(recordings.name, clips, [*recordings.notes, *unique.notes, *notes, *unusable])

    def open(self, manifest: Path | None = None) -> Corpus:
        """All clips, or those of a manifest; of a folder that was moved, in the files where they are now."""
        if manifest is None:
            listing = self.listing()
            return ListedCorpus(listing.name, listing.entries)
        recordings = self.recordings()
        places = {entry.id: entry.path for entry in recordings.entries}
        clips = [replace(clip, path=places[recording_of(clip)]) for clip in read_manifest(manifest)]
        return ListedCorpus(recordings.name, clips)

    def digest(self, manifest: Path | None = None) -> str | None:
        try:
            entries = self.recordings().entries
        except CorpusError:
            return "none"
        return entries_digest(entries, audio_digests(entries, manifest))


class FolderSource(LayoutSource):
    """Audio files and a CSV of their captions."""

    @property
    def has_rewards(self) -> bool:
        return self.settings.reward_column is not None or self.settings.score_table is not None

    @property
    def rewards_at(self) -> str:
        settings = self.settings
        return f"table {settings.score_table}" if settings.score_table else f"column {settings.reward_column}"

    def card(self) -> str:
        return self._card(f"`{self.settings.table.name if self.settings.table else ''}`")

    def check(self) -> None:
        if self.settings.folder is None or self.settings.table is None:
            raise ValueError("corpus.kind folder needs corpus.folder and corpus.table (a CSV of files and captions)")

    def requirements(self) -> list[tuple[str, str, bool, str]]:
        settings, rows = self.settings, []
        for what, path in (("audio", settings.folder), ("captions", settings.table), ("scores", settings.score_table)):
            if path is not None:
                inside = settings.folder is not None and (settings.folder / path).is_file()
                rows.append((what, str(path), path.exists() or inside, "set corpus.* to yours"))
        return rows

    def recordings(self) -> Listing:
        settings = self.settings
        assert settings.folder is not None and settings.table is not None  # validated with the recipe
        return list_folder(
            settings.folder,
            settings.table,
            file_column=settings.file_column,
            caption_column=settings.caption_column,
            reward_column=settings.reward_column,
            score_table=settings.score_table,
            score_id_column=settings.score_id_column,
            validation=settings.validation_fraction,
            test=settings.test_fraction,
            licence_column=settings.licence_column,
        )


class ShardSource(CorpusSource):
    """A shard set that `plaudit prepare` encoded."""

    has_audio = False

    @property
    def has_rewards(self) -> bool:
        return True

    @property
    def rewards_at(self) -> str:
        return f"shard set {self.settings.folder}"

    @property
    def description(self) -> str:
        return (
            "The whole pipeline on a prepared shard set. True preferences are not available; the reward predicts them. "
            "Distances are to the test split as the codec reconstructs it."
        )

    def card(self) -> str:
        return f"A prepared shard set, of clips of {self.settings.seconds:g} s."

    def check(self) -> None:
        if self.settings.folder is None:
            raise ValueError("corpus.kind shards needs corpus.folder, a shard set")

    @property
    def _ledger(self) -> Path:
        assert self.settings.folder is not None  # validated with the recipe
        return self.settings.folder / LEDGER

    def requirements(self) -> list[tuple[str, str, bool, str]]:
        action = "plaudit prepare makes one; set corpus.folder to it"
        return [("shard set", str(self.settings.folder), self._ledger.is_file(), action)]

    def count(self) -> int:
        return len(ShardSet(self._ledger.parent, verify=False))

    def check_preparation(self) -> None:
        """CorpusError where the set was not prepared as the settings say; those at their defaults leave it open."""
        recorded = read_provenance(self._ledger.parent)
        if recorded is None:
            return
        for name in ("clips_per_track", "place", "peak", "duplicates"):
            default = CorpusSettings.model_fields[name].default
            wanted, flag = getattr(self.settings, name), f"--{name.replace('_', '-')}"
            prepared = recorded.settings.get(flag, default)
            if wanted not in (default, prepared):
                raise CorpusError(
                    f"{self._ledger.parent} was prepared with {flag} {_text(prepared)}, the recipe has corpus.{name} "
                    f"{_text(wanted)}; change it or prepare the set again with {flag} {_text(wanted)}"
                )

    def digest(self, manifest: Path | None = None) -> str | None:
        """The digest of the ledger, which has every file's digest."""
        return file_digest(self._ledger) if self._ledger.is_file() else "none"

    def reference(
        self, count: int, shards: ShardSet | None = None, manifest: Path | None = None, codec: Codec | None = None
    ) -> tuple[int, Iterator[tuple[np.ndarray, int]]]:
        """At most `count` clips of the test split, decoded again."""
        assert shards is not None and codec is not None
        rows = shards.rows("test")[:count]

        def decoded() -> Iterator[tuple[np.ndarray, int]]:
            for row in rows:
                with torch.inference_mode():
                    wave = batched(codec, codec.decode, shards.posterior(row[None]).mean)[0]
                yield wave.numpy(), codec.sample_rate

        return len(rows), decoded()


def _text(value: Any) -> str:
    return "none" if value is None else str(value)


CORPORA: Registry[type[CorpusSource]] = Registry(
    "corpus",
    "plaudit.corpora",
    {
        "synthetic": "plaudit.synthetic.evaluators:SyntheticSource",
        "folder": "plaudit.corpus.sources:FolderSource",
        "shards": "plaudit.corpus.sources:ShardSource",
    },
    error=CorpusError,
)
"""Kinds of corpora: classes that take CorpusSettings. A layout is one too, as a LayoutSource."""


def corpus_source(settings: CorpusSettings) -> CorpusSource:
    """The corpus that settings describe."""
    is_registered = settings.kind in CORPORA.names()
    return CORPORA.load(settings.kind)(settings) if is_registered else LayoutSource(settings)


def synthetic_source(seconds: float, **settings: Any) -> CorpusSource:
    """The synthetic corpus with clips of `seconds`: prompts, reference and detector where a user names none."""
    return corpus_source(CorpusSettings().model_copy(update={"seconds": seconds, **settings}))


def list_layout(name: str, folder: Path, options: Mapping[str, Any]) -> Listing:
    """The recordings that a layout lists; CorpusError in one line where it fails or returns anything else."""
    try:
        listing = LAYOUTS.load(name)(folder, **options)
    except PlauditError:
        raise
    except Exception as error:  # the layout may be anybody's code
        raise CorpusError(f"layout {name} fails: {type(error).__name__}: {error}") from error
    if not isinstance(listing, Listing):
        raise CorpusError(f"layout {name} must return a Listing, not {type(listing).__name__}")
    return listing


def entries_digest(entries: Sequence[Entry], audio: Mapping[Path, str]) -> str:
    """A digest of clips by content, independent of paths: captions, rewards, splits, and audio by its digests."""
    plain = [asdict(replace(entry, path=None, source="", problem="")) for entry in entries]  # these name the folder
    for row in plain:  # left out where unused, so that earlier digests stay valid
        for name in ("peak", "licence"):
            if not row[name]:
                del row[name]
    rows = [row | {"audio": entry.path and audio[entry.path]} for row, entry in zip(plain, entries, strict=True)]
    return digest_of(rows)


def audio_digests(entries: Sequence[Entry], manifest: Path | None = None) -> dict[Path, str]:
    """A digest of each file of the entries by content; "none" where it cannot be read."""
    cached: dict[str, list[Any]] = {}
    if manifest is not None and manifest.is_file():
        rows = [json.loads(line) for line in manifest.read_text().splitlines()]
        cached = {row["path"]: row["audio"] for row in rows if row["audio"]}
    digests = {}
    for path in dict.fromkeys(entry.path for entry in entries if entry.path is not None):
        before = cached.get(str(path))
        try:
            digests[path] = before[-1] if before is not None and before[:2] == stamp(path) else file_digest(path)
        except OSError:
            digests[path] = "none"
    return digests
