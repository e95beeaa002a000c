"""The page of a comparison: the table, its charts, and the clips side by side, largest differences first."""

from __future__ import annotations

import mimetypes
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from plaudit import __version__
from plaudit.errors import EvaluationError
from plaudit.evaluate.comparison import ComparisonTable, Difference, PromptClips, TrackedMetric
from plaudit.evaluate.metrics import cautions, lower_is_better
from plaudit.evaluate.overoptimization import Regression, regression_sentence, regressions_under_reward, reward_among
from plaudit.evaluate.pages.charts import Chart, ForestRow, chart, forest, forest_size, plot_against_reward
from plaudit.evaluate.pages.html import csv_of, data_address, rendered, replaced_page
from plaudit.evaluate.pages.text import difference, divergence_sentence, heading, in_sentence, number, p_value
from plaudit.generate.clips import slug
from plaudit.storage import write_atomically, write_json


def comparison_finding(row: Difference) -> str:
    """One row of the table in words: the difference, how certain it is, and what more prompts could show."""
    assert row.p_holm is not None and row.equivalence is not None and row.equivalence_p_holm is not None
    assert row.detectable is not None  # of every row of a table
    tested = f"{p_value(row.p_holm)} corrected, {row.method}"
    start = f"{heading(row.metric)}, {row.second} vs {row.first}: {difference(row.difference)} ({tested})"
    margin = f"±{number(row.equivalence.margin)}"
    if row.established:
        small = f", but negligible (within {margin})" if row.equivalent else ""
        return f"{start}: significantly {row.verdict.split()[0]}{small}."
    if row.equivalent:
        return f"{start}: equivalent within {margin} ({p_value(row.equivalence_p_holm)})."
    needed = "no number" if row.prompts_needed is None else row.prompts_needed
    return (
        f"{start}: undecided; the difference may be zero and may exceed {margin}. These prompts detect differences of "
        f"{number(row.detectable)} or more; one this small takes {needed} prompts."
    )


def regressions_of(table: ComparisonTable) -> list[Regression]:
    """The pairs whose second system has a higher reward and is worse in another metric, both significantly."""
    reward = reward_among(table.pairing.metrics) or ""
    pairs = dict.fromkeys((row.first, row.second) for row in table.rows)
    regressions = [
        Regression(f"{second} (vs {first})", regressions_under_reward(table.of_pair(first, second), reward))
        for first, second in pairs
    ]
    return [one for one in regressions if one.metrics]


def comparison_summary(table: ComparisonTable) -> str:
    """How many differences are significant, and which systems raised the reward at the cost of another metric."""
    rows = table.rows
    significant = sum(row.established for row in rows)
    equivalent = sum(row.equivalent and not row.established for row in rows)
    undecided = len(rows) - significant - equivalent
    line = f"Of {len(rows)} differences, {significant} are significant, {equivalent} equivalent, {undecided} undecided."
    if reward_among(table.pairing.metrics) is None or len(table.pairing.metrics) < 2:
        return line
    return f"{line} {regression_sentence(regressions_of(table), 'system')}"


INLINE = 6_000_000
"""Bytes of audio up to which clips are embedded in the page, which is then a single file (ours)."""

mimetypes.add_type("audio/flac", ".flac")


@dataclass(frozen=True)
class Player:
    """One clip: its system, the address of its audio, and its values as text."""

    system: str
    colour: int
    label: str
    audio: str
    values: list[str]


@dataclass(frozen=True)
class PromptRow:
    """A prompt to listen to: the difference of the systems there, and the clips."""

    key: str
    prompt: str
    gap: float
    players: list[Player]


def write_comparison(
    table: ComparisonTable, folder: Path, *, sort: str | None = None, players: int = 20,
    series: Sequence[TrackedMetric] = (),
) -> Path:  # fmt: skip
    """Write the page, `comparison.json` and `.csv`, and `audio/` where clips are large, into `folder`; the page's path.

    An earlier comparison is replaced; other files stay. sort: the metric whose difference between first and last system
    orders the prompts; by default the first. players: how many prompts to listen to, half of them the worst.
    EvaluationError where a clip to play is missing.
    """
    pairing, sort = table.pairing, sort or table.metrics[0]
    if sort not in pairing.metrics:
        raise EvaluationError(f"--sort {sort}: no such metric; there are {', '.join(pairing.metrics)}")
    with replaced_page(Path(folder)) as draft:
        worst, best = _ends(table, sort, players)
        address = _addresses([*worst, *best], draft)
        write_json(draft / "comparison.json", results(table, series))
        csv_text = csv_of(table.to_rows())
        write_atomically(draft / "comparison.csv", csv_text)
        page = rendered(
            "compare.html",
            table=table,
            pairing=pairing,
            sort=sort,
            cautions=cautions([row.metric for row in table.rows]),
            summary=comparison_summary(table),
            findings=[comparison_finding(row) for row in table.rows],
            regressed={one.title: ", ".join(map(in_sentence, one.metrics)) for one in regressions_of(table)},
            reward=reward_among(pairing.metrics),
            csv=data_address("text/csv", csv_text),
            json=data_address("application/json", (draft / "comparison.json").read_bytes()),
            charts=[_forest_chart(table, metric) for metric in table.metrics],
            series_charts=[_series_chart(table, one) for one in series],
            divergences=[
                divergence_sentence(one.divergence, pairing.systems, in_sentence(one.metric)) for one in series
            ],
            worst=[_prompt_row(table, sort, p, address) for p in worst],
            best=[_prompt_row(table, sort, p, address) for p in best],
            with_audio=any(_files(p) for p in pairing.prompts),
        )
        write_atomically(draft / "index.html", page)
    return Path(folder) / "index.html"


def results(table: ComparisonTable, series: Sequence[TrackedMetric] = ()) -> dict[str, object]:
    """Every result as plain values for JSON."""
    return {
        "plaudit": __version__,
        **table.to_json(),
        "regressions_under_reward": [asdict(one) for one in regressions_of(table)],
        "series": [asdict(one) for one in series],
        "summary": comparison_summary(table),
    }


def _gap(table: ComparisonTable, sort: str, prompt: PromptClips) -> float:
    """The mean over seeds of the last system minus that of the first."""
    first, last = (prompt.clips[name] for name in (table.pairing.systems[0], table.pairing.systems[-1]))
    return sum(c.values[sort] for c in last) / len(last) - sum(c.values[sort] for c in first) / len(first)


def _ends(table: ComparisonTable, sort: str, players: int) -> tuple[list[PromptClips], list[PromptClips]]:
    """The prompts on which the last system compares worst, worst first, and best, best first, without overlap."""
    playable = [p for p in table.pairing.having(sort) if _files(p)]
    order = sorted(playable, key=lambda p: _gap(table, sort, p), reverse=lower_is_better(sort))
    low = min((players + 1) // 2, (len(order) + 1) // 2)
    high = min(players - low, len(order) - low)
    return order[:low], order[len(order) - high :][::-1]


def _files(prompt: PromptClips) -> list[Path]:
    return [clip.file for clips in prompt.clips.values() for clip in clips if clip.file is not None]


def _addresses(prompts: Sequence[PromptClips], folder: Path) -> dict[Path, str]:
    """The address of each file on the page: a data URL where all are small, else a copy beside the page."""
    files = list(dict.fromkeys(file for prompt in prompts for file in _files(prompt)))
    for file in files:
        if not file.is_file():
            raise EvaluationError(f"{file} is gone, so it cannot be played; restore it, or use --players 0")
    if sum(file.stat().st_size for file in files) <= INLINE:
        kinds = {file: mimetypes.guess_type(file.name)[0] or "audio/wav" for file in files}
        return {file: data_address(kind, file.read_bytes()) for file, kind in kinds.items()}
    addresses = {}
    for place, file in enumerate(files, start=1):
        target = folder / "audio" / f"{place:04d}{file.suffix}"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target)
        addresses[file] = f"audio/{target.name}"
    return addresses


def _prompt_row(table: ComparisonTable, sort: str, prompt: PromptClips, address: dict[Path, str]) -> PromptRow:
    players = [
        Player(
            system=system,
            colour=colour,
            label=f"{system}, seed {clip.seed}" if clip.seed else system,
            audio=address[clip.file],
            values=[f"{in_sentence(n)} {number(clip.values[n])}" for n in table.pairing.metrics if n in clip.values],
        )
        for colour, system in enumerate(table.pairing.systems)
        for clip in prompt.clips[system]
        if clip.file is not None
    ]
    return PromptRow(prompt.key, prompt.prompt, _gap(table, sort, prompt), players)


def _forest_chart(table: ComparisonTable, metric: str) -> Chart:
    rows = [row for row in table.rows if row.metric == metric]
    alt = f"Differences in {in_sentence(metric)} with 95 % intervals; the numbers are in the table."
    lines = [
        ForestRow(f"{row.second}\n\N{MINUS SIGN} {row.first}", row.difference, 1 + place % 5, row.established)
        for place, row in enumerate(rows)
    ]
    draw = forest(lines, max(row.equivalence.margin for row in rows if row.equivalence is not None))
    title = f"Difference in {in_sentence(metric)}"
    return chart(draw, f"difference-{slug(metric)}", title, alt, forest_size(len(rows)))


def _series_chart(table: ComparisonTable, series: TrackedMetric) -> Chart:
    name = in_sentence(series.metric)
    draw = plot_against_reward(table.pairing.systems, series.reward, series.other, name, series.divergence)
    alt = f"The path of the systems through mean reward and mean {name}."
    return chart(draw, f"reward-{slug(series.metric)}", f"Mean reward against {name}", alt)
