"""Captions of a truth: tag lists, one sentence or two, in the manner of real captions and with varied vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

from plaudit.errors import CorpusError
from plaudit.synthetic.exact import ExactRandom
from plaudit.synthetic.truth import BASSES, DRUMS, Truth

STYLES = ("tags", "sentence", "two_sentences")

GENRE_WORDS = {
    "rock": ("rock", "rock", "indie rock", "classic rock"),
    "pop": ("pop", "pop", "pop music"),
    "jazz": ("jazz", "jazz", "swing jazz"),
    "techno": ("techno", "techno", "minimal techno"),
    "house": ("house", "house music", "deep house"),
    "hip hop": ("hip hop", "hip-hop", "lo-fi hip hop"),
    "ambient": ("ambient", "ambient", "atmospheric ambient"),
    "classical": ("classical", "classical", "chamber music"),
    "reggae": ("reggae", "reggae", "roots reggae"),
    "bossa nova": ("bossa nova", "bossa nova", "latin bossa nova"),
    "funk": ("funk", "funk", "funky groove"),
    "folk": ("folk", "folk", "acoustic folk"),
}
MOOD_WORDS = {
    "happy": ("happy", "cheerful", "joyful", "upbeat"),
    "sad": ("sad", "melancholic", "sorrowful", "mournful"),
    "calm": ("calm", "relaxing", "peaceful", "gentle"),
    "energetic": ("energetic", "driving", "lively", "powerful"),
    "dark": ("dark", "gloomy", "brooding", "ominous"),
    "dreamy": ("dreamy", "ethereal", "floating", "hazy"),
    "tense": ("tense", "nervous", "suspenseful", "anxious"),
    "romantic": ("romantic", "tender", "warm", "loving"),
}
INSTRUMENT_WORDS = {
    "piano": ("piano", "piano", "grand piano"),
    "electric piano": ("electric piano", "rhodes", "electric piano"),
    "organ": ("organ", "organ", "drawbar organ"),
    "acoustic guitar": ("acoustic guitar", "guitar", "plucked guitar"),
    "electric guitar": ("electric guitar", "electric guitar", "distorted guitar"),
    "synth lead": ("synth lead", "synth", "lead synthesizer"),
    "synth pad": ("synth pad", "pad", "soft synth pad"),
    "strings": ("strings", "strings", "string section"),
    "brass": ("brass", "horns", "trumpet"),
    "bell": ("bell", "bells", "chimes"),
    "flute": ("flute", "flute", "wooden flute"),
    "upright bass": ("upright bass", "double bass", "acoustic bass"),
    "electric bass": ("electric bass", "bass guitar", "bass"),
    "synth bass": ("synth bass", "synth bass", "bass synthesizer"),
    "acoustic drums": ("acoustic drums", "drums", "drum kit"),
    "drum machine": ("drum machine", "electronic drums", "programmed beats"),
    "hand percussion": ("hand percussion", "percussion", "congas"),
}
TEMPO_WORDS = (
    (80, ("slow", "slow", "very slow")),
    (100, ("slow-paced", "moderately slow", "laid-back")),
    (120, ("mid-tempo", "medium tempo", "moderate tempo")),
    (140, ("fast", "quick", "up-tempo")),
    (181, ("very fast", "fast", "rapid")),
)


def caption(truth: Truth, style: str, seed: int) -> str:
    """A caption of one of ``STYLES``; the same seed gives the same words.

    Genre, mood and at least two instruments (where there are two) are nearly always named; tempo and key sometimes.
    Raises CorpusError for an unknown style.
    """
    if style not in STYLES:
        raise CorpusError(f"unknown caption style {style!r}: choose one of {', '.join(STYLES)}")
    rng = ExactRandom(seed, "caption")
    words = _Words(truth, rng)
    text = {"tags": _tags, "sentence": _sentence, "two_sentences": _two_sentences}[style](words, rng)
    return " ".join(text.split())


class _Words:
    """The chosen words of one caption; empty strings for facts that are left out."""

    def __init__(self, truth: Truth, rng: ExactRandom) -> None:
        self.genre = rng.choice(GENRE_WORDS[truth.genre]) if rng.chance(0.95) else ""
        self.mood = rng.choice(MOOD_WORDS[truth.mood]) if rng.chance(0.95) else ""
        count = len(truth.instruments)
        if count > 2 and rng.chance(0.3):
            count = rng.integer(2, count - 1)
        # People name the melody before the bass, so instruments are mostly left out from the end.
        kept = truth.instruments[:count] if rng.chance(0.6) else rng.sample(truth.instruments, count)
        self.instruments = [rng.choice(INSTRUMENT_WORDS[name]) for name in kept]
        self.has_solo = kept[0] not in DRUMS + BASSES
        self.pace = rng.choice(next(words for limit, words in TEMPO_WORDS if truth.tempo < limit))
        self.tempo = f"{truth.tempo} bpm" if rng.chance(0.35) else self.pace if rng.chance(0.7) else ""
        self.mode = truth.mode
        self.key = f"{truth.key} {truth.mode}" if rng.chance(0.35) else f"{truth.mode} key" if rng.chance(0.5) else ""

    @property
    def in_key(self) -> str:
        """``in A minor``, ``in a minor key`` or nothing."""
        if not self.key:
            return ""
        return f"in a {self.key}" if self.key.endswith("key") else f"in {self.key}"


def _list(words: Sequence[str]) -> str:
    """``a``, ``a and b`` or ``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _a(phrase: str) -> str:
    phrase = " ".join(phrase.split())
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"


def _capital(text: str) -> str:
    text = " ".join(text.split())
    return text[0].upper() + text[1:]


def _tags(words: _Words, rng: ExactRandom) -> str:
    tags = [words.genre, words.mood, *words.instruments, words.tempo, words.key]
    tags = [tag for tag in tags if tag]
    if rng.chance(0.4):
        tags = rng.sample(tags, len(tags))
    return ", ".join([*tags, "instrumental"] if rng.chance(0.3) else tags)


def _sentence(words: _Words, rng: ExactRandom) -> str:
    players = _list(words.instruments)
    pace = f"at {words.tempo}" if words.tempo.endswith("bpm") else ""
    adjective = words.tempo if words.tempo and not pace else ""
    kind = rng.choice(("track", "piece", "tune", "instrumental"))
    templates = (
        _a(f"{adjective} {words.mood} {words.genre} {kind}") + f" with {players} {words.in_key} {pace}.",
        _a(f"{words.mood} {words.genre} {kind}") + f" {words.in_key} featuring {players}"
        + (f", {words.tempo}." if words.tempo else "."),
        f"{adjective} {words.mood} {players} {words.in_key} {pace}"
        + (f", {words.genre} style." if words.genre else "."),
        f"{adjective} {words.genre} with {players}, {words.mood or words.mode} mood {words.in_key} {pace}.",
        f"{players} playing " + _a(f"{adjective} {words.mood} {words.genre} {kind}") + f" {words.in_key} {pace}.",
    )  # fmt: skip
    return _capital(rng.choice(templates)).replace(" .", ".").replace(" ,", ",")


def _two_sentences(words: _Words, rng: ExactRandom) -> str:
    first_player, rest = words.instruments[0], words.instruments[1:]
    kind = rng.choice(("track", "piece", "song", "composition"))
    opening = rng.choice(
        (
            f"This is {_a(f'{words.mood} {words.genre} {kind}')} {words.in_key}.",
            f"{_a(f'{words.genre} {kind}')} with {_a(f'{words.mood} mood') if words.mood else 'a clear mood'}.",
            f"{words.mood} {words.genre} {kind} {words.in_key}.",
        )
    )
    backing = f" over {_list(rest)}" if rest else ""
    closings = [f"It features {_list(words.instruments)}", f"The instruments are {_list(words.instruments)}"]
    if words.has_solo:
        closings += [f"{first_player} up front{backing}", f"The lead is {_a(first_player)}{backing}"]
    closing = rng.choice(closings)
    tempo = {"": ".", "b": f" at {words.tempo}."}.get(words.tempo[-3:-2], f", {words.tempo}.")
    sentences = f"{_capital(opening)} {_capital(closing)}{tempo}"
    return " ".join(sentences.split()).replace(" .", ".")
