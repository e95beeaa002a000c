"""Settings from YAML: texts stay what was given, numbers are finite and bounded, any input is settings or one line."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given, settings
from pydantic import Field

from plaudit.api import GenerateSettings
from plaudit.errors import RecipeError
from plaudit.evaluate.concepts.vocabulary import load_vocabulary
from plaudit.recipe import Recipe, load_recipe
from plaudit.settings import Settings, read_yaml, validated, with_changes
from tests.mutations import Change, mutated, mutations

TEXTS = [
    *("2024", "007", "0x1F", "1_000", "1e3", "1.50", ".5", "-0", "1:30", "2024-05-01", "2024-99-99"),
    *("no", "yes", "on", "Off", "TRUE", "null", "~", "NULL", ".inf", ".nan", "=", "<<"),
]
"""What YAML reads as something else than a text."""
TYPED = [*TEXTS, "[verse] sad", "a: b", "a: b: c", "sad # 3", "*x", "&x", "@x", "%x", "{}", "[]", "", ":smile:", "- x"]
"""And what else people type after --set."""


class Section(Settings):
    text: str = ""
    path: Path = Path(".")
    maybe: str | None = "x"
    number: float = 0.0
    whole: int = 0
    flag: bool = False
    texts: tuple[str, ...] = ()
    named: dict[str, int] = Field(default_factory=dict)
    words: dict[str, str] = Field(default_factory=dict)
    choice: Literal["no", "yes", "007"] = "no"
    either: int | Literal["auto"] = 1


def read(text: str) -> Section:
    return validated(Section, read_yaml(text) or {}, "here")


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_in_a_file_is_the_text_that_was_given(text: str) -> None:
    section = read(f"text: {text}\npath: {text}\ntexts: [{text}, x]\nwords: {{{text}x: {text}}}\n")
    assert (section.text, section.path, section.texts) == (text, Path(text), (text, "x"))
    assert section.words == {f"{text}x": text}


@pytest.mark.parametrize("text", TYPED)
def test_a_text_that_was_typed_is_the_text_that_was_given(text: str) -> None:
    section = validated(Section, with_changes({}, [f"text={text}", f"path={text}"], "here"), "here")
    assert (section.text, section.path) == (text, Path(text))


def test_quotes_null_and_choices() -> None:
    assert read("text: '007'\nmaybe: null\nchoice: no\n").model_dump(include={"text", "maybe", "choice"}) == {
        "text": "007",
        "maybe": None,
        "choice": "no",
    }
    assert read("choice: 007\nmaybe: 12\neither: auto\n").choice == "007"
    assert read("either: 3\n").either == 3
    changed = with_changes({}, ["text='a # b'", 'maybe="null"', "choice=yes"], "here")
    assert validated(Section, changed, "here").model_dump(include={"text", "maybe", "choice"}) == {
        "text": "a # b",
        "maybe": "null",
        "choice": "yes",
    }
    assert validated(Section, with_changes({}, ["maybe=null"], "here"), "here").maybe is None


@pytest.mark.parametrize(("text", "value"), [("1e3", 1000.0), ("1e-3", 0.001), ("1_000", 1000.0), ("3", 3.0)])
def test_numbers_are_numbers(text: str, value: float) -> None:
    assert read(f"number: {text}").number == value
    assert validated(Section, with_changes({}, [f"number={text}"], "here"), "here").number == value


def test_mappings_merge_and_lists_replace() -> None:
    changed = with_changes({"named": {"a": 1}, "texts": ["x"]}, ["named={b: 2}", "named.c=3", "texts=[1, 007]"], "here")
    section = validated(Section, changed, "here")
    assert (section.named, section.texts) == ({"a": 1, "b": 2, "c": 3}, ("1", "007"))
    assert validated(Section, with_changes({}, ["named={a: 1}", "named.b=2"], "here"), "here").named == {"a": 1, "b": 2}
    before = {"named": {"a": 1}}
    with_changes(before, ["named.a=2"], "here")
    assert before == {"named": {"a": 1}}


@pytest.mark.parametrize("change", ["number", "=", "=3", "a..b=3", ".=3", ""])
def test_a_change_without_key_or_value_is_one_line(change: str) -> None:
    with pytest.raises(RecipeError, match=r"KEY\.PATH=VALUE"):
        with_changes({}, [change], "here")


@pytest.mark.parametrize("number", ["inf", "-inf", "nan", ".inf", ".nan", "1e39", "1e999", "-1e39"])
@pytest.mark.parametrize(
    "key",
    [
        *("sampling.score", "sampling.guidance.weight", "sampling.shift", "sampling.piece.seconds", "corpus.seconds"),
        *("stages.crpo.beta", "stages.sft.train.learning_rate", "stages.expert_iteration.score", "post.ceiling"),
        *(
            "training_loop.max_loss_ratio",
            "evaluate.sweep_scores",
            "post.fade_ms",
            "stages.pairs.min_margin",
            "sampling.steps",
        ),
    ],
)
def test_numbers_beyond_use_are_one_line(key: str, number: str) -> None:
    value = f"[{number}]" if key == "evaluate.sweep_scores" else number
    with pytest.raises(RecipeError, match=key.rpartition(".")[2]) as error:
        load_recipe("smoke", [f"{key}={value}"])
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize("seed", ["18446744073709551616", "9223372036854775808", "-1", "1.5", "1e30", "9" * 5000])
@pytest.mark.parametrize("key", ["corpus.seed", "votes.seed", "reward.seed", "stages.pairs.seed", "evaluate.seed"])
def test_seeds_are_bounded(key: str, seed: str) -> None:
    with pytest.raises(RecipeError, match="seed") as error:
        load_recipe("smoke", [f"{key}={seed}"])
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_a_folder_may_be_called_by_a_number(tmp_path: Path) -> None:
    changes = ["corpus.kind=folder", "corpus.folder=2024", "corpus.table=007/1e3.csv", "reward.kind=load"]
    recipe = load_recipe("smoke", changes)
    assert (recipe.corpus.folder, recipe.corpus.table) == (Path("2024"), Path("007/1e3.csv"))
    path = tmp_path / "copy.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(str(path)) == recipe


@pytest.mark.parametrize("text", TYPED)
def test_prompts_survive_a_recipe_that_is_written_and_read(tmp_path: Path, text: str) -> None:
    recipe = load_recipe("smoke").model_copy(
        update={
            "training_loop": load_recipe("smoke").training_loop.model_copy(update={"sample_prompts": (text, "大 é")})
        }
    )
    path = tmp_path / "copy.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(str(path)).training_loop.sample_prompts == (text, "大 é")


@pytest.mark.parametrize("prefix", ["[verse]", "007", "no", "a: b", "${x}", "null"])
def test_generation_takes_texts_as_given(prefix: str) -> None:
    values = with_changes({}, [f"prefix={prefix}", f"sampling.negative_prompt={prefix}"], "settings")
    changed = validated(GenerateSettings, values, "settings")
    assert (changed.sampling.prefix, changed.sampling.negative_prompt) == (prefix, prefix)


@pytest.mark.parametrize(
    "text",
    [
        *("", "- a", "x", "a: [", "a: 1\na: 2", "? [a]\n: b", "!!python/object:os.system {}", "\0", "\ud800", "a: *b"),
        *("a: !!int x", "!!set {a}", "a: !!binary x", "&a [*a]", "name: &a {b: *a}", "[" * 3000, "<<: 3", "<<: [1]"),
    ],
)
def test_what_is_no_recipe_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(RecipeError) as error:
        load_recipe(str(path))
    assert "\n" not in str(error.value)


def test_a_recipe_that_may_not_be_read_or_has_no_name_is_one_line(tmp_path: Path) -> None:
    for wrong in (str(tmp_path), "x" * 5000, "a\0b"):
        with pytest.raises(RecipeError):
            load_recipe(wrong)


@cache
def shipped(name: str) -> dict[str, Any]:
    """The values of a shipped recipe; `mutated` copies them."""
    return load_recipe(name).model_dump(mode="json")


@pytest.mark.parametrize("name", ["demo", "smoke", "folder", "nft", "lora"])
@settings(max_examples=50, deadline=None)
@given(changes=mutations())
def test_any_recipe_is_settings_or_an_error_of_one_line(name: str, changes: list[Change]) -> None:
    values = mutated(shipped("smoke" if name == "folder" else name), changes)
    try:
        validated(Recipe, values, "recipe")
    except RecipeError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000


@settings(max_examples=50, deadline=None)
@given(changes=mutations())
def test_any_recipe_file_is_settings_or_an_error_of_one_line(
    tmp_path_factory: pytest.TempPathFactory, changes: list[Change]
) -> None:
    values = mutated(shipped("smoke"), changes)
    path = tmp_path_factory.mktemp("recipes") / "recipe.yaml"
    try:
        path.write_bytes(yaml.safe_dump(values, allow_unicode=True).encode(errors="surrogatepass"))
    except (yaml.YAMLError, ValueError):
        return
    try:
        load_recipe(str(path))
    except RecipeError as error:
        assert "\n" not in str(error)


def test_a_vocabulary_may_hold_any_word(tmp_path: Path) -> None:
    path = tmp_path / "words.yaml"
    path.write_text("genre:\n  text: a {}\n  per_clip: 1\n  concepts:\n    no: [no wave, no]\n    808: [808, 0808]\n")
    concepts = load_vocabulary(path).categories["genre"].concepts
    assert [concept.name for concept in concepts] == ["no", "808"]
