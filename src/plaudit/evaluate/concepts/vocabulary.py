"""A vocabulary of concepts, read from YAML, and which of them a prompt asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from pydantic import Field, RootModel, ValidationError, model_validator

from plaudit.encoders.words import KEYS, MODES, words
from plaudit.errors import EvaluationError
from plaudit.settings import Count, Settings, read_yaml
from plaudit.storage import digest_of

SHIPPED_VOCABULARY = Path(__file__).with_name("vocabulary.yaml")


class ConceptSettings(Settings):
    """A concept of the file: the words that name it, and where it is another's or a tempo, what that means."""

    words: list[str] = Field(min_length=1)
    any: tuple[str, ...] = ()
    bpm: tuple[float, float] | None = None

    @model_validator(mode="before")
    @classmethod
    def _words_alone(cls, given: object) -> object:
        return {"words": given} if isinstance(given, list) else given


class CategorySettings(Settings):
    """A category of the file; `{}` of `text` is where a concept's name goes."""

    text: str
    heard: Count
    concepts: dict[str, ConceptSettings] = Field(min_length=1)


class VocabularyFile(RootModel[dict[str, CategorySettings]]):
    """The file as a whole: categories by name."""


@dataclass(frozen=True)
class Concept:
    """Something that a prompt can ask for: `category` and `name` say what.

    parts: the names of which any is enough; its own for most. bpm: the range of a tempo. tonic: of a key, with the
    mode in parts.
    """

    category: str
    name: str
    parts: tuple[str, ...]
    bpm: tuple[float, float] | None = None
    tonic: str | None = None

    def __str__(self) -> str:
        return f"{self.category}: {self.name}"


@dataclass(frozen=True)
class Category:
    """The concepts of one kind. text: how a zero-shot classifier asks; heard: how many a piece has at once."""

    name: str
    text: str
    heard: int
    concepts: tuple[Concept, ...]


@dataclass(frozen=True)
class Vocabulary:
    """Categories by name, and the concept that each phrase, as a tuple of words, names."""

    categories: dict[str, Category]
    phrases: dict[tuple[str, ...], Concept]

    @property
    def digest(self) -> str:
        """A hash of all it holds."""
        told = [asdict(category) for category in self.categories.values()]
        phrases = sorted((phrase, str(concept)) for phrase, concept in self.phrases.items())
        return digest_of(told, phrases)[:16]

    @property
    def longest(self) -> int:
        """Words of the longest phrase."""
        return max(map(len, self.phrases))


def load_vocabulary(path: Path = SHIPPED_VOCABULARY) -> Vocabulary:
    """Read a vocabulary; EvaluationError, in one line, for a file that is missing, malformed, or says a thing twice."""
    try:
        content = read_yaml(path.read_bytes())
        found = VocabularyFile.model_validate(content).root
    except FileNotFoundError:
        raise EvaluationError(f"vocabulary {path} does not exist; check the path") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise EvaluationError(f"{path}: {where}: {first['msg']}; see the shipped vocabulary for the form") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise EvaluationError(f"{path} is not readable as a vocabulary: {' '.join(str(error).split())}") from None
    if not found:
        raise EvaluationError(f"{path} names no concepts; add a category")
    categories = {name: _category(path, name, settings) for name, settings in found.items()}
    phrases: dict[tuple[str, ...], Concept] = {}
    for category in categories.values():
        for concept in category.concepts:
            for phrase in found[category.name].concepts[concept.name].words:
                _name(path, phrase, concept, phrases)
    return Vocabulary(categories, phrases)


def key_concept(tonic: str, mode: str) -> Concept:
    """The named key, `A` and `minor`."""
    return Concept("key", f"{tonic} {mode}", (mode,), tonic=tonic)


def tempo_concept(bpm: int) -> Concept:
    """A tempo in figures."""
    return Concept("tempo", f"{bpm} bpm", (), bpm=(float(bpm), float(bpm)))


ALL_KEYS = tuple(key_concept(tonic, mode) for tonic in KEYS for mode in MODES)


def _category(path: Path, name: str, settings: CategorySettings) -> Category:
    if settings.text.count("{}") != 1:
        raise EvaluationError(f"{path}: {name}.text must hold {{}} once, where a concept's name goes")
    for concept, told in settings.concepts.items():
        if strange := [part for part in told.any if part not in settings.concepts or settings.concepts[part].any]:
            raise EvaluationError(f"{path}: {name}.{concept}.any names {strange[0]!r}, which is no concept of its own")
        if (name == "tempo") != (told.bpm is not None) or (told.bpm and not 0 < told.bpm[0] < told.bpm[1]):
            raise EvaluationError(f"{path}: {name}.{concept}: a tempo, and nothing else, has a bpm range [low, high]")
    concepts = tuple(Concept(name, c, tuple(t.any) or (c,), t.bpm) for c, t in settings.concepts.items())
    return Category(name, settings.text, settings.heard, concepts)


def _name(path: Path, phrase: str, concept: Concept, phrases: dict[tuple[str, ...], Concept]) -> None:
    """Let a phrase, its plural, and either written as one word name a concept; no phrase may name two."""
    spoken = tuple(words(phrase))
    if not spoken:
        raise EvaluationError(f"{path}: {concept}: {phrase!r} has no letters a to z or figures to find it by")
    plural = (*spoken[:-1], spoken[-1] if spoken[-1].endswith("s") else f"{spoken[-1]}s")
    for form in dict.fromkeys((spoken, plural, ("".join(spoken),), ("".join(plural),))):
        if phrases.setdefault(form, concept) != concept:
            raise EvaluationError(f"{path}: {phrase!r} names both {phrases[form]} and {concept}; leave one out")


_CLAUSE = re.compile(r"[;:!?()\n]+|[.,]+(?!\d)|\s[-\u2013\u2014]+\s")
"""Where a clause ends; a comma or point inside a number ends none."""

_CONTRACTED = re.compile(r"n['\u2019]t\b", re.IGNORECASE)
_FREE = re.compile(r"\b([A-Za-z]+)-free\b|\b([A-Za-z]+)less\b")

_NEGATORS = frozenset("no not without never neither nor minus lacking lacks excluding avoid sans".split())
_NEGATING_PHRASES = {("free", "of"), ("absence", "of"), ("lack", "of"), ("instead", "of"), ("rather", "than")}
_NOT_NEGATING = {("not", "only"), ("not", "just"), ("no", "longer"), ("not", "merely")}
_ENDS = {"but", "with", "featuring", "only", "just", "while", "yet", "although", "though", "then"}
"""Words after which what is named is wanted again."""


def concepts_in(prompt: str, vocabulary: Vocabulary) -> list[Concept]:
    """The concepts that `prompt` asks for, each once, in its order.

    What it asks not to have does not count: after "no", "without", "instead of" and the like everything is left out up
    to the end of the clause or a "but" or "with"; a list that ends in "or" goes on over its commas ("no drums, bass or
    vocals"). "-free" and "-less" deny their own word. All ours.
    """
    found: dict[Concept, None] = {}
    for clause in _wanted(prompt):
        found.update(dict.fromkeys(_named(clause, vocabulary)))
    return list(found)


def _wanted(prompt: str) -> Iterator[list[str]]:
    """The words of each stretch of the prompt that is not denied."""
    text = _FREE.sub(" ", _CONTRACTED.sub(" not", prompt))
    clauses = [words(clause) for clause in _CLAUSE.split(text)]
    commas = [mark.strip() for mark in _CLAUSE.findall(text)]
    denied = False
    for number, clause in enumerate(clauses):
        goes_on = number > 0 and commas[number - 1] == "," and _list_with_or(clauses[number:], commas[number:])
        denied = denied and goes_on
        stretch: list[str] = []
        for place, word in enumerate(clause):
            if _denies(clause, place):
                if not denied:
                    yield stretch
                stretch, denied = [], True
            elif word in _ENDS and denied:
                stretch, denied = [], False
            elif not denied:
                stretch.append(word)
        if not denied:
            yield stretch


def _denies(clause: list[str], place: int) -> bool:
    pair = tuple(clause[place : place + 2])
    return pair in _NEGATING_PHRASES or (clause[place] in _NEGATORS and pair not in _NOT_NEGATING)


def _list_with_or(clauses: list[list[str]], commas: list[str]) -> bool:
    """Whether a list of short items goes on here and ends in `or` or `nor`."""
    for clause, comma in zip(clauses, [*commas, ""], strict=False):
        if "or" in clause or "nor" in clause:
            return True
        if len(clause) > 3 or comma != ",":
            return False
    return False


def _named(stretch: list[str], vocabulary: Vocabulary) -> Iterator[Concept]:
    """What a stretch of words names, the longest phrase first; a word is part of one phrase only."""
    place = 0
    while place < len(stretch):
        concept, length = _at(stretch, place, vocabulary)
        if concept is not None:
            yield concept
        place += length


def _at(stretch: list[str], place: int, vocabulary: Vocabulary) -> tuple[Concept | None, int]:
    """The concept that begins at `place` and how many words name it; (None, 1) where none does."""
    word, after = stretch[place], stretch[place + 1] if place + 1 < len(stretch) else ""
    tonic = word.removeprefix("key").upper()
    if "key" in vocabulary.categories and word.startswith("key") and tonic in KEYS and after in MODES:
        return key_concept(tonic, after), 2
    if "tempo" in vocabulary.categories and word.isdigit() and after == "bpm":
        return tempo_concept(int(word)), 2
    for length in range(min(vocabulary.longest, len(stretch) - place), 0, -1):
        phrase = tuple(stretch[place : place + length])
        if phrase in vocabulary.phrases:
            return vocabulary.phrases[phrase], length
    return None, 1
