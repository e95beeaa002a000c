"""The written taste, the pairs, and the votes drawn from them."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.corpus.sources import Rendering
from plaudit.errors import VoteError
from plaudit.synthetic.composer import compose
from plaudit.synthetic.corpus import SyntheticCorpus
from plaudit.synthetic.flaws import FLAWS, Flaws, render_flawed
from plaudit.synthetic.listeners import (
    ListenerPopulation,
    Taste,
    VotePair,
    key_credit,
    matches,
    noise_ceiling,
    sample_system_pairs,
    sample_vote_pairs,
    sample_votes,
    tempo_credit,
    utility,
)
from plaudit.synthetic.probes import TEMPI, Measurement, load_probes, measure
from plaudit.synthetic.truth import GENRES, INSTRUMENTS, KEYS, MODES, MOODS, Truth
from plaudit.types import Vote

TRUTH = Truth("jazz", "sad", ("piano", "upright bass"), 120, "A", "minor")
CLIPS = SyntheticCorpus(200, 3.0, seed=5).clips


def perfect(truth: Truth, **severity: float) -> Measurement:
    """Measurement of perfect probes of `truth` with these flaws."""
    tempo = torch.zeros(1, len(TEMPI))
    tempo[0, min(range(len(TEMPI)), key=lambda i: abs(TEMPI[i] - truth.tempo))] = 1.0
    key = torch.zeros(1, 12, 2)
    key[0, KEYS.index(truth.key), MODES.index(truth.mode)] = 1.0
    return Measurement(
        genre=torch.tensor([[float(g == truth.genre) for g in GENRES]]),
        mood=torch.tensor([[float(m == truth.mood) for m in MOODS]]),
        instruments=torch.tensor([[float(i in truth.instruments) for i in INSTRUMENTS]]),
        tempo=tempo,
        key=key,
        flaws=torch.tensor([[severity.get(f, 0.0) for f in FLAWS]]),
    )


def pairs_of(count: int) -> list[VotePair]:
    a, b = CLIPS[0], CLIPS[1]
    return [VotePair(f"p{i}", a.caption, a.caption_truth, a, b, "any") for i in range(count)]


def shares(votes: list[Vote]) -> tuple[float, float, float]:
    winners = [vote.winner for vote in votes]
    return tuple(winners.count(w) / len(winners) for w in ("a", "b", "tie"))  # type: ignore[return-value]


def test_a_perfect_clip_is_worth_all_matches_and_each_flaw_costs_its_weight() -> None:
    taste = Taste()
    best = taste.genre + taste.mood + taste.instruments + taste.tempo + taste.key
    assert utility(perfect(TRUTH), [TRUTH]).item() == pytest.approx(best)
    for flaw in FLAWS:
        expected = best - 0.5 * getattr(taste, flaw)
        assert utility(perfect(TRUTH, **{flaw: 0.5}), [TRUTH]).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("other", "lost"),
    [
        (replace(TRUTH, genre="rock"), "genre"),
        (replace(TRUTH, mood="happy"), "mood"),
        (replace(TRUTH, instruments=("flute",)), "instruments"),
        (replace(TRUTH, tempo=90), "tempo"),
        (replace(TRUTH, key="D#"), "key"),
    ],
)
def test_each_attribute_that_differs_loses_its_weight(other: Truth, lost: str) -> None:
    taste = Taste()
    loss = utility(perfect(TRUTH), [TRUTH]) - utility(perfect(other), [TRUTH])
    assert loss.item() == pytest.approx(getattr(taste, lost), abs=1e-5)


def test_half_tempo_and_relative_key_are_partly_right() -> None:
    taste = Taste()
    measured = matches(perfect(replace(TRUTH, tempo=60, key="C", mode="major")), [TRUTH], taste)
    assert measured["tempo"].item() == pytest.approx(taste.octave_credit)
    assert measured["key"].item() == pytest.approx(taste.relative_credit)


@given(st.sampled_from(KEYS), st.sampled_from(MODES), st.integers(60, 180))
@settings(max_examples=30, deadline=None)
def test_credits_peak_at_the_truth_and_the_relative_of_the_relative_is_itself(key: str, mode: str, tempo: int) -> None:
    taste = Taste()
    credit = key_credit(key, mode, taste)
    assert credit[KEYS.index(key), MODES.index(mode)] == credit.max() == 1.0
    tonic, other = (credit == taste.relative_credit).nonzero()[0].tolist()
    back = key_credit(KEYS[tonic], MODES[other], taste)
    assert back[KEYS.index(key), MODES.index(mode)] == pytest.approx(taste.relative_credit)
    nearest = min(range(len(TEMPI)), key=lambda i: abs(TEMPI[i] - tempo))
    assert tempo_credit(tempo, taste)[nearest] == 1.0


def test_as_many_captions_as_clips_are_needed() -> None:
    with pytest.raises(VoteError, match="1 clips need as many captions, not 2"):
        utility(perfect(TRUTH), [TRUTH, TRUTH])


@pytest.mark.parametrize("difference", [-1.5, 0.0, 0.8])
def test_votes_follow_rao_and_kupper(difference: float) -> None:
    count, band = 8000, 0.3
    gap = torch.full((count,), difference)
    population = ListenerPopulation(contrarian_fraction=0.0, tie_band=band)
    a, b, tie = shares(sample_votes(pairs_of(count), gap, torch.zeros(count), 3, population))
    expected_a, expected_b = torch.sigmoid(torch.tensor([difference - band, -difference - band])).tolist()
    assert a == pytest.approx(expected_a, abs=0.018)
    assert b == pytest.approx(expected_b, abs=0.018)
    assert tie == pytest.approx(1 - expected_a - expected_b, abs=0.018)


def test_without_a_band_nobody_is_undecided() -> None:
    votes = sample_votes(pairs_of(500), torch.zeros(500), torch.zeros(500), 0, ListenerPopulation(tie_band=0.0))
    assert shares(votes)[2] == 0


def test_contrarians_and_only_they_prefer_the_worse() -> None:
    count = 2000
    votes = sample_votes(pairs_of(count), torch.full((count,), 40.0), torch.zeros(count), 1, ListenerPopulation())
    against = {vote.listener for vote in votes if vote.winner == "b"}
    assert len(against) == 3  # 5 % of 60
    assert not against & {vote.listener for vote in votes if vote.winner == "a"}
    assert len({vote.listener for vote in votes}) == 60


def test_votes_are_the_same_for_the_same_seed_and_keep_the_schema() -> None:
    pairs = sample_vote_pairs(CLIPS, 50, seed=4)
    a, b = torch.linspace(-1, 1, 50), torch.zeros(50)
    votes = sample_votes(pairs, a, b, 7)
    assert votes == sample_votes(pairs, a, b, 7)
    assert votes != sample_votes(pairs, a, b, 8)
    assert len({vote.id for vote in votes}) == 50
    for vote, pair in zip(votes, pairs, strict=True):
        assert (vote.prompt, vote.a, vote.b) == (pair.prompt, pair.a.id, pair.b.id)
        assert vote.winner in ("a", "b", "tie") and vote.source == "simulated"
        assert all(isinstance(getattr(vote, field.name), str) for field in fields(Vote))


def test_votes_need_a_utility_for_each_pair() -> None:
    with pytest.raises(VoteError, match="3 pairs need as many utilities"):
        sample_votes(pairs_of(3), torch.zeros(2), torch.zeros(3), 0)


@given(st.integers(0, 1000), st.floats(0, 1))
@settings(max_examples=10, deadline=None)
def test_a_pair_is_two_clips_and_the_caption_of_one(seed: int, near_fraction: float) -> None:
    pairs = sample_vote_pairs(CLIPS, 100, seed, near_fraction)
    assert pairs == sample_vote_pairs(CLIPS, 100, seed, near_fraction)
    for pair in pairs:
        assert pair.a.id != pair.b.id
        matching, other = (pair.a, pair.b) if pair.a.caption == pair.prompt else (pair.b, pair.a)
        assert (matching.caption, matching.caption_truth) == (pair.prompt, pair.truth)
        if pair.kind == "near":
            assert other.truth.genre == pair.truth.genre or other.truth.mood == pair.truth.mood


def test_near_pairs_have_their_share_and_captions_lie_on_both_sides() -> None:
    pairs = sample_vote_pairs(CLIPS, 2000, 0)
    assert np.mean([pair.kind == "near" for pair in pairs]) == pytest.approx(0.6, abs=0.04)
    assert np.mean([pair.a.caption == pair.prompt for pair in pairs]) == pytest.approx(0.5, abs=0.04)


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_a_pair_of_systems_is_two_renderings_of_one_prompt(seed: int) -> None:
    renderings = [
        [Rendering(f"{system}/{clip.id}", system, clip.id, clip.caption, None) for system in ("corpus", "x", "y")]
        for clip in CLIPS[:5]
    ]
    pairs = sample_system_pairs(renderings, [clip.caption_truth for clip in CLIPS[:5]], 40, seed)
    assert pairs == sample_system_pairs(renderings, [clip.caption_truth for clip in CLIPS[:5]], 40, seed)
    prompted = {clip.caption: clip for clip in CLIPS[:5]}
    for pair in pairs:
        assert isinstance(pair.a, Rendering) and isinstance(pair.b, Rendering)
        assert pair.a.id != pair.b.id and pair.a.prompted == pair.b.prompted
        assert pair.systems == (pair.a.system, pair.b.system)
        assert pair.truth == prompted[pair.prompt].caption_truth
    votes = sample_votes(pairs, torch.zeros(40), torch.zeros(40), seed)
    assert [(vote.system_a, vote.system_b) for vote in votes] == [pair.systems for pair in pairs]


def test_systems_need_two_clips_of_every_prompt() -> None:
    one = Rendering("a", "corpus", CLIPS[0].id, CLIPS[0].caption, None)
    with pytest.raises(VoteError, match="name more systems"):
        sample_system_pairs([[one]], [CLIPS[0].caption_truth], 1, 0)


def test_one_clip_makes_no_pair() -> None:
    with pytest.raises(VoteError, match="at least two clips"):
        sample_vote_pairs(CLIPS[:1], 1, 0)


def test_noise_ceiling_known_answer() -> None:
    votes = [replace(vote, winner=w) for vote, w in zip(
        sample_votes(pairs_of(5), torch.zeros(5), torch.zeros(5), 0), ("a", "b", "a", "tie", "b"), strict=True
    )]  # fmt: skip
    # Right, wrong, undecided, left out, right: 2.5 of 4.
    assert noise_ceiling(torch.tensor([1.0, 1, 0, 9, 0]), torch.tensor([0.0, 0, 0, 0, 2]), votes) == 2.5 / 4


def test_noise_ceiling_nears_the_bayes_accuracy() -> None:
    count = 8000
    gap = torch.full((count,), 1.2)
    votes = sample_votes(
        pairs_of(count), gap, torch.zeros(count), 0, ListenerPopulation(contrarian_fraction=0, tie_band=0)
    )
    assert noise_ceiling(gap, torch.zeros(count), votes) == pytest.approx(torch.sigmoid(gap[0]).item(), abs=0.016)


@pytest.fixture(scope="module")
def pieces() -> list:
    return [compose(900 + i, 5.0) for i in range(8)]


def test_every_flaw_lowers_utility_the_more_the_worse_it_is(pieces: list) -> None:
    probes, truths = load_probes(), [piece.truth for piece in pieces]

    def mean_utility(flaws: dict[str, float]) -> float:
        waves = np.stack([render_flawed(piece, Flaws(flaws), 1) for piece in pieces])
        return utility(measure(probes, torch.from_numpy(waves)), truths).mean().item()

    clean = mean_utility({})
    for flaw in FLAWS:
        mild, severe = mean_utility({flaw: 0.4}), mean_utility({flaw: 0.9})
        assert clean > mild > severe, flaw
        assert clean - severe > 1.0, flaw


def test_a_clip_has_more_utility_for_its_caption_than_for_others(pieces: list) -> None:
    probes, truths = load_probes(), [piece.truth for piece in pieces]
    waves = torch.from_numpy(np.stack([render_flawed(piece, Flaws(), 1) for piece in pieces]))
    measured = measure(probes, waves)
    matching = utility(measured, truths)
    for turn in range(1, len(truths)):
        assert matching.mean() > utility(measured, truths[turn:] + truths[:turn]).mean() + 0.5
