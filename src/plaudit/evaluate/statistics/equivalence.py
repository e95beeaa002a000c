"""Whether a difference is too small to matter: what "not significant" does not say, and "within noise" claims."""

from __future__ import annotations

from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided t-tests (Schuirmann, 1987) that a mean difference lies within plus and minus `margin`.

    p: the larger of the two p-values; below 0.05 the difference is smaller than the margin, whichever its sign. That
    is so just where the 90 % interval of the difference lies within the margin.
    """

    margin: float
    p: float


def equivalence_test(mean: float, error: float, freedom: float, margin: float) -> Equivalence:
    """Test a mean with its standard error, of `freedom` degrees of freedom, against a margin above zero."""
    if not margin > 0:
        raise ValueError(f"a margin of equivalence must be above zero, not {margin}")
    if not error > 0:
        raise ValueError("a difference without spread has no test of equivalence")
    above = stats.t.sf((mean + margin) / error, freedom)  # that it is not below -margin
    below = stats.t.cdf((mean - margin) / error, freedom)  # that it is not above margin
    return Equivalence(margin, float(max(above, below)))
