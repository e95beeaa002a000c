"""The corpus: shares, splits, disjoint seeds, and clean music whose tempo and key an independent listener finds."""

import hashlib

import numpy as np
import pytest

from plaudit.errors import CorpusError
from plaudit.synthetic.composer import compose
from plaudit.synthetic.corpus import SyntheticCorpus
from plaudit.synthetic.flaws import FLAWS
from plaudit.synthetic.synth import render
from plaudit.synthetic.truth import GENRES
from tools.evaluate_synthetic import has_key, has_tempo

DESCRIPTIONS = "e321ff8e1a6d24b4aa9bd99ee7d60e720459cc5c1cc5086436a60b62c3565681"


@pytest.fixture(scope="module")
def corpus() -> SyntheticCorpus:
    return SyntheticCorpus(2000, 4.0, seed=1)


def test_descriptions_are_those_recorded(corpus):
    text = "\n".join(f"{clip.id} {clip.caption} {clip.truth} {clip.flaws} {clip.split}" for clip in corpus.clips[:100])
    assert hashlib.sha256(text.encode()).hexdigest() == DESCRIPTIONS


def test_shares_and_splits_are_near_nominal(corpus):
    clips = corpus.clips
    assert np.mean([bool(clip.flaws) for clip in clips]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([clip.caption_truth != clip.truth for clip in clips]) == pytest.approx(0.1, abs=0.03)
    assert {name for clip in clips for name in clip.flaws} == set(FLAWS)
    assert max(len(clip.flaws) for clip in clips) == 2
    severities = [severity for clip in clips for severity in clip.flaws.values()]
    assert 0.05 < np.mean(np.array(severities) < 0.3) < 0.25 and max(severities) <= 1.0
    assert np.mean([clip.split == "train" for clip in clips]) == pytest.approx(0.9, abs=0.03)
    assert np.mean([clip.split == "test" for clip in clips]) == pytest.approx(0.05, abs=0.02)


def test_a_wrong_caption_is_wrong_in_genre_and_mood(corpus):
    wrong = [clip for clip in corpus.clips if clip.caption_truth != clip.truth]
    assert all(c.truth.genre != c.caption_truth.genre and c.truth.mood != c.caption_truth.mood for c in wrong)


def test_the_reference_is_clean():
    corpus = SyntheticCorpus(200, 2.0, seed=1, flawed_fraction=0, miscaptioned_fraction=0)
    assert all(not clip.flaws and clip.truth == clip.caption_truth for clip in corpus.clips)
    clip = corpus.clips[0]
    assert np.array_equal(corpus.render(clip), render(compose(clip.seed, 2.0)))


def test_a_larger_corpus_extends_a_smaller_and_seeds_are_disjoint(corpus):
    assert SyntheticCorpus(50, 4.0, seed=1).clips == corpus.clips[:50]
    other = SyntheticCorpus(2000, 4.0, seed=2)
    assert not {clip.seed for clip in corpus.clips} & {clip.seed for clip in other.clips}
    assert not {clip.id for clip in corpus.clips} & {clip.id for clip in other.clips}


def test_clips_render_alike_from_any_corpus_that_holds_them(corpus):
    clip = next(clip for clip in corpus.clips if clip.flaws)
    wave = corpus.render(clip)
    assert wave.shape == (64_000,) and corpus.rate == 16_000
    assert np.array_equal(wave, SyntheticCorpus(1, 4.0).render(clip))


@pytest.mark.parametrize(
    "settings",
    [{"size": 0}, {"size": -3}, {"seconds": 0.0}, {"seconds": float("nan")}, {"flawed_fraction": 1.5},
     {"miscaptioned_fraction": -0.1}],
)  # fmt: skip
def test_bad_settings_are_rejected(settings):
    with pytest.raises(CorpusError, match=r"needs at least one clip|must lie in 0 to 1"):
        SyntheticCorpus(**{"size": 4, "seconds": 2.0, **settings})


def test_librosa_detects_the_tempo_and_the_key():
    corpus = SyntheticCorpus(200, 10.0, seed=9, flawed_fraction=0, miscaptioned_fraction=0)
    clips = [next(clip for clip in corpus.clips if clip.truth.genre == genre) for genre in GENRES]
    waves = [corpus.render(clip) for clip in clips]
    tempi = sum(has_tempo(wave, clip.truth) for wave, clip in zip(waves, clips, strict=True))
    keys = sum(has_key(wave, clip.truth) for wave, clip in zip(waves, clips, strict=True))
    assert tempi >= 8
    assert keys >= 8
