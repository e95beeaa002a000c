"""A vocabulary of concepts, read from YAML, and the concepts that a prompt names."""

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
    """A concept in the file: the words that name it; any: concepts of which one suffices; bpm: the range of a tempo."""

    words: list[str] = Field(min_length=1)
    any: tuple[str, ...] = ()
    bpm: tuple[float, float] | None = None

    @model_validator(mode="before")
    @classmethod
    def _words_alone(cls, values: object) -> object:
        return {"words": values} if isinstance(values, list) else values


class CategorySettings(Settings):
    """A category in the file; `{}` in `text` stands for a concept's name."""

    text: str
    per_clip: Count
    concepts: dict[str, ConceptSettings] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _old_key(cls, values: object) -> object:
        if isinstance(values, dict) and "heard" in values:
            raise ValueError("the key 'heard' is now 'per_clip'")
        return values


class VocabularyFile(RootModel[dict[str, CategorySettings]]):
    """The file: categories by name."""


@dataclass(frozen=True)
class Concept:
    """A concept that a prompt can name.

    parts: names of concepts of which one suffices; mostly its own. bpm: the range of a tempo. tonic: of a key, whose
    mode is in parts.
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
    """Concepts of one kind. text: the template of a zero-shot classifier; per_clip: how many concepts a clip has."""

    name: str
    text: str
    per_clip: int
    concepts: tuple[Concept, ...]


@dataclass(frozen=True)
class Vocabulary:
    """Categories by name, and the concept that each phrase, as a tuple of words, names."""

    categories: dict[str, Category]
    phrases: dict[tuple[str, ...], Concept]

    @property
    def digest(self) -> str:
        """A hash of the content."""
        content = [asdict(category) for category in self.categories.values()]
        phrases = sorted((phrase, str(concept)) for phrase, concept in self.phrases.items())
        return digest_of(content, phrases)[:16]

    @property
    def longest(self) -> int:
        """The number of words in the longest phrase."""
        return max(map(len, self.phrases))


def load_vocabulary(path: Path = SHIPPED_VOCABULARY) -> Vocabulary:
    """Read a vocabulary; EvaluationError, in one line, for a file that is missing, malformed or ambiguous."""
    try:
        content = read_yaml(path.read_bytes())
        settings = VocabularyFile.model_validate(content).root
    except FileNotFoundError:
        raise EvaluationError(f"vocabulary {path} does not exist; check the path") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        problem = first["msg"].removeprefix("Value error, ")
        raise EvaluationError(f"{path}: {where}: {problem}; see the shipped vocabulary for the form") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise EvaluationError(f"{path} is not readable as a vocabulary: {' '.join(str(error).split())}") from None
    if not settings:
        raise EvaluationError(f"{path} names no concepts; add a category")
    categories = {name: _category(path, name, category) for name, category in settings.items()}
    phrases: dict[tuple[str, ...], Concept] = {}
    for category in categories.values():
        for concept in category.concepts:
            for phrase in settings[category.name].concepts[concept.name].words:
                _add_phrase(path, phrase, concept, phrases)
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
    for concept, values in settings.concepts.items():
        if unknown := [part for part in values.any if part not in settings.concepts or settings.concepts[part].any]:
            raise EvaluationError(f"{path}: {name}.{concept}.any names {unknown[0]!r}, which is not a plain concept")
        if (name == "tempo") != (values.bpm is not None) or (values.bpm and not 0 < values.bpm[0] < values.bpm[1]):
            raise EvaluationError(f"{path}: {name}.{concept}: a tempo, and nothing else, has a bpm range [low, high]")
    concepts = tuple(Concept(name, c, tuple(t.any) or (c,), t.bpm) for c, t in settings.concepts.items())
    return Category(name, settings.text, settings.per_clip, concepts)


def _add_phrase(path: Path, phrase: str, concept: Concept, phrases: dict[tuple[str, ...], Concept]) -> None:
    """Add a phrase, its plural, and either written as one word; no phrase may name two concepts."""
    tokens = tuple(words(phrase))
    if not tokens:
        raise EvaluationError(f"{path}: {concept}: {phrase!r} has no letters a to z or figures to find it by")
    plural = (*tokens[:-1], tokens[-1] if tokens[-1].endswith("s") else f"{tokens[-1]}s")
    for form in dict.fromkeys((tokens, plural, ("".join(tokens),), ("".join(plural),))):
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
"""Words that end a negation."""


def concepts_in(prompt: str, vocabulary: Vocabulary) -> list[Concept]:
    """The concepts that `prompt` names, each once, in order.

    Negated ones do not count: after "no", "without", "instead of" and the like everything is left out up
    to the end of the clause or a "but" or "with"; a list that ends in "or" continues across commas ("no drums, bass or
    vocals"). "-free" and "-less" negate their own word. The rules are ours.
    """
    concepts = (concept for stretch in _affirmed(prompt) for concept in _match_concepts(stretch, vocabulary))
    return list(dict.fromkeys(concepts))


def _affirmed(prompt: str) -> Iterator[list[str]]:
    """The words of each stretch of the prompt that is not negated."""
    text = _FREE.sub(" ", _CONTRACTED.sub(" not", prompt))
    clauses = [words(clause) for clause in _CLAUSE.split(text)]
    commas = [mark.strip() for mark in _CLAUSE.findall(text)]
    negated = False
    for number, clause in enumerate(clauses):
        continues = number > 0 and commas[number - 1] == "," and _list_with_or(clauses[number:], commas[number:])
        negated = negated and continues
        stretch: list[str] = []
        for place, word in enumerate(clause):
            if _negates(clause, place):
                if not negated:
                    yield stretch
                stretch, negated = [], True
            elif word in _ENDS and negated:
                stretch, negated = [], False
            elif not negated:
                stretch.append(word)
        if not negated:
            yield stretch


def _negates(clause: list[str], place: int) -> bool:
    pair = tuple(clause[place : place + 2])
    return pair in _NEGATING_PHRASES or (clause[place] in _NEGATORS and pair not in _NOT_NEGATING)


def _list_with_or(clauses: list[list[str]], commas: list[str]) -> bool:
    """Whether a list of short items continues here and ends in `or` or `nor`."""
    for clause, comma in zip(clauses, [*commas, ""], strict=False):
        if "or" in clause or "nor" in clause:
            return True
        if len(clause) > 3 or comma != ",":
            return False
    return False


def _match_concepts(stretch: list[str], vocabulary: Vocabulary) -> Iterator[Concept]:
    """The concepts in a stretch of words, longest phrases first; a word is part of one phrase only."""
    place = 0
    while place < len(stretch):
        concept, length = _match_at(stretch, place, vocabulary)
        if concept is not None:
            yield concept
        place += length


def _match_at(stretch: list[str], place: int, vocabulary: Vocabulary) -> tuple[Concept | None, int]:
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
