"""`compare`: two systems, metric by metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from plaudit.api.evaluation import evaluate
from plaudit.api.options import Device, build_settings
from plaudit.reporting import Reporter, WarningReporter
from plaudit.settings import CountOrZero, Positive, Settings, option

if TYPE_CHECKING:
    from plaudit.evaluate.comparison import ComparisonTable, TrackedMetric


class CompareSettings(Settings):
    """Settings of `compare`. margins: by metric, differences below which count as none."""

    metrics: tuple[str, ...] | None = option(
        None, "--metric", help="A metric; repeatable. Default: all that the systems share."
    )
    pair_by: Literal["id", "prompt"] | None = option(
        None, "--by", help="Pair clips by this column. Default: id where all have one."
    )
    shared_prompts: bool = option(
        False, "--shared-prompts", help="Compare only prompts that all systems share, and print how many are left out."
    )
    margins: dict[str, Positive] = option(
        {},
        "--margin",
        help="METRIC=SIZE: differences below this count as none; repeatable. Default: 0.2 standard deviations between "
        "prompts.",
    )
    ordered: bool = option(
        False, "--ordered", help="The systems are a series, such as checkpoints: find where reward and metrics diverge."
    )
    sort: str | None = option(None, "--sort", help="Order the page's players by the differences of this metric.")
    players: CountOrZero = option(20, "--players", help="Prompts with players: half the worst, half the best.")
    device: Device = "auto"
    output: Path | None = option(None, "-o", "--output", help="Folder for the page, its clips, JSON and CSV.")


@dataclass(frozen=True)
class SystemComparison:
    """Differences between systems; of a series, the metrics against the reward; and the page where one was written."""

    table: ComparisonTable
    series: list[TrackedMetric]
    page: Path | None


def compare(
    systems: Sequence[str | Path],
    settings: CompareSettings | None = None,
    *,
    names: Mapping[str, str] | None = None,
    reporter: Reporter | None = None,
    **changes: Any,
) -> SystemComparison:
    """Differences between systems on the same prompts, with intervals and tests; the first is the baseline.

    systems: runs, or RUN:STAGE; folders written by `evaluate`; folders of clips, which are evaluated with its default
    settings; or tables with id or prompt, and metrics. names: what to call folders of clips; otherwise their own names.
    """
    from plaudit.errors import EvaluationError
    from plaudit.evaluate.comparison import compare as compare_pairs
    from plaudit.evaluate.comparison import pair, track_series
    from plaudit.evaluate.pages.comparison import write_comparison
    from plaudit.evaluate.systems import System, is_clip_folder, models_behind, read_systems, system_of_values
    from plaudit.pipeline.run_systems import systems_at

    settings = build_settings(CompareSettings, settings, changes)
    metrics = None if settings.metrics is None else list(settings.metrics)
    reporter = reporter or WarningReporter()

    def systems_of(name: str) -> list[System]:
        if not is_clip_folder(Path(name)):
            return systems_at(name)
        if len(systems) < 2:  # before its clips are measured
            raise EvaluationError(f"there is one system, {name!r}; a comparison needs two: name another")
        reporter.note(f"{name} has not been evaluated; measuring its clips with the default settings")
        evaluation = evaluate(name, reporter=reporter, device=settings.device)
        models = models_behind(evaluation.settings)
        title = (names or {}).get(name) or Path(name).resolve().name
        return [system_of_values(evaluation.values, title, Path(), name, models)]

    compared = read_systems([str(system) for system in systems], systems_of)
    pairing = pair(compared, metrics, settings.pair_by, settings.shared_prompts)
    table = compare_pairs(pairing, dict(settings.margins))
    series, page = track_series(pairing) if settings.ordered else [], None
    if settings.output is not None:
        page = write_comparison(table, settings.output, sort=settings.sort, players=settings.players, series=series)
    for note in [*pairing.notes, *(f"not tested: {reason}" for reason in table.untested)]:
        reporter.note(note)
    return SystemComparison(table, series, page)
