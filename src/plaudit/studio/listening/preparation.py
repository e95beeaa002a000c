"""The job that prepares a test: its clips, at one length, rate and loudness, its pairs, checks and anchors.

Clips are written into the test's folder first; then one transaction adds all rows. A job that was killed begins anew:
what lies in the folder and is in no row is removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from plaudit.audio import decoder, read_audio, resample, write_wav
from plaudit.audio_format import recorded_prompt
from plaudit.errors import EvaluationError, listed
from plaudit.sidecars import recorded_seed
from plaudit.studio.catalogue import resolve_model, resolve_reward
from plaudit.studio.database import Clip, Pair, Prompt, Stimulus, System, Test, by_id, new_id
from plaudit.studio.events import publish
from plaudit.studio.files import TABLE, audio_in, resolve_folder
from plaudit.studio.jobs import JobContext, job
from plaudit.studio.listening import design
from plaudit.studio.listening.plans import seed_of
from plaudit.studio.listening.rating import ANCHOR, CUTOFF, anchor
from plaudit.studio.listening.records import systems_of
from plaudit.studio.listening.schemas import Source, TestSettings
from plaudit.studio.listening.sessions import settings_of
from plaudit.studio.listening.stimuli import at_loudness, check_peaks, common_length, common_rate, degraded

DEGRADED = "degraded"
"""The system of degraded versions, for obvious pairs."""

OBVIOUS_POOL = 4
"""Obvious pairs for each that a listener gets, so that not all get the same (ours)."""

MOST_PAIRS = 20_000


@dataclass(frozen=True)
class SourceClip:
    """A system's clip of a prompt as it was given. take: its place among those of the prompt."""

    file: Path
    prompt: str
    take: int

    @property
    def seed(self) -> int | None:
        """The seed that it was generated from, where that is recorded."""
        return recorded_seed(self.file)


Group = dict[str, SourceClip]
"""By system, the clips of one prompt and take."""


@dataclass(frozen=True)
class NewClip:
    """A clip of the test that was written. system: one of the test's, or the name of a check. of: the system whose clip
    a degraded version is made of."""

    id: str
    system: str
    prompt: str
    take: int
    seconds: float
    rate: int
    loudness: float
    true_peak: float
    seed: int | None = None
    of: str | None = None


@job("prepare-test")
def prepare(context: JobContext, request: dict[str, Any]) -> dict[str, Any]:
    """Prepare the clips and pairs of a test; its id, and the numbers of clips and pairs."""
    with context.database.reading() as session:
        test = by_id(session, Test, request["test"])
        systems = {row.name: Source.model_validate(row.source) for row in systems_of(session, test.id)}
        finished = session.scalar(select(Pair.id).where(Pair.test_id == test.id).limit(1)) is not None
    if not finished:
        settings, prompts = settings_of(test), test.settings["prompts"]
        folder = context.settings.layout.tests / test.id
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.wav"):
            left.unlink()
        sources = {
            name: source_clips(context, folder / "generated" / str(place), source, prompts, settings.takes)
            for place, (name, source) in enumerate(systems.items())
        }
        groups, notes = common_groups(sources, prompts, complete=test.kind == "rating")
        preparation = _Preparation(context, folder, groups, settings, list(systems), test.kind == "rating")
        clips = preparation.write()
        scores = _rewards(context, folder, clips, settings.reward)
        with context.database.transaction() as session:
            _add_rows(session, test.id, clips, scores, [*notes, *preparation.notes], settings, context)
    with context.database.reading() as session:
        pairs = session.scalars(select(Pair.kind).where(Pair.test_id == test.id)).all()
        return {"test": test.id, "pairs": sum(kind in ("regular", "page") for kind in pairs)}


# Where clips are from


def source_clips(
    context: JobContext, generated: Path, source: Source, prompts: Sequence[str] | None, takes: int
) -> list[SourceClip]:
    """The clips of a source for the prompts (None: all that it has), at most `takes` of each; those of a model are
    generated into the folder `generated`, unless they are there."""
    if source.model is not None:
        files = list(_generated(context, generated, source, prompts or [], takes))
    else:
        place = source.folder if source.run is None else f"runs/{source.run}/clips-{source.stage}"
        folder = resolve_folder(context.settings, str(place))
        files = _with_prompts(folder)
    by_prompt: dict[str, list[Path]] = {}
    for prompt, file in files:
        if prompts is None or prompt in prompts:
            by_prompt.setdefault(prompt, []).append(file)
    return [
        SourceClip(file, prompt, take)
        for prompt, group in by_prompt.items()
        for take, file in enumerate(sorted(group, key=_by_seed)[:takes])
    ]


def _with_prompts(folder: Path) -> list[tuple[str, Path]]:
    """The clips of a folder that have a prompt; EvaluationError where there is none."""
    clips = [(recorded_prompt(file), file) for file in audio_in(folder)]
    if not clips:
        raise EvaluationError("a folder of the test has no audio; upload clips")
    named = [(prompt, file) for prompt, file in clips if prompt]
    if not named:
        raise EvaluationError(
            f"{clips[0][1].name} has no prompt, nor has any other clip of its folder; upload the clips together with "
            f"{TABLE}, a table with the columns file and prompt"
        )
    return named


def _by_seed(file: Path) -> tuple[int, str]:
    return recorded_seed(file) or 0, str(file)


def _generated(
    context: JobContext, folder: Path, source: Source, prompts: Sequence[str], takes: int
) -> Iterator[tuple[str, Path]]:
    from plaudit import api
    from plaudit.studio.generation import check_same_model

    model = resolve_model(context.settings, str(source.model))
    folder.mkdir(parents=True, exist_ok=True)
    check_same_model(folder, model, str(source.model))
    sampling = dict(source.sampling or {})
    if source.seconds is not None:
        sampling["piece"] = {**sampling.get("piece", {}), "seconds": source.seconds}
    clips = api.stream_generate(
        list(prompts), model=model, sampling=sampling, count=takes,
        seed=source.seed, output=folder, device=context.settings.device, reporter=context.reporter(),
    )  # fmt: skip
    for clip in clips:
        assert clip.file is not None  # there is a folder
        yield clip.prompt, clip.file


def common_groups(
    sources: Mapping[str, Sequence[SourceClip]], prompts: Sequence[str] | None, complete: bool
) -> tuple[list[Group], list[str]]:
    """Clips that can be compared, by prompt and take, and notes on what is left out.

    complete: only prompts that every system has a clip for; otherwise those that two systems have. EvaluationError
    where there is none.
    """
    groups: dict[tuple[str, int], Group] = {}
    for system, clips in sources.items():
        for clip in clips:
            groups.setdefault((clip.prompt, clip.take), {})[system] = clip
    least = len(sources) if complete else 2
    usable = [group for group in groups.values() if len(group) >= least]
    if not usable:
        counts = ", ".join(f"{name} has {len({c.prompt for c in clips})}" for name, clips in sources.items())
        what = "every system has" if complete else "two systems have"
        raise EvaluationError(f"there is no prompt that {what} a clip for ({counts}); give clips of the same prompts")
    notes = []
    missing = list(dict.fromkeys(prompt for (prompt, _), group in groups.items() if len(group) < least))
    missing += [prompt for prompt in prompts or [] if (prompt, 0) not in groups]
    if missing:
        notes.append(f"{len(missing)} prompts are left out or have fewer takes for want of clips: {listed(missing, 3)}")
    return usable, notes


# Writing clips


class _Preparation:
    """Writes the clips of a test. notes: for who runs the test, such as clips that were cut."""

    def __init__(
        self, context: JobContext, folder: Path, groups: Sequence[Group], settings: TestSettings,
        systems: Sequence[str], rating: bool,
    ) -> None:  # fmt: skip
        self.context, self.folder, self.groups, self.settings = context, folder, groups, settings
        self.systems, self.rating = systems, rating
        self.notes: list[str] = []
        self._peaks: dict[str, float] = {}
        rates = {clip.file: _rate(clip.file) for group in groups for clip in group.values()}
        self._sampling_rate = common_rate(list(rates.values()))
        if rating and self._sampling_rate <= 2 * CUTOFF:
            raise EvaluationError(
                f"the clips have a rate of {self._sampling_rate} Hz; an anchor at {CUTOFF:g} Hz needs a higher one"
            )
        self._cut = 0

    def write(self) -> list[NewClip]:
        """Write all clips; AudioError, in one line, where the loudness of some can't be matched."""
        clips: list[NewClip] = []
        checks = self._groups_with_checks()
        for place, group in enumerate(self.groups):
            self.context.progress(place, len(self.groups), label="matching lengths and loudness")
            clips += self._write_group(group, place in checks)
        check_peaks(self._peaks, self.settings.loudness)
        if self._cut:
            places = f"{self._cut} of {len(self.groups)} prompts"
            self.notes.append(f"clips of {places} were cut to the shortest of the prompt")
        return clips

    def _groups_with_checks(self) -> set[int]:
        """Groups whose first clip gets a degraded version."""
        if self.rating or not self.settings.obvious:
            return set()
        count = min(len(self.groups), OBVIOUS_POOL * self.settings.obvious)
        return {int(place) for place in np.linspace(0, len(self.groups) - 1, count)}

    def _write_group(self, group: Group, with_check: bool) -> list[NewClip]:
        prompt, take = next((clip.prompt, clip.take) for clip in group.values())
        names = {system: f"{system}'s clip {clip.file.name}" for system, clip in group.items()}
        loaded = {names[system]: self._load(clip.file) for system, clip in group.items()}
        waves = common_length(loaded, self._sampling_rate)
        self._cut += len({len(wave) for wave in loaded.values()}) > 1
        clips = [
            self._write_clip(system, prompt, take, names[system], waves[names[system]], group[system].seed)
            for system in group
        ]
        # Checks are of a different system each time, so that no system is known by being degraded.
        first = list(group)[seed_of(f"{prompt} {take}") % len(group)]
        if self.rating:
            first = self.settings.reference or first
            wave = anchor(waves[names[first]], self._sampling_rate)
            clips.append(self._write_clip(ANCHOR, prompt, take, f"the anchor of {names[first]}", wave))
        elif with_check:
            wave = degraded(waves[names[first]], self._sampling_rate, seed_of(f"{prompt} {take}"))
            name = f"the degraded version of {names[first]}"
            clips.append(self._write_clip(DEGRADED, prompt, take, name, wave, of=first))
        return clips

    def _load(self, file: Path) -> np.ndarray:
        wave, rate = read_audio(file)
        return resample(wave, rate, self._sampling_rate)

    def _write_clip(
        self, system: str, prompt: str, take: int, name: str, wave: np.ndarray, seed: int | None = None,
        of: str | None = None,
    ) -> NewClip:  # fmt: skip
        matched = at_loudness(name, wave, self._sampling_rate, self.settings.loudness)
        self._peaks[name] = matched.true_peak
        id = new_id()
        write_wav(self.folder / f"{id}.wav", matched.wave, self._sampling_rate)
        return NewClip(
            id=id, system=system, prompt=prompt, take=take, seconds=len(wave) / self._sampling_rate,
            rate=self._sampling_rate, loudness=matched.loudness, true_peak=matched.true_peak, seed=seed, of=of,
        )  # fmt: skip


def _rate(file: Path) -> int:
    with decoder(file) as decoding:
        return decoding.rate


def _rewards(context: JobContext, folder: Path, clips: Sequence[NewClip], reward: str | None) -> dict[str, float]:
    """The reward of each clip that systems made, by its id; of the audio that listeners get."""
    if reward is None:
        return {}
    from plaudit.loading import load_reward
    from plaudit.reward.scoring import Clip as ScoredFile
    from plaudit.reward.scoring import score_clips

    files = [
        ScoredFile(folder / f"{clip.id}.wav", clip.prompt) for clip in clips if clip.system not in (ANCHOR, DEGRADED)
    ]
    loaded = load_reward(resolve_reward(context.settings, context.database, reward), context.settings.device)
    with context.reporter().progress("scoring") as advance:
        rows = score_clips(files, loaded, None, advance)
    return {row.clip.file.stem: float(row.score) for row in rows if row.score is not None}


# Rows


def _add_rows(
    session: Session, test_id: str, clips: Sequence[NewClip], scores: Mapping[str, float], notes: list[str],
    settings: TestSettings, context: JobContext,
) -> None:  # fmt: skip
    """Add the test's prompts, clips, stimuli and pairs, and mark it as prepared."""
    test = by_id(session, Test, test_id)
    systems = {row.name: row.id for row in systems_of(session, test_id)}
    for check in dict.fromkeys(clip.system for clip in clips if clip.system not in systems):
        row = System(test_id=test_id, name=check, source={"check": check})
        session.add(row)
        session.flush()
        systems[check] = row.id
    prompts: dict[str, str] = {}
    stimuli: dict[str, str] = {}
    root = context.settings.layout.root
    for clip in clips:
        if clip.prompt not in prompts:
            prompt = Prompt(id=new_id(), test_id=test_id, text=clip.prompt)
            session.add(prompt)
            prompts[clip.prompt] = prompt.id
            session.flush()
        path = (context.settings.layout.tests / test_id / f"{clip.id}.wav").relative_to(root)
        session.add(
            Clip(
                id=clip.id, test_id=test_id, path=path.as_posix(), prompt=clip.prompt, model=clip.system,
                seed=None if clip.seed is None else str(clip.seed), duration=clip.seconds, sample_rate=clip.rate,
                reward=scores.get(clip.id), loudness=clip.loudness, peak=clip.true_peak,
            )
        )  # fmt: skip
        session.flush()
        stimuli[clip.id] = new_id()
        session.add(
            Stimulus(
                id=stimuli[clip.id], test_id=test_id, system_id=systems[clip.system], prompt_id=prompts[clip.prompt],
                clip_id=clip.id,
            )
        )  # fmt: skip
    session.flush()
    pairs = rating_pages(clips, settings.reference) if test.kind == "rating" else preference_pairs(clips, settings)
    if len(pairs) > MOST_PAIRS:
        raise EvaluationError(f"the test would have {len(pairs)} pairs, over {MOST_PAIRS}; give fewer prompts or takes")
    for kind, a, b in pairs:
        session.add(
            Pair(
                test_id=test_id, prompt_id=prompts[a.prompt], stimulus_a=stimuli[a.id], stimulus_b=stimuli[b.id],
                kind=kind,
            )
        )  # fmt: skip
    test.settings = {**test.settings, "notes": notes}
    test.status = "draft"
    publish(session, "test", test_id, {"status": "draft"})


def preference_pairs(
    clips: Sequence[NewClip], settings: TestSettings
) -> list[tuple[design.PairKind, NewClip, NewClip]]:
    """All pairs of a preference test: each comparison as a regular pair, and as those for repeats and practice where
    the test has them; and each degraded version with the clip that it is made of."""
    by_id = {clip.id: clip for clip in clips}
    clips_of_pairs = [
        design.Stimulus(clip.id, clip.prompt, clip.system, clip.take) for clip in clips if clip.system != DEGRADED
    ]
    compared = [(by_id[a.id], by_id[b.id]) for a, b in design.pairs_of(clips_of_pairs)]
    kinds: list[design.PairKind] = ["regular"]
    kinds += ["repeat"] if settings.repeats else []
    kinds += ["practice"] if settings.practice else []
    pairs = [(kind, a, b) for kind in kinds for a, b in compared]
    originals = {(clip.prompt, clip.take, clip.system): clip for clip in clips}
    pairs += [("obvious", originals[clip.prompt, clip.take, clip.of], clip) for clip in clips if clip.of is not None]
    return pairs


def rating_pages(clips: Sequence[NewClip], reference: str | None) -> list[tuple[design.PairKind, NewClip, NewClip]]:
    """A page per prompt: with the reference, or the first system's clip, and the anchor."""
    groups: dict[str, dict[str, NewClip]] = {}
    for clip in clips:
        groups.setdefault(clip.prompt, {})[clip.system] = clip
    return [("page", group[reference or next(iter(group))], group[ANCHOR]) for group in groups.values()]
