"""The results of benchmarks.gpu as Markdown tables for docs/performance.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]


def tables(results: dict[str, Any]) -> str:
    """A paragraph on the machine, a table for each subject that was measured, and what was not measured and why."""
    sections = results["sections"]

    def rows(*names: str) -> list[Row]:
        return [row for name in names for row in sections.get(name, {}).get("rows", [])]

    trained = [row for row in rows("training", "checkpointing", "training_compiled") if "way" in row]
    parts = [
        _on_the_machine(results, rows("peak")),
        _table(
            "Sampling",
            [row for row in rows(*_named(sections, "sampling")) if "clips_per_s" in row],
            [
                ("way", _text("way")),
                ("evaluations", _evaluations),
                ("batch", _text("batch")),
                ("clips/s", _number("clips_per_s")),
                ("seconds a batch", _number("batch_seconds")),
                ("fraction of peak", _percent("fraction_of_peak")),
                ("memory, GiB", _number("peak_memory_gib")),
                ("compiling, s", _number("compile_seconds")),
            ],
        ),
        _table(
            "Training",
            [row for row in trained if "clips_per_s" in row],
            [
                ("way", _text("way")),
                ("batch", _text("batch")),
                ("clips/s", _number("clips_per_s")),
                ("seconds an update", _number("update_seconds")),
                ("fraction of peak", _percent("fraction_of_peak")),
                ("memory, GiB", _number("peak_memory_gib")),
                ("first update, s", _number("first_seconds")),
            ],
        ),
        _table(
            "Parts of an update, ms",
            [row for row in trained if "forward_seconds" in row],
            [
                ("batch", _text("batch")),
                *(
                    (part, _number(f"{part}_seconds", 1000))
                    for part in ("copy", "forward", "backward", "clip", "optimizer", "ema")
                ),
            ],
        ),
        _table(
            "Encoders and codec",
            [row for row in rows("encoders") if "clips_per_s" in row],
            [
                ("network", _text("what")),
                ("precision", _text("precision")),
                ("batch", _text("batch")),
                ("clips/s", _number("clips_per_s")),
                ("fraction of peak", _percent("fraction_of_peak")),
                ("memory, GiB", _number("peak_memory_gib")),
                ("relative RMS to float32", _percent("relative_rms", 2)),
            ],
        ),
        _table(
            "Loader",
            [row for row in rows("loader") if "clips_per_s" in row],
            [
                ("what", _text("what")),
                ("loader threads", _text("loader_threads")),
                ("batch", _text("batch")),
                ("clips/s", _number("clips_per_s")),
            ],
        ),
        *(
            _table(
                f"Kernels: {row['what']}, batch {row['batch']}, busy {row['busy_fraction']:.0%} of the time",
                row["kernels"],
                [
                    ("kernel", lambda one: f"`{one['name']}`"),
                    ("share", _percent("share")),
                    ("calls", _text("calls")),
                    ("ms", _number("ms")),
                ],
            )
            for row in rows("kernels")
            if "kernels" in row
        ),
        _not_measured(sections),
    ]
    return "\n\n".join(part for part in parts if part)


def _named(sections: dict[str, Any], beginning: str) -> list[str]:
    return [name for name in sections if name.startswith(beginning)]


def _on_the_machine(results: dict[str, Any], peaks: list[Row]) -> str:
    machine = results["machine"]
    rates = [f"{row['what']} {row['tflops']:.4g} TFLOP/s" for row in peaks if "tflops" in row]
    rates += [f"{row['what']} {row['gb_per_s']:.4g} GB/s" for row in peaks if "gb_per_s" in row]
    size = "; tiny networks, whose figures mean nothing" if results["small"] else ""
    measured = f" Measured: {', '.join(rates)}." if rates else ""
    return f"{machine['device']}, {machine['cores']} cores, PyTorch {machine['torch']}{size}.{measured}"


def _not_measured(sections: dict[str, Any]) -> str:
    lines = [
        f"- {name}: {facts['state']}, {facts['reason']}"
        for name, facts in sections.items()
        if facts.get("state") != "done" and facts.get("reason")
    ]
    for name, facts in sections.items():
        for row in facts["rows"]:
            if "error" in row:
                which = ", ".join(f"{key} {value}" for key, value in row.items() if key != "error")
                lines.append(f"- {name}{f' ({which})' if which else ''}: {row['error']}")
    return "\n".join(["Not measured:", "", *lines]) if lines else ""


def _table(title: str, rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """A Markdown table under a bold title, without the columns that are empty; nothing where there are no rows."""
    filled = [(name, [cell(row) for row in rows]) for name, cell in columns]
    filled = [(name, cells) for name, cells in filled if any(cells)]
    if not filled:
        return ""
    lines = [[name for name, _ in filled], ["---"] * len(filled), *map(list, zip(*(c for _, c in filled), strict=True))]
    return "\n".join([f"**{title}**", "", *(f"| {' | '.join(line)} |" for line in lines)])


def _text(key: str) -> Callable[[Row], str]:
    return lambda row: str(row.get(key, ""))


def _number(key: str, times: float = 1.0) -> Callable[[Row], str]:
    """Three digits, all of those before the point."""

    def cell(row: Row) -> str:
        if row.get(key) is None:
            return ""
        value = row[key] * times
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

    return cell


def _percent(key: str, digits: int = 0) -> Callable[[Row], str]:
    return lambda row: "" if row.get(key) is None else f"{row[key]:.{digits}%}"


def _evaluations(row: Row) -> str:
    return f"{row['evaluations']} {'with' if row['guidance'] else 'without'} guidance"
