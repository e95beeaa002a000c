"""`score` and `rank`: rewards of files and folders."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plaudit.api.options import (
    Device,
    Engine,
    RayAddress,
    RewardName,
    ScorePrecision,
    UseCache,
    build_settings,
    user_cache,
)
from plaudit.reporting import Reporter, WarningReporter
from plaudit.settings import Count, Precision, Settings, option

if TYPE_CHECKING:
    from plaudit.reward.calibration import Calibration
    from plaudit.reward.scoring import Clip, Ranked, ScoreCache, ScoredClip, ScoreReference
    from plaudit.types import Reward


class ScoreSettings(Settings):
    """Settings of `score`.

    prompt: of all clips; "" for none, None for each clip's own, as plaudit generate recorded it.
    """

    prompt: str | None = option(
        None, "--prompt", help="The prompt of the clips; empty for none. Default: the prompt recorded by plaudit "
        "generate, in the JSON file beside a clip or in its tags.",
    )  # fmt: skip
    table: Path | None = option(
        None, "--table", help="CSV with columns file and optionally prompt (or caption) and system."
    )
    reward: RewardName = "synthetic"
    reference: Path | None = option(
        None, "--reference", help="Folder or saved reference: each score's percentile among its scores."
    )
    save_reference: Path | None = option(None, "--save-reference", help="Write the scores as a reference (JSON).")
    calibration: Path | None = option(
        None, "--calibration",
        help="Biases of systems (plaudit reward calibrate) to subtract, by the system in --table.",
    )  # fmt: skip
    cache: UseCache = True
    device: Device = "auto"
    precision: ScorePrecision = "no"
    engine: Engine = "local"
    ray_address: RayAddress = None


@dataclass(frozen=True)
class Score:
    """A clip's reward, or the error that prevented scoring.

    calibrated: minus its system's bias. percentile: among the scores of a reference, as percentile_definition says.
    """

    file: Path
    prompt: str
    system: str | None
    reward: float | None
    error: str | None
    calibrated: float | None = None
    percentile: float | None = None
    percentile_definition: str | None = None


Paths = str | Path | Sequence[str | Path]


def score(
    clips: Paths = (), settings: ScoreSettings | None = None, *, reporter: Reporter | None = None, **changes: Any
) -> list[Score]:
    """Scores of audio files, of those in folders and in a table, by a reward. Only differences between scores mean
    anything.

    Files that cannot be scored have an error instead. The candidates of best_of in a folder of `generate` are left out.
    """
    from plaudit import loading
    from plaudit.reward.calibration import load_calibration
    from plaudit.reward.scoring import ScoreCache, identity_of_reward, save_reference, score_reference

    settings = build_settings(ScoreSettings, settings, changes)
    reporter = reporter or WarningReporter()
    calibration = None if settings.calibration is None else load_calibration(settings.calibration)
    to_score = _clips(clips, settings, reporter)
    reward = loading.load_reward(settings.reward, settings.device)
    with user_cache(ScoreCache, settings.cache, reporter) as cache:
        reference = None
        if settings.reference is not None:
            reference = _score_reference(settings.reference, settings, reward, cache, reporter)
        if settings.engine == "ray":
            from plaudit.ray_engine import Cluster, score_clips_on_ray

            with reporter.progress("scoring") as advance:
                cluster = Cluster(settings.ray_address, device=settings.device)
                rows = score_clips_on_ray(
                    to_score, settings.reward, cluster, settings.cache, advance, settings.precision
                )
        else:
            rows = _scored("scoring", to_score, reward, cache, reporter, settings.precision)
    if settings.save_reference is not None:
        name = str(settings.save_reference)
        save_reference(settings.save_reference, score_reference(name, identity_of_reward(reward), rows))
    if calibration is not None and (unknown := calibration.unknown([row.clip.system or "(none)" for row in rows])):
        reporter.note(f"{settings.calibration} has no bias of {', '.join(unknown)}: their scores are not calibrated")
    return [_score(row, reference, calibration) for row in rows]


class RankSettings(Settings):
    """Settings of `rank`; see ScoreSettings."""

    prompt: str | None = ScoreSettings.model_fields["prompt"]  # type: ignore[assignment]
    table: Path | None = ScoreSettings.model_fields["table"]  # type: ignore[assignment]
    keep: Count = option(1, "-n", "--keep", help="Clips to keep per prompt.")
    reward: RewardName = "synthetic"
    copy_to: Path | None = option(None, "--copy", help="Copy the kept clips into this folder, with ranks in names.")
    cache: UseCache = True
    device: Device = "auto"
    precision: ScorePrecision = "no"


@dataclass(frozen=True)
class Ranking:
    """The best clips of each prompt, their copies (None where none were made), and the errors of other clips."""

    best: list[Ranked]
    copies: list[Path | None]
    errors: list[str]


def rank(
    clips: Paths = (), settings: RankSettings | None = None, *, reporter: Reporter | None = None, **changes: Any
) -> Ranking:
    """The best clips of each prompt, with their lead over the next; copied to `copy_to` where it is set."""
    from plaudit import loading
    from plaudit.errors import AudioError
    from plaudit.reward.scoring import ScoreCache, copy_ranked, rank_clips

    settings = build_settings(RankSettings, settings, changes)
    reporter = reporter or WarningReporter()
    to_rank, folder = _clips(clips, settings, reporter), settings.copy_to
    if folder is not None:  # copies of an earlier ranking are not ranked
        to_rank = [clip for clip in to_rank if not clip.file.resolve().is_relative_to(folder.resolve())]
        if not to_rank:
            raise AudioError(f"--copy {folder} contains all clips to be ranked; copy into another folder")
    reward = loading.load_reward(settings.reward, settings.device)
    with user_cache(ScoreCache, settings.cache, reporter) as cache:
        rows = _scored("ranking", to_rank, reward, cache, reporter, settings.precision)
    best = rank_clips(rows, settings.keep)
    copies: list[Path | None] = [None] * len(best) if folder is None else [*copy_ranked(best, folder)]
    return Ranking(best, copies, [row.error for row in rows if row.error is not None])


def _clips(clips: Paths, settings: ScoreSettings | RankSettings, reporter: Reporter) -> list[Clip]:
    from plaudit.errors import AudioError
    from plaudit.reward.scoring import clips_at, clips_in_table
    from plaudit.sidecars import candidates_note
    from plaudit.tables import check_text

    paths = [Path(clips)] if isinstance(clips, (str, Path)) else [Path(path) for path in clips]
    if not paths and settings.table is None:
        raise AudioError("no files: give audio files or folders, - for a list on standard input, or --table")
    if settings.prompt is not None:
        check_text(settings.prompt, "--prompt")
    if note := candidates_note(paths):
        reporter.note(note)
    in_table = [] if settings.table is None else clips_in_table(settings.table, settings.prompt)
    return in_table + (clips_at(paths, settings.prompt, sys.stdin) if paths else [])


def _scored(
    label: str,
    clips: list[Clip],
    reward: Reward,
    cache: ScoreCache | None,
    reporter: Reporter,
    precision: Precision,
) -> list[ScoredClip]:
    from plaudit.reward.scoring import score_clips

    with reporter.progress(label) as advance:
        return score_clips(clips, reward, cache, advance, precision)


def _score_reference(
    path: Path, settings: ScoreSettings, reward: Reward, cache: ScoreCache | None, reporter: Reporter
) -> ScoreReference:
    """A saved reference, or the scores of a folder's clips with the prompt of those compared with it."""
    from plaudit.reward.scoring import clips_at, identity_of_reward, load_reference, score_reference

    identity = identity_of_reward(reward)
    if not path.is_dir():
        return load_reference(path, identity)
    rows = _scored("reference", clips_at([path], settings.prompt, []), reward, cache, reporter, settings.precision)
    return score_reference(str(path), identity, rows)


def _score(row: ScoredClip, reference: ScoreReference | None, calibration: Calibration | None) -> Score:
    clip, value = row.clip, row.score
    return Score(
        clip.file, clip.prompt, clip.system, value, row.error,
        None if calibration is None or value is None else calibration.apply(value, clip.system or ""),
        None if reference is None or value is None else reference.percentile(value),
        None if reference is None else reference.definition,
    )  # fmt: skip
