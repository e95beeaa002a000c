"""How sure a number is: intervals, paired tests, effect sizes, corrections, equivalence, power, and several seeds."""

from plaudit.evaluate.statistics.corrections import benjamini_hochberg, holm
from plaudit.evaluate.statistics.equivalence import Equivalence, equivalence_test
from plaudit.evaluate.statistics.intervals import (
    LEVEL,
    RESAMPLES,
    Array,
    Interval,
    bca_mean,
    bootstrap_mean,
    bootstrap_replicates,
    bootstrap_statistic,
    centred_interval,
    expanded,
    percentile_interval,
    without_spread,
)
from plaudit.evaluate.statistics.mixed import MixedDifference, mixed_difference
from plaudit.evaluate.statistics.paired import (
    EffectSize,
    PairedDifference,
    differences,
    effect_size,
    hedges_correction,
    paired_difference,
    sign_flip_test,
    win_rate,
)
from plaudit.evaluate.statistics.power import detectable_effect, power_of, prompts_needed
from plaudit.evaluate.statistics.ranks import spearman

__all__ = [
    "LEVEL",
    "RESAMPLES",
    "Array",
    "EffectSize",
    "Equivalence",
    "Interval",
    "MixedDifference",
    "PairedDifference",
    "bca_mean",
    "benjamini_hochberg",
    "bootstrap_mean",
    "bootstrap_replicates",
    "bootstrap_statistic",
    "centred_interval",
    "detectable_effect",
    "differences",
    "effect_size",
    "equivalence_test",
    "expanded",
    "hedges_correction",
    "holm",
    "mixed_difference",
    "paired_difference",
    "percentile_interval",
    "power_of",
    "prompts_needed",
    "sign_flip_test",
    "spearman",
    "win_rate",
    "without_spread",
]
