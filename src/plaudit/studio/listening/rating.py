"""Rating pages in the manner of MUSHRA (ITU-R BS.1534-3): the anchor, and post-screening of listeners.

A page has one prompt. Each of its clips gets a value from 0 to 100, in any order and as often as wanted. Among them are
the hidden reference, where one of the systems is the reference, and the anchor: a clip low-passed at 3.5 kHz.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from scipy.signal import firwin2, oaconvolve

from plaudit.statistics import Interval, bca_mean
from plaudit.studio.listening.statistics.agreement import krippendorff_alpha

ANCHOR = "anchor"
"""The name of the anchor among the systems of a test."""

LOWEST, HIGHEST = 0, 100

LABELS = ((80, 100, "Excellent"), (60, 80, "Good"), (40, 60, "Fair"), (20, 40, "Poor"), (0, 20, "Bad"))
"""The intervals of the scale."""

CUTOFF = 3_500.0
"""Hz of the low anchor. BS.1534-3 asks for a ripple of at most 0.1 dB up to there, 25 dB of attenuation at 4 kHz and 50
dB at 4.5 kHz."""

REFERENCE_LEAST, REFERENCE_PAGES = 90, 0.15
"""A listener is excluded who gives the hidden reference less than 90 on more than 15 % of the pages (BS.1534-3,
4.1.2)."""


@lru_cache
def anchor_filter(rate: int) -> np.ndarray:
    """The taps of a linear-phase low-pass at 3.5 kHz for this sampling rate: an odd number of them."""
    if rate <= 2 * CUTOFF:
        raise ValueError(f"an anchor at {CUTOFF:g} Hz needs a sampling rate over {2 * CUTOFF:g} Hz, not {rate}")
    nyquist = rate / 2
    taps = 2 * (rate // 60) + 1
    points = [0.0, CUTOFF * 1.035, min(3_980.0, nyquist * 0.995), nyquist]
    return firwin2(taps, points, [1.0, 1.0, 0.0, 0.0], window=("kaiser", 6.0), fs=rate, nfreqs=1 << 15)


def anchor(wave: np.ndarray, rate: int) -> np.ndarray:
    """The waveform [T] low-passed at 3.5 kHz, float32, with no delay."""
    return oaconvolve(wave, anchor_filter(rate), mode="same").astype(np.float32)


@dataclass(frozen=True)
class RatedPage:
    """The values that one listener gave on one page, by system."""

    listener: str
    prompt: str
    values: dict[str, int]


def reference_failures(pages: Sequence[RatedPage], reference: str) -> float:
    """The fraction of a listener's pages on which the hidden reference got less than 90; 0 without such pages."""
    values = [page.values[reference] for page in pages if reference in page.values]
    return float(np.mean([value < REFERENCE_LEAST for value in values])) if values else 0.0


def anchor_failures(pages: Sequence[RatedPage]) -> float:
    """The fraction of a listener's pages on which the anchor got more than every other clip; 0 without such pages."""
    failures = [
        page.values[ANCHOR] > max(value for system, value in page.values.items() if system != ANCHOR)
        for page in pages
        if ANCHOR in page.values and len(page.values) > 1
    ]
    return float(np.mean(failures)) if failures else 0.0


@dataclass(frozen=True)
class SystemRating:
    """A system's mean rating: the mean of the listeners' means, with a bootstrap interval over listeners."""

    system: str
    mean: Interval
    ratings: int
    listeners: int


@dataclass(frozen=True)
class RatingDifference:
    """The mean rating of `second` minus that of `first`, of pages that have both, with an interval over listeners."""

    first: str
    second: str
    difference: Interval
    listeners: int


@dataclass(frozen=True)
class RatingSummary:
    """All figures of a rating test. alpha: interval Krippendorff's alpha of the listeners."""

    pages: int
    counted: int
    systems: list[SystemRating]
    differences: list[RatingDifference]
    alpha: float | None
    listeners: dict[str, int]
    excluded: dict[str, list[str]]


def exclusions(pages: Sequence[RatedPage], reference: str | None) -> dict[str, list[str]]:
    """The listeners to leave out, each with the reasons: by the hidden reference, or without one by the anchor."""
    out = {}
    for listener in dict.fromkeys(page.listener for page in pages):
        group = [page for page in pages if page.listener == listener]
        if reference is not None:
            share, what = reference_failures(group, reference), f"gave the hidden reference less than {REFERENCE_LEAST}"
        else:
            share, what = anchor_failures(group), "gave the anchor more than every other clip"
        if share > REFERENCE_PAGES:
            out[listener] = [f"{what} on {share:.0%} of the pages, above {REFERENCE_PAGES:.0%}"]
    return out


def summarize(pages: Sequence[RatedPage], systems: Sequence[str], reference: str | None) -> RatingSummary:
    """Every figure of the pages of all listeners."""
    excluded = exclusions(pages, reference)
    kept = [page for page in pages if page.listener not in excluded]
    listeners = list(dict.fromkeys(page.listener for page in kept))
    rated = []
    for system in systems:
        having = [page for page in kept if system in page.values]
        groups = [[page.values[system] for page in having if page.listener == name] for name in listeners]
        means = [float(np.mean(group)) for group in groups if group]
        if means:
            rated.append(SystemRating(system, _mean(means), len(having), len(means)))
    differences = []
    for first, second in combinations(systems, 2):
        gaps = []
        for name in listeners:
            both = [p.values for p in kept if p.listener == name and first in p.values and second in p.values]
            if both:
                gaps.append(float(np.mean([values[second] - values[first] for values in both])))
        if gaps:
            differences.append(RatingDifference(first, second, _mean(gaps), len(gaps)))
    units = {unit: place for place, unit in enumerate(dict.fromkeys((p.prompt, s) for p in kept for s in p.values))}
    table = np.full((len(listeners), len(units)), np.nan)
    for page in kept:
        for system, value in page.values.items():
            table[listeners.index(page.listener), units[page.prompt, system]] = value
    return RatingSummary(
        pages=len(pages),
        counted=len(kept),
        systems=sorted(rated, key=lambda one: -one.mean.mean),
        differences=differences,
        alpha=krippendorff_alpha(table, "interval") if units else None,
        listeners=dict(Counter(page.listener for page in pages)),
        excluded=excluded,
    )


def _mean(values: Sequence[float]) -> Interval:
    """The mean with its interval; that of a single listener is unknown."""
    return bca_mean(values, 0) if len(values) > 1 else Interval(values[0], -np.inf, np.inf)
