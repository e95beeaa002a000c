"""Speed of the set metrics, and coverage of their intervals."""

from __future__ import annotations

import time
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from plaudit.evaluate import frechet_distance
from plaudit.evaluate.distances import density, frechet_between, gaussian, kernel_distance_interval, precision
from plaudit.evaluate.embeddings import AudioEncoder, Reference, reference_of
from plaudit.evaluate.metrics import METRICS, NAMES, MetricInputs
from plaudit.evaluate.values import SetValue

Array = NDArray[np.float64]
CLIPS, REFERENCE, WIDTH = 100, 300, 16
SET_METRICS = [METRICS.load(name) for name in NAMES if METRICS.load(name).scope == "set"]


def measure(name: str, embeddings: Array, target: Reference) -> SetValue:
    """A metric of a set of embeddings."""
    inputs = MetricInputs((), (), None, embeddings=embeddings, compared_with=target)  # type: ignore[arg-type]
    return METRICS.load(name).compute(inputs)  # type: ignore[return-value]


def reference(embeddings: Array) -> Reference:
    """A reference of embeddings by no encoder."""
    return reference_of(AudioEncoder("drawn", "drawn", None), embeddings, "drawn")  # type: ignore[arg-type]


def times() -> None:
    """Prints the seconds of each metric, with its interval."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 512)), rng.normal(size=(706, 512))
    began = time.perf_counter()
    frechet_distance(x, y)
    print(f"frechet_distance alone: {time.perf_counter() - began:.3f} s")
    for metric in SET_METRICS:
        began = time.perf_counter()
        measure(metric.name, x, reference(y))
        print(f"{metric.name} with its interval: {time.perf_counter() - began:.3f} s")


def generated(rng: np.random.Generator, count: int) -> Array:
    """Clips that are a little off and a little too varied."""
    return 1.1 * rng.normal(size=(count, WIDTH)) + 0.15


def coverage(repetitions: int) -> None:
    """Prints how often the intervals hold."""
    rng = np.random.default_rng(1)
    target = reference(rng.normal(size=(REFERENCE, WIDTH)))
    assert target.embeddings is not None
    many = generated(rng, 20000)
    limits = {
        "frechet-infinity": frechet_between(gaussian(many), target.gaussian),
        "kernel": kernel_distance_interval(many[:5000], target.embeddings, resamples=2).mean,
        "precision": precision(many[:5000], target.embeddings),
        "density": density(many[:5000], target.embeddings),
    }
    names = [metric.name for metric in SET_METRICS if metric.name not in ("recall", "coverage")]
    values: dict[str, list[SetValue]] = {name: [] for name in names}
    for _ in range(repetitions):
        x = generated(rng, CLIPS)
        for name, results in values.items():
            results.append(measure(name, x, target))
    for name, results in values.items():
        expected = float(np.mean([result.value for result in results]))
        intervals = [result.interval for result in results if result.interval is not None]
        held = np.mean([one.low <= expected <= one.high for one in intervals])
        line = f"{name}: expectation {expected:.3f}, in {held:.0%} of intervals"
        if name in limits:
            held = np.mean([one.low <= limits[name] <= one.high for one in intervals])
            line += f"; of very many clips {limits[name]:.3f}, in {held:.0%}"
        print(line)


def main(repetitions: Annotated[int, typer.Argument(min=1)] = 100) -> None:
    """Time of each metric, and how often its 95 % interval contains the expected value.

    Times are for 100 clips against 706 in 512 dimensions, the size of the published evaluation. Coverage is for clips
    of a given distribution (100 in 16 dimensions, against a fixed reference of 300): of the metric's expectation at
    this number of clips and, for unbiased metrics, of its value for very many clips.
    """
    times()
    coverage(repetitions)


if __name__ == "__main__":
    typer.run(main)
