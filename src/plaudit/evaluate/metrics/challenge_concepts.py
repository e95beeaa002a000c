"""The challenge's concept coverage: of a prompt's genre, instrument and mood, the fraction that an audio language model
finds in the clip.

Each tag is one question, and counts where logit(yes) > logit(no). The wording of the questions is ours, and so are the
tags of prompts without given ones: the first genre, instrument and mood that the vocabulary finds in the text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from plaudit.errors import EvaluationError
from plaudit.evaluate.concepts.vocabulary import Vocabulary, concepts_in
from plaudit.evaluate.embeddings import CachedClip
from plaudit.evaluate.metrics import COVERAGES_DIFFER, ClipValues, Metric, MetricInputs
from plaudit.tables import read_table

QUESTIONS = {
    "genre": "Is the genre of this music {}? Answer yes or no.",
    "instrument": "Is there {} in this music? Answer yes or no.",
    "mood": "Is the mood of this music {}? Answer yes or no.",
}


def tags_in(prompt: str, vocabulary: Vocabulary) -> dict[str, str]:
    """The first concept of each kind that a prompt names."""
    named: dict[str, str] = {}
    for concept in concepts_in(prompt, vocabulary):
        if concept.category in QUESTIONS:
            named.setdefault(concept.category, concept.name)
    return {kind: named[kind] for kind in QUESTIONS if kind in named}


def read_tags(path: Path) -> dict[str, dict[str, str]]:
    """The tags of each prompt in a table with a column prompt (or caption) and the columns of QUESTIONS.

    CorpusError or EvaluationError, in one line, where it is malformed; an empty tag asks nothing.
    """
    tags: dict[str, dict[str, str]] = {}
    for row in read_table(path, list(QUESTIONS)):
        prompt = row.prompt()
        if not prompt:
            raise EvaluationError(f"{row.where} has no prompt; give it in a column 'prompt'")
        if prompt in tags:
            raise EvaluationError(f"{row.where}: the prompt {prompt[:60]!r} stands there twice; list it once")
        tags[prompt] = {kind: row[kind].strip() for kind in QUESTIONS if row[kind].strip()}
    return tags


def compute(inputs: MetricInputs) -> ClipValues:
    """NaN for a clip whose prompt has no tag."""
    evaluators, model = inputs.evaluators, inputs.evaluators.answerer
    assert model is not None and evaluators.vocabulary is not None
    answers: dict[CachedClip, dict[str, bool]] = {}
    tags = {prompt: _tags(prompt, evaluators.tags, evaluators.vocabulary) for prompt in dict.fromkeys(inputs.prompts)}

    def measure(clip: CachedClip, prompt: str) -> float | None:
        wave = clip.wave(model.sample_rate)[0]
        kinds = list(tags[prompt])
        questions = [QUESTIONS[kind].format(tags[prompt][kind]) for kind in kinds]
        margins = model.margins(wave, questions) if kinds else []
        answers[clip] = {kind: margin > 0 for kind, margin in zip(kinds, margins, strict=True)}
        return sum(answers[clip].values()) / len(kinds) if kinds else None

    values = inputs.each(measure)
    notes = [
        "; ".join(
            f"{kind} {tags[prompt][kind]}: {'yes' if yes else 'no'}" for kind, yes in answers.get(clip, {}).items()
        )
        for clip, prompt in zip(inputs.clips, inputs.prompts, strict=True)
    ]
    return ClipValues(values, notes, lambda rows: _summary([answers[inputs.clips[row]] for row in rows]))


def _tags(prompt: str, given: Mapping[str, dict[str, str]] | None, vocabulary: Vocabulary) -> dict[str, str]:
    if given is None:
        return tags_in(prompt, vocabulary)
    if prompt not in given:
        raise EvaluationError(f"the table of tags has none of the prompt {prompt[:60]!r}; add a row")
    return given[prompt]


def _summary(answers: list[dict[str, bool]]) -> str:
    """Of the tags of each kind, how many are in the clips."""
    questions = Counter(kind for one in answers for kind in one)
    yes = Counter(kind for one in answers for kind in one if one[kind])
    return ", ".join(f"{kind} {yes[kind]} of {count}" for kind, count in questions.items()) or "no prompt has a tag"


METRIC = Metric(
    "challenge-concepts",
    "Challenge concept coverage",
    compute,
    needs=frozenset({"answerer"}),
    caution=COVERAGES_DIFFER,
)
