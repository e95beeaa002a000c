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

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, expit, ndtr

from plaudit.reward.bradley_terry import Array, Fit, fit_bradley_terry

RANKING_PRIOR_SD = 1.0
"""Standard deviation of the prior of a strength in the posterior that pairs are chosen by (ours): about what systems
that are worth comparing differ by. Estimates of strengths have a weaker prior."""

EXPLORATION = 0.05
"""How often a pair is chosen at random (ours): a posterior that is wrong then corrects itself."""


def ranking_posterior(wins: ArrayLike, ties: ArrayLike, pending: ArrayLike | None = None) -> Fit:
    """The posterior of the strengths of K systems after wins and ties [..., K, K], as `fit_bradley_terry` takes them.

    pending [..., K, K]: questions that are out and not answered yet, each counted once, in either direction. Their
    answers are unknown, but the uncertainty that they will take away is not: it depends on the question alone.
    """
    posterior = fit_bradley_terry(wins, ties, prior_sd=RANKING_PRIOR_SD)
    if pending is None:
        return posterior
    waiting = np.asarray(pending, dtype=np.float64)
    waiting = waiting + np.swapaxes(waiting, -1, -2)
    covariance = posterior.covariance
    for i, j in zip(*np.triu_indices(waiting.shape[-1], 1), strict=True):
        count = waiting[..., i, j]
        if not count.any():
            continue
        centre = expit(posterior.strengths[..., i] - posterior.strengths[..., j])
        weight = count * centre * (1 - centre)
        row = covariance[..., i, :] - covariance[..., j, :]
        scale = weight / (1 + weight * (row[..., i] - row[..., j]))
        covariance = covariance - scale[..., None, None] * row[..., :, None] * row[..., None, :]
    return Fit(posterior.strengths, posterior.tie, covariance)


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


def choose_comparison(
    wins: ArrayLike,
    ties: ArrayLike,
    pending: ArrayLike,
    candidates: ArrayLike,
    random: np.random.Generator,
    exploration: float = EXPLORATION,
) -> int:
    """Which of `candidates` [N, 2], places of two systems each, to ask about next; ties are broken at random.

    wins, ties, pending: [K, K], as `ranking_posterior` takes them. ValueError without candidates.
    """
    pairs = np.asarray(candidates, dtype=np.int64).reshape(-1, 2)
    if not len(pairs):
        raise ValueError("there is no pair left to ask about")
    if random.random() < exploration or len(pairs) == 1:
        return int(random.integers(len(pairs)))
    information = ranking_information(ranking_posterior(wins, ties, pending), pairs)
    best = np.isclose(information, information.max(), rtol=1e-9, atol=1e-12)
    return int(random.choice(np.flatnonzero(best)))


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
