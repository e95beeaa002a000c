"""Tables as spreadsheets and people write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.errors import CorpusError, PromptError
from plaudit.tables import read_prompts, read_table

PROMPTS = ["sad, slow; piano", "two\nlines", 'a "quoted" word', "tab\there", "Größe 大 [verse] :smile:", "007", "no"]


def rows(path: Path, required: tuple[str, ...] = ("file", "prompt")) -> list[dict[str, str]]:
    return list(read_table(path, required))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("spare", [0, 2])
def test_every_delimiter_mark_and_empty_column_gives_the_same_rows(
    tmp_path: Path, delimiter: str, end: str, mark: str, spare: int
) -> None:
    path = tmp_path / "table.csv"
    quoted = ['"' + prompt.replace('"', '""') + '"' for prompt in PROMPTS]
    lines = [delimiter.join(["file", "prompt"] + [""] * spare)]
    lines += [delimiter.join([f"{i}.wav", prompt] + [""] * spare) for i, prompt in enumerate(quoted)]
    lines.append(delimiter * (1 + spare))
    path.write_bytes((mark + end.join(lines) + end).encode())
    assert rows(path) == [{"file": f"{i}.wav", "prompt": prompt} for i, prompt in enumerate(PROMPTS)]


def test_columns_of_other_names_decide_where_none_is_known(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("track;words, as sung\n1;la\n")
    assert rows(path, ("track",)) == [{"track": "1", "words, as sung": "la"}]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("file,prompt,,\na.wav,sad, slow\n", "line 2: 3 values for 2 columns"),
        ("file,,prompt\na.wav,,x\n", None),
        ("file,,,prompt\na.wav,,,x\n", "more than once"),
        ("file;prompt\na.wav\n", "line 2: 1 values for 2 columns"),
        (",,\n", "is empty"),
        ("file\tprompt\n\"open\tx\n", "not CSV"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str, reason: str | None) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    if reason is None:
        assert rows(path)[0]["prompt"] == "x"
        return
    with pytest.raises(CorpusError, match=reason) as error:
        rows(path)
    assert "\n" not in str(error.value)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from('file,;\t"\n\r caption\0é'), max_size=40))
def test_any_text_is_a_table_or_an_error_of_one_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("tables") / "table.csv"
    path.write_text(text)
    try:
        rows(path)
    except CorpusError as error:
        assert "\n" not in str(error)


def test_prompts_of_a_json_list(tmp_path: Path) -> None:
    file = tmp_path / "prompts.json"
    file.write_text('[{"prompt_id": 0, "prompt": " calm "}, {"caption": "loud\u00e9"}, "fast"]')
    assert read_prompts(file) == ["calm", "loud\u00e9", "fast"]
    for text, reason in (
        ("[1]", "entry 1 is neither a text nor an object with a prompt"),
        ('[{"text": "x"}]', "entry 1 is neither"),
        ('["a", " "]', "entry 2: the prompt is empty"),
        ("[]", "is no JSON list of prompts"),
        ('{"prompt": "x"}', "is no JSON list of prompts"),
        ("[", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
    ):
        file.write_text(text)
        with pytest.raises(PromptError, match=reason):
            read_prompts(file)
