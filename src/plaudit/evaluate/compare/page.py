"""The page of a comparison: the table, its charts, and the clips side by side, worst and best differences first."""

from __future__ import annotations

import base64
import csv
import io
import mimetypes
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from matplotlib.axes import Axes

from plaudit import __version__
from plaudit.assets import write_atomically, write_json
from plaudit.errors import EvaluationError
from plaudit.evaluate.compare.pairing import PromptClips
from plaudit.evaluate.compare.series import WatchedMetric
from plaudit.evaluate.compare.table import Comparison, ComparisonTable
from plaudit.evaluate.compare.wording import finding, paid, summary
from plaudit.evaluate.directions import lower_is_better
from plaudit.evaluate.html import rendered, replaced_whole
from plaudit.evaluate.overoptimization import reward_among
from plaudit.evaluate.report import plots
from plaudit.evaluate.report.watch import against_reward, parting_sentence
from plaudit.evaluate.report.wording import number

INLINE = 6_000_000
"""Bytes of audio up to which the page holds its clips itself and can be passed on as one file (ours)."""

mimetypes.add_type("audio/flac", ".flac")


@dataclass(frozen=True)
class Chart:
    """A chart inside the page, for light and for dark, as data addresses."""

    title: str
    alt: str
    light: str
    dark: str


@dataclass(frozen=True)
class Player:
    """One clip: whose it is, the address of its audio, and its values in words."""

    system: str
    colour: int
    label: str
    audio: str
    values: list[str]


@dataclass(frozen=True)
class Listened:
    """A prompt to listen to: by how much the systems differ there, and the clips."""

    key: str
    prompt: str
    gap: float
    players: list[Player]


def write_comparison(
    table: ComparisonTable, folder: Path, *, sort: str | None = None, players: int = 20,
    series: Sequence[WatchedMetric] = (),
) -> Path:  # fmt: skip
    """Write the page, `comparison.json` and `.csv`, and where clips are large `audio/` into `folder`; the page's path.

    The folder is replaced whole. sort: the metric whose difference between first and last system orders the prompts;
    the first where not given. players: how many prompts to listen to, half of them the worst. EvaluationError where a
    clip to play is missing.
    """
    pairing, sort = table.pairing, sort or table.pairing.metrics[0]
    if sort not in pairing.metrics:
        raise EvaluationError(f"--sort {sort}: no such metric; compared are {', '.join(pairing.metrics)}")
    with replaced_whole(Path(folder)) as draft:
        worst, best = _ends(table, sort, players)
        address = _addresses([*worst, *best], draft)
        write_json(draft / "comparison.json", results(table, series))
        csv_text = table_csv(table)
        write_atomically(draft / "comparison.csv", csv_text)
        page = rendered(
            "compare.html",
            table=table,
            pairing=pairing,
            sort=sort,
            summary=summary(table),
            findings=[finding(row) for row in table.rows],
            paid={one.title: ", ".join(one.metrics) for one in paid(table)},
            reward=reward_among(pairing.metrics),
            csv=_data("text/csv", csv_text.encode()),
            json=_data("application/json", (draft / "comparison.json").read_bytes()),
            charts=[_forest_chart(table, metric) for metric in pairing.metrics],
            series_charts=[_series_chart(table, watched) for watched in series],
            partings=[parting_sentence(w.parting, pairing.systems, w.metric) for w in series],
            worst=[_listened(table, sort, p, address) for p in worst],
            best=[_listened(table, sort, p, address) for p in best],
            with_audio=any(_files(p) for p in pairing.prompts),
            version=__version__,
            light=plots.LIGHT,
            dark=plots.DARK,
        )
        write_atomically(draft / "index.html", page)
    return Path(folder) / "index.html"


def results(table: ComparisonTable, series: Sequence[WatchedMetric] = ()) -> dict[str, object]:
    """Everything found, as plain values for JSON."""
    watch = {"paid_for_reward": [asdict(one) for one in paid(table)], "series": [asdict(one) for one in series]}
    return {"plaudit": __version__, **table.to_json(), "watch": watch, "summary": summary(table)}


def table_csv(table: ComparisonTable) -> str:
    """The table as CSV, a row per metric and pair."""
    rows = table.to_rows()
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _gap(table: ComparisonTable, sort: str, prompt: PromptClips) -> float:
    """By how much the last system's mean over seeds exceeds the first's."""
    first, last = (prompt.clips[name] for name in (table.pairing.systems[0], table.pairing.systems[-1]))
    return sum(c.values[sort] for c in last) / len(last) - sum(c.values[sort] for c in first) / len(first)


def _ends(table: ComparisonTable, sort: str, players: int) -> tuple[list[PromptClips], list[PromptClips]]:
    """The prompts where the last system compares worst, worst first, and best, best first; none is in both."""
    heard = [p for p in table.pairing.having(sort) if _files(p)]
    order = sorted(heard, key=lambda p: _gap(table, sort, p), reverse=lower_is_better(sort))
    low = min((players + 1) // 2, (len(order) + 1) // 2)
    high = min(players - low, len(order) - low)
    return order[:low], order[len(order) - high :][::-1]


def _files(prompt: PromptClips) -> list[Path]:
    return [clip.file for own in prompt.clips.values() for clip in own if clip.file is not None]


def _addresses(prompts: Sequence[PromptClips], folder: Path) -> dict[Path, str]:
    """Where the page finds each file: inside itself where all are small, else copied beside it."""
    files = list(dict.fromkeys(file for prompt in prompts for file in _files(prompt)))
    for file in files:
        if not file.is_file():
            raise EvaluationError(f"{file} is gone, so it cannot be played; restore it, or use --players 0")
    if sum(file.stat().st_size for file in files) <= INLINE:
        return {file: _data(mimetypes.guess_type(file.name)[0] or "audio/wav", file.read_bytes()) for file in files}
    found = {}
    for place, file in enumerate(files, start=1):
        target = folder / "audio" / f"{place:04d}{file.suffix}"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target)
        found[file] = f"audio/{target.name}"
    return found


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _listened(table: ComparisonTable, sort: str, prompt: PromptClips, address: dict[Path, str]) -> Listened:
    players = [
        Player(
            system=system,
            colour=colour,
            label=f"{system}, seed {clip.seed}" if clip.seed else system,
            audio=address[clip.file],
            values=[f"{name} {number(clip.values[name])}" for name in table.pairing.metrics if name in clip.values],
        )
        for colour, system in enumerate(table.pairing.systems)
        for clip in prompt.clips[system]
        if clip.file is not None
    ]
    return Listened(prompt.key, prompt.prompt, _gap(table, sort, prompt), players)


def _forest_chart(table: ComparisonTable, metric: str) -> Chart:
    rows = [row for row in table.rows if row.metric == metric]
    size = (plots.SMALL[0], 0.9 + 0.42 * len(rows))
    alt = f"Differences of {metric} with 95 % intervals; the numbers are in the table."
    return _chart(forest(rows), f"Difference of {metric}", alt, size)


def _series_chart(table: ComparisonTable, watched: WatchedMetric) -> Chart:
    draw = against_reward(table.pairing.systems, watched.reward, watched.other, watched.metric, watched.parting)
    alt = f"The path of the systems through mean reward and mean {watched.metric}."
    return _chart(draw, f"Reward against {watched.metric}", alt, plots.WIDE)


def _chart(draw: Callable[[Axes], None], title: str, alt: str, size: tuple[float, float]) -> Chart:
    light = plots.chart_svg(draw, title, size)
    addresses = [_data("image/svg+xml", text.encode()) for text in (light, plots.darkened(light))]
    return Chart(title, alt, *addresses)


def forest(rows: Sequence[Comparison]) -> Callable[[Axes], None]:
    """Differences of one metric, pair by pair, with their intervals; the band is what counts as no difference."""

    def draw(axes: Axes) -> None:
        margin = max(row.equivalence.margin for row in rows)
        axes.axvspan(-margin, margin, color=plots.LIGHT.grid, alpha=0.7, linewidth=0)
        axes.axvline(0.0, color=plots.LIGHT.faint, linewidth=1.0)
        for place, row in enumerate(rows):
            colour = plots.LIGHT.stages[1 + place % (len(plots.LIGHT.stages) - 1)]
            gap = row.difference
            axes.plot([gap.low, gap.high], [place, place], color=colour, linewidth=2.2, solid_capstyle="round")
            axes.plot(gap.mean, place, "o", color=colour, markersize=6.5)
        names = [f"{row.second}\n\N{MINUS SIGN} {row.first}" for row in rows]
        axes.set_yticks(range(len(rows)), names, color=plots.LIGHT.ink)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.margins(x=0.12)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)

    return draw
