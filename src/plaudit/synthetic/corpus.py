"""The synthetic corpus: any number of clips, described by seeds and rendered on demand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plaudit.corpus.manifest import Entry
from plaudit.errors import CorpusError
from plaudit.storage import seed_of
from plaudit.synthetic.captions import STYLES, caption
from plaudit.synthetic.composer import compose, random_truth
from plaudit.synthetic.exact import ExactRandom, mix64
from plaudit.synthetic.flaws import FLAWS, Flaws, render_flawed
from plaudit.synthetic.synth import SAMPLE_RATE
from plaudit.synthetic.truth import Truth

MILD_FRACTION = 0.15


@dataclass(frozen=True)
class SyntheticClip:
    """One clip's description. ``truth`` is what is played, ``caption_truth`` what the caption says of it.

    The two differ when the clip is wrongly captioned. ``flaws`` maps a flaw to its severity; ``split`` is train,
    validation or test.
    """

    id: str
    seed: int
    caption: str
    truth: Truth
    caption_truth: Truth
    flaws: dict[str, float]
    split: str


class SyntheticCorpus:
    """A corpus of ``size`` clips of ``seconds`` each, rendered when they are loaded.

    Corpora of different ``seed`` share no clip; a larger one extends a smaller.

    ``flawed_fraction`` of the clips have one or two flaws (severity 0.3 to 1, a few below), ``miscaptioned_fraction``
    the caption of another piece; both 0 make the clean reference. Raises CorpusError for values out of range.
    """

    name, rate = "synthetic", SAMPLE_RATE

    def __init__(
        self,
        size: int,
        seconds: float,
        seed: int = 0,
        flawed_fraction: float = 0.5,
        miscaptioned_fraction: float = 0.1,
    ) -> None:
        if size < 1 or not seconds > 0:
            raise CorpusError(f"a corpus needs at least one clip longer than 0 s, got size {size}, seconds {seconds}")
        for name, fraction in (("flawed_fraction", flawed_fraction), ("miscaptioned_fraction", miscaptioned_fraction)):
            if not 0.0 <= fraction <= 1.0:
                raise CorpusError(f"{name} must lie in 0 to 1, got {fraction}")
        self.size, self.seconds, self.seed = size, seconds, seed
        self.clips = [describe_clip(seed, index, flawed_fraction, miscaptioned_fraction) for index in range(size)]
        self._by_id = {clip.id: clip for clip in self.clips}

    def entries(self) -> list[Entry]:
        """One entry per clip, in the corpus's order: captions as written, no rewards."""
        return [Entry(clip.id, clip.caption, clip.split, self.name, origin=self._origin(clip)) for clip in self.clips]

    def load(self, clips: Sequence[Entry], seconds: float) -> tuple[list[np.ndarray], int]:
        """The first `seconds` of each clip, rendered anew; CorpusError for one of another corpus."""
        waves = []
        for clip in clips:
            if clip.id not in self._by_id:
                raise CorpusError(f"clip {clip.id!r} is not in this synthetic corpus of {self.size} clips")
            waves.append(self.render(self._by_id[clip.id])[: math.floor(seconds * self.rate)])
        return waves, self.rate

    def _origin(self, clip: SyntheticClip) -> str:
        """Changes whenever the clip's sound does."""
        sound = f"{clip.seed} {self.seconds:g} {clip.truth} {sorted(clip.flaws.items())}"
        return f"{seed_of(sound):016x}"

    def render(self, clip: SyntheticClip) -> np.ndarray:
        """The clip's waveform, float32 [seconds * 16000], mono; the same bits on every machine."""
        return render_flawed(compose(clip.seed, self.seconds, clip.truth), Flaws(clip.flaws), clip.seed)


def clip_seed(corpus_seed: int, index: int) -> int:
    """A 64-bit seed of (corpus seed, index), unique but for chance; NumPy keeps this stream stable."""
    low, high = np.random.SeedSequence([corpus_seed, index]).generate_state(2)
    return int(high) << 32 | int(low)


def describe_clip(
    corpus_seed: int, index: int, flawed_fraction: float = 0.5, miscaptioned_fraction: float = 0.1
) -> SyntheticClip:
    """Clip `index` of the endless corpus that `corpus_seed` names; see `SyntheticCorpus` for the fractions."""
    seed = clip_seed(corpus_seed, index)
    rng = ExactRandom(seed, "clip")
    truth = random_truth(seed)
    flawed, miscaptioned = rng.chance(flawed_fraction), rng.chance(miscaptioned_fraction)
    flaws: dict[str, float] = {}
    if flawed:
        for name in rng.sample(FLAWS, 2 if rng.chance(0.35) else 1):
            mild = rng.chance(MILD_FRACTION)
            flaws[name] = round(rng.uniform(0.05, 0.3) if mild else rng.uniform(0.3, 1.0), 3)
    described = _other_truth(seed, truth) if miscaptioned else truth
    return SyntheticClip(
        id=f"synthetic-{corpus_seed}-{index:06d}",
        seed=seed,
        caption=caption(described, rng.choice(STYLES), seed),
        truth=truth,
        caption_truth=described,
        flaws=flaws,
        split=_split(corpus_seed, index),
    )


def _other_truth(seed: int, truth: Truth) -> Truth:
    """The truth of some other piece, wrong in genre and mood at least."""
    attempt = 1
    while True:
        other = random_truth(mix64(seed) + attempt)
        if other.genre != truth.genre and other.mood != truth.mood:
            return other
        attempt += 1


def _split(corpus_seed: int, index: int) -> str:
    """Train, validation or test (90 / 5 / 5), from the clip's seed only."""
    place = ExactRandom(clip_seed(corpus_seed, index), "split").random()
    return "train" if place < 0.9 else "validation" if place < 0.95 else "test"
