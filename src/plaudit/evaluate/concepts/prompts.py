"""Which concepts a prompt asks for: its words against the vocabulary's, negations left out."""

from __future__ import annotations

import re
from collections.abc import Iterator

from plaudit.corpus.embedded.truth import KEYS, MODES
from plaudit.encoders.words import words
from plaudit.evaluate.concepts.vocabulary import Concept, Vocabulary, key_concept, tempo_concept

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
