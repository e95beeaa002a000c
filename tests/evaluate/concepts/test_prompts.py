"""Concepts in prompts, with negation."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.errors import EvaluationError
from plaudit.evaluate.concepts.vocabulary import concepts_in, load_vocabulary
from plaudit.synthetic.corpus import SyntheticCorpus
from plaudit.synthetic.evaluators import holds

VOCABULARY = load_vocabulary()


def named(prompt: str) -> list[str]:
    return [concept.name for concept in concepts_in(prompt, VOCABULARY)]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Slow sad piano in A minor at 72 bpm.", ["slow", "sad", "piano", "A minor", "72 bpm"]),
        ("a calm piece in a minor key", ["calm", "minor"]),
        ("Bb major, brass", ["A# major", "brass"]),
        ("a hip-hop beat, hip hop, hiphop", ["hip hop"]),  # each once
        ("acousticguitar and drummachines", ["acoustic guitar", "drum machine"]),
        ("pianos and a Fender Rhodes", ["piano", "electric piano"]),
        ("double bass, not just bass guitar", ["upright bass", "electric bass"]),  # never plain bass
        ("the popping of popcorn in a rocky, folksy organisation", []),  # whole words
        ("blue lights, house rules", ["house"]),
        ("a drum and bass track", ["drum and bass"]),
        ("", []),
    ],
)
def test_words_are_matched_whole_and_the_longest_first(prompt: str, expected: list[str]) -> None:
    assert named(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("piano, no drums", ["piano"]),
        ("no drums, piano", ["piano"]),  # the list does not go on
        ("no drums, bass or vocals", []),
        ("no drums, bass, guitar or vocals but a flute", ["flute"]),
        ("without drums and bass. Piano", ["piano"]),
        ("not too fast, dreamy", ["dreamy"]),
        ("it doesn't have guitars; strings instead", ["strings"]),
        ("drum-free ambient", ["ambient"]),
        ("a drumless jazz trio", ["jazz"]),
        ("flute instead of violin, with cello", ["flute", "cello"]),
        ("not only piano but also organ", ["piano", "organ"]),
        ("neither piano nor organ, with harp", ["harp"]),
        ("free of percussion", []),
    ],
)
def test_negated_concepts_do_not_count(prompt: str, expected: list[str]) -> None:
    assert named(prompt) == expected


def test_concepts_in_synthetic_captions_are_true() -> None:
    """All concepts are true, and nearly every caption names some."""
    clips = SyntheticCorpus(400, 5.0, seed=5, flawed_fraction=0.0, miscaptioned_fraction=0.0).clips
    found = [concepts_in(clip.caption, VOCABULARY) for clip in clips]
    wrong = [(c.caption, x) for c, own in zip(clips, found, strict=True) for x in own if not holds(x, c.truth)]
    assert wrong == []
    assert sum(map(len, found)) > 5 * len(clips)
    genres = [sum(x.category == "genre" for x in own) for own in found]
    assert max(genres) == 1 and sum(genres) > 0.9 * len(clips)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80))
def test_any_text_can_be_read(text: str) -> None:
    found = concepts_in(text, VOCABULARY)
    assert len(set(found)) == len(found)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["piano", "cello", "slow", "jazz", "organ"]), min_size=1, max_size=4, unique=True))
def test_no_before_a_list_with_or_negates_all_of_it(items: list[str]) -> None:
    listed = items[0] if len(items) == 1 else f"{', '.join(items[:-1])} or {items[-1]}"
    assert named(f"no {listed}") == []
    assert named(f"flute, no {listed}") == ["flute"]
    assert set(named(f"with {listed}")) == set(items)


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "words.yaml"
    file.write_text(text)
    return file


def test_a_custom_vocabulary(tmp_path: Path) -> None:
    own = load_vocabulary(
        written(tmp_path, "gear:\n  text: 'a {}'\n  per_clip: 1\n  concepts:\n    theremin: [theremin, ether wave]\n")
    )
    assert [str(c) for c in concepts_in("Ether-waves, piano, 120 bpm in A minor", own)] == ["gear: theremin"]
    assert own.digest != VOCABULARY.digest == load_vocabulary().digest


CATEGORY = "genre:\n  text: '{} music'\n  per_clip: 1\n  concepts:\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file: Input should be"),
        ("{}", "names no concepts"),
        ("genre: [", "not readable as a vocabulary"),
        (CATEGORY + "    rock: []\n", "genre.concepts.rock.words"),
        (CATEGORY + "    rock: {word: [rock]}\n", "genre.concepts.rock"),
        (CATEGORY + "    rock: [rock]\n    pop: [pop, Rock]\n", "'Rock' names both genre: rock and genre: pop"),
        (CATEGORY + "    rock: ['!']\n", "has no letters"),
        (CATEGORY + "    rock: {words: [rock], any: [metal]}\n", "any names 'metal'"),
        (CATEGORY + "    rock: {words: [rock], bpm: [1, 2]}\n", "nothing else, has a bpm range"),
        (CATEGORY.replace("per_clip", "heard") + "    rock: [rock]\n", "'heard' is now 'per_clip'"),
        (CATEGORY.replace("{} ", "") + "    rock: [rock]\n", "text must hold {} once"),
    ],
)
def test_a_malformed_vocabulary_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(EvaluationError) as error:
        load_vocabulary(written(tmp_path, text))
    assert message in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(EvaluationError, match="does not exist"):
        load_vocabulary(tmp_path / "nowhere.yaml")
