"""Data of a run with everything that a report can show, for tests."""

from pathlib import Path
from typing import Any

import numpy as np

from plaudit.audio import write_wav
from plaudit.evaluate.pages.report import (
    BestOfN,
    CorpusFacts,
    Curve,
    ReportData,
    ReportReliabilityBin,
    RewardQuality,
    RunFacts,
    Sample,
    StageResult,
)
from plaudit.evaluate.pages.sweep import Sweep
from plaudit.evaluate.values import Values, replicates_key

CAPTIONS = [
    "slow sad piano in a minor key",
    'a <script>alert("x")</script> & <img src=http://evil.example/x.png onerror="alert(1)"> waltz',
    "' onmouseover='alert(1)' fast techno, 140 bpm, \"four on the floor\"",
    "A warm house track around a mellow electric piano, at an easy pace. It sits in F major and keeps calm throughout.",
]
RATE = 16000
STAGES = [
    ("baseline", "Baseline"),
    ("sft", "SFT"),
    ("expert", "Expert iteration"),
    ("cross", "Cross-load"),
    ("crpo", "CRPO"),
]


def values(
    rng: np.random.Generator, count: int, lift: float, utility: bool = True, common: int = 7, system: str = "stage"
) -> Values:
    """Values of `count` prompts whose reward is `lift` above a level that the prompts set."""
    level = np.random.default_rng(common).normal(0.0, 0.6, count)
    rng.normal(size=(count, 16))
    distance = 0.6 - 0.1 * lift
    columns = {
        "reward": level + lift + rng.normal(0.0, 0.25, count),
        "clap": 0.2 + 0.05 * lift + rng.normal(0.0, 0.05, count),
    }
    if utility:
        columns["utility"] = 1.2 * level + 0.8 * min(lift, 0.75) + rng.normal(0.0, 0.4, count)
    replicates = distance + 0.05 + rng.normal(0.0, 0.02, 300)
    if utility:
        columns["concepts"] = np.where(np.arange(count) % 6 == 5, np.nan, np.round(rng.random(count), 1))
    rows: list[dict[str, Any]] = [
        {"system": system, "metric": metric, "prompt_id": f"{i:04d}", "seed": i,
         "prompt": CAPTIONS[i] if i < len(CAPTIONS) else f"caption {i}",
         "file": f"../clips-{system}/{i:04d}.wav", "value": None if np.isnan(value) else float(value)}
        for metric in ("reward", "clap", "concepts", "utility") if metric in columns
        for i, value in enumerate(columns[metric])
    ]  # fmt: skip
    centre = distance - float(np.mean(replicates))
    low, high = np.quantile(replicates, [0.025, 0.975]) + centre
    for metric, value, ends, note in (
        ("frechet", distance, (max(0.0, low), high), ""),
        ("kernel", distance, (distance - 0.1, distance + 0.1), ""),
        ("recall", 0.5 + 0.1 * lift, (None, None), "no interval: repeats"),
    ):
        rows.append({"system": system, "metric": metric, "embedding": "synthetic", "value": value, "low": ends[0],
                     "high": ends[1], "clips": count, "note": note})  # fmt: skip
    return Values.of_rows(rows, {replicates_key(system, "", "frechet", "synthetic"): replicates})


def changed(table: Values, **columns: np.ndarray | None) -> Values:
    """The same table with other values of clip metrics, or without a metric."""
    rows = []
    for row in table.rows():
        if row["prompt_id"] and row["metric"] in columns:
            column = columns[row["metric"]]
            if column is None:
                continue
            value = column[int(row["prompt_id"])]
            row["value"] = None if np.isnan(value) else float(value)
        rows.append(row)
    return Values.of_rows(rows, table.replicates)


def clip(seed: int, seconds: float = 2.0) -> np.ndarray:
    """Three notes and a little noise, [T] at RATE."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    wave = 0.01 * rng.normal(size=len(time))
    for start, pitch in enumerate(rng.integers(0, 24, size=3)):
        late = np.clip(time - start * seconds / 3, 0.0, None)
        tone = sum(np.sin(2 * np.pi * h * 110.0 * 2 ** (pitch / 12) * time) / h for h in range(1, 6))
        wave += 0.1 * tone * (late > 0) * np.exp(-3.0 * late)
    return wave.astype(np.float32)


def candidates(rng: np.random.Generator, prompts: int, utility: bool) -> BestOfN:
    """64 candidates each, a few of which exploit an error of the reward at the cost of the CLAP score."""
    fit = rng.normal(size=(prompts, 64))
    exploits = rng.random((prompts, 64)) < 0.03
    others = {"clap": 0.2 + 0.05 * (fit - 4.0 * exploits)} | ({"utility": fit} if utility else {})
    return BestOfN("candidates of the last model", fit + 4.0 * exploits, others)


def example(
    folder: Path, prompts: int = 24, players: int = 3, utility: bool = True, seconds: float = 0.5
) -> ReportData:
    """Report data of a whole run, with its clips written into `folder`."""
    rng = np.random.default_rng(0)
    lifts = [0.0, 0.3, 0.6, 0.58, 1.1]
    stages = [
        StageResult(
            key, title, values(rng, prompts, lift, utility, system=key), "no score" if lift == 0.0 else "score 1.5",
            model=Path("/my runs/demo", "sft" if key == "baseline" else key),
            options=("--set", "sampling.score=null") if key == "baseline" else (),
        )
        for (key, title), lift in zip(STAGES, lifts, strict=True)
    ]  # fmt: skip
    samples = []
    for row in range(players):
        audio = {}
        for place, (key, _) in enumerate(STAGES):
            audio[key] = folder / f"{key}-{row}.wav"
            write_wav(audio[key], clip(100 * row + place, seconds), RATE)
        samples.append(Sample(row, audio, {"genre": "house", "tempo": f"{120 + row} bpm"} if utility else {}))
    steps = np.arange(0, 600, 5)
    loss = 0.6 + 0.8 * np.exp(-steps / 150) + rng.normal(0.0, 0.06, len(steps))
    accuracy = 0.5 + 0.3 * (1 - np.exp(-steps / 200)) + rng.normal(0.0, 0.05, len(steps))
    curves = [
        Curve("SFT", "loss", steps.tolist(), loss.tolist()),
        Curve("Expert iteration", "loss", steps.tolist(), (0.5 * loss + 0.3).tolist()),
        Curve("CRPO", "implicit_accuracy", steps.tolist(), accuracy.tolist()),
    ]
    conditions = [-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5]
    confidence = np.linspace(0.52, 0.95, 10)
    return ReportData(
        run=RunFacts(
            name="demo",
            description="A small run of the whole pipeline on synthetic music.",
            recipe="name: demo\nstages:\n  sft: {updates: 2000}  # <b>bold</b>\n",
            finished="2025-05-01 14:03 UTC",
            seconds=872.0,
            peak_memory=3_120_000_000,
            machine={"processor": "x86_64", "cores": "2", "memory": "16.4 GB", "system": "Linux 6.1"},
            versions={"plaudit": "0.1.0", "python": "3.12.3", "torch": "2.12.0+cpu"},
            folder="/my runs/demo",
            step_seconds={"corpus": 34.0, "reward": 61.0, "SFT": 402.0, "evaluation": 95.0},
        ),
        stages=stages,
        corpus=CorpusFacts(
            kind="synthetic pieces",
            clips={"train": 1800, "validation": 100, "test": 98},
            seconds=5.0,
            quarantined={"silent": 2},
            flaw_fractions={"noise": 0.11, "detuned": 0.09, "clipped": 0.1, "out_of_time": 0.08, "wrong_caption": 0.1},
        ),
        reward=RewardQuality(
            accuracy=0.741, accuracy_low=0.721, accuracy_high=0.76, ceiling=0.772, ece=0.021, votes=1830,
            source="simulated listeners",
            bins=[ReportReliabilityBin(float(c), float(min(1.0, c + 0.03 * rng.normal())), 183) for c in confidence],
        ),
        curves=curves,
        sweeps=[
            Sweep(
                title, conditions,
                [values(np.random.default_rng(9), prompts, lift + slope * s, utility) for s in conditions],
            )
            for title, lift, slope in [("SFT", 0.3, 0.3), ("CRPO", 1.0, 0.05)]
        ],
        samples=samples,
        best_of_n=candidates(np.random.default_rng(4), prompts, utility),
        coverage_scale=(0.894, 0.217) if utility else None,
        values=Values.concat(stage.values for stage in stages),
    )  # fmt: skip
