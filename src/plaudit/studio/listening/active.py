"""Active pairing: which pair to ask next, for the most information about a ranking or about a reward.

About a ranking: the answers so far give a normal approximation of the posterior of the Bradley-Terry strengths, and
the pair to ask is the one whose answer is expected to reduce the uncertainty about the order of all two systems most
(Lindley, Annals of Mathematical Statistics 27, 1956; for pairs, Chen et al., WSDM 2013). It asks about neighbours in a
ranking, and seldom about systems whose order is known; the entropy of the strengths themselves, which is the usual
measure, would be reduced almost as well by random pairs. The uncertainty of an order is p (1 - p), which needed fewer
votes in simulation than its entropy (ours).

About a reward: the pair on which the members of an ensemble disagree most, by the mutual information of the answer and
the member (Houlsby et al., "Bayesian Active Learning for Classification and Preference Learning", 2011).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, expit, ndtr

from plaudit.statistics import Array
from plaudit.studio.listening.statistics import Answer, Fit, fit_bradley_terry, outcome_counts

RANKING_PRIOR_SD = 1.0
"""Standard deviation of the prior of a strength in the posterior that pairs are chosen by (ours): about what systems
that are worth comparing differ by. Estimates of strengths have a weaker prior."""

EXPLORATION = 0.05
"""How often a pair is chosen at random (ours): a posterior that is wrong then corrects itself."""


def ranking_posterior(answers: Sequence[Answer], systems: Sequence[str]) -> Fit:
    """The posterior of the strengths of `systems` after all answers, repeated ones included."""
    wins, ties = outcome_counts(answers, systems)
    return fit_bradley_terry(wins[0], ties[0], prior_sd=RANKING_PRIOR_SD)


def ranking_information(posterior: Fit, pairs: ArrayLike) -> Array:
    """The expected decrease of the uncertainty of the ranking by an answer about each of pairs [N, 2], places of
    systems: [..., N], with the leading dimensions of the posterior.

    The uncertainty is the sum over all two systems of p (1 - p), where p is the probability that the first is the
    stronger one: half the expected number of wrong orders in a ranking drawn from the posterior.
    """
    candidates = np.asarray(pairs, dtype=np.int64)
    if candidates.ndim != 2 or candidates.shape[1] != 2:
        raise ValueError(f"pairs must be [N, 2], not {candidates.shape}")
    systems = posterior.strengths.shape[-1]
    first, second = np.triu_indices(systems, 1)
    one = np.eye(systems)
    every, own = one[first] - one[second], one[candidates[:, 0]] - one[candidates[:, 1]]  # [P, K], [N, K]
    gap, own_gap = posterior.strengths @ every.T, posterior.strengths @ own.T
    rows = own @ posterior.covariance  # [..., N, K]
    shared = rows @ every.T  # covariance of each candidate's gap with each gap [..., N, P]
    own_variance = (rows * own).sum(-1)
    variance = ((every @ posterior.covariance) * every).sum(-1)
    # The probability of an answer, over the posterior: MacKay's approximation of the logistic-normal integral.
    win = expit(own_gap / np.sqrt(1 + np.pi / 8 * own_variance))
    centre = expit(own_gap)
    weight = centre * (1 - centre)
    damping = 1 + weight * own_variance
    later = variance[..., None, :] - (weight / damping)[..., None] * shared**2
    after = np.zeros(win.shape)
    for outcome, probability in ((1.0, win), (0.0, 1 - win)):
        moved = gap[..., None, :] + ((outcome - centre) / damping)[..., None] * shared
        after += probability * _uncertainty(moved, later).sum(-1)
    return np.asarray(_uncertainty(gap, variance).sum(-1)[..., None] - after)


def _uncertainty(gap: Array, variance: Array) -> Array:
    stronger = ndtr(gap / np.sqrt(np.maximum(variance, 1e-12)))
    return np.asarray(stronger * (1 - stronger))


def choose_pair(
    answers: Sequence[Answer],
    systems: Sequence[str],
    candidates: Sequence[tuple[str, str]],
    random: np.random.Generator,
    exploration: float = EXPLORATION,
) -> int:
    """Which of `candidates`, the systems of pairs that can be asked, to ask next; ties are broken at random.

    ValueError without candidates.
    """
    if not candidates:
        raise ValueError("there is no pair left to ask")
    if random.random() < exploration or len(systems) < 2:
        return int(random.integers(len(candidates)))
    place = {name: k for k, name in enumerate(systems)}
    pairs = np.array([[place[a], place[b]] for a, b in candidates])
    distinct, inverse = np.unique(np.sort(pairs, 1), axis=0, return_inverse=True)
    information = ranking_information(ranking_posterior(answers, systems), distinct)
    best = np.isclose(information, information.max(), rtol=1e-9, atol=1e-12)
    return int(random.choice(np.flatnonzero(best[inverse.ravel()])))


def reward_information(margins: ArrayLike) -> Array:
    """The mutual information, in nats, of an answer about each pair and the member of an ensemble: [N].

    margins [members, N]: score(a) - score(b) by each member, as log-odds.
    """
    table = np.asarray(margins, dtype=np.float64)
    if table.ndim != 2 or len(table) < 2:
        raise ValueError(f"margins of an ensemble must be [members, N] of at least two members, not {table.shape}")
    probability = expit(table)
    return np.asarray(_binary_entropy(probability.mean(0)) - _binary_entropy(probability).mean(0))


def _binary_entropy(probability: Array) -> Array:
    return np.asarray(entr(probability) + entr(1 - probability))


def most_informative(margins: ArrayLike, count: int) -> NDArray[np.int64]:
    """The places of the `count` pairs on which an ensemble disagrees most, most first."""
    return np.argsort(-reward_information(margins), kind="stable")[:count]
