"""Concept coverage by an audio language model: its answers, the tags it is asked about, and the command."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

from plaudit.audio import write_wav
from plaudit.errors import CorpusError, EvaluationError
from plaudit.evaluate.concepts.language_model import AudioLanguageModel, load_audio_language_model
from plaudit.evaluate.concepts.vocabulary import load_vocabulary
from plaudit.evaluate.embeddings import AudioEncoder, clip_from_wave
from plaudit.evaluate.evaluation import Evaluators
from plaudit.evaluate.metrics import METRICS, ClipValues, MetricInputs, cautions
from plaudit.evaluate.metrics.challenge_concepts import QUESTIONS, read_tags, tags_in
from plaudit.loading import CLAPS, load_reward
from tests.cli.command import plaudit
from tests.evaluate.concepts.tiny_language_model import WORDS, save_tiny_model

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder: Path) -> AudioLanguageModel:
    return load_audio_language_model(str(folder), CPU)


def tone(hertz: float, rate: int = 16000) -> torch.Tensor:
    return 0.3 * torch.sin(2 * torch.pi * hertz * torch.arange(rate) / rate)


def test_a_margin_is_the_likelier_spelling_of_yes_against_that_of_no(model: AudioLanguageModel, folder: Path) -> None:
    question, wave = QUESTIONS["genre"].format("rock"), tone(440)
    processor = AutoProcessor.from_pretrained(folder)
    network = Qwen2AudioForConditionalGeneration.from_pretrained(folder).eval()
    chat = [{"role": "user", "content": [{"type": "audio", "audio": "x"}, {"type": "text", "text": question}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert question in text and text.endswith("assistant\n")
    with torch.no_grad():
        inputs = processor(text=text, audio=[wave.numpy()], sampling_rate=16000, return_tensors="pt")
        logits = network(**inputs).logits[0, -1]
    ids = {word: processor.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "Yes", "no", "No")}
    expected = max(logits[ids["yes"]], logits[ids["Yes"]]) - max(logits[ids["no"]], logits[ids["No"]])
    assert model.margins(wave, [question]) == [pytest.approx(float(expected), abs=1e-5)]


def test_answers_depend_on_sound_and_question(model: AudioLanguageModel) -> None:
    rock, calm = QUESTIONS["genre"].format("rock"), QUESTIONS["mood"].format("calm")
    first = model.margins(tone(440), [rock, calm])
    assert first[0] != pytest.approx(first[1], abs=1e-4)
    assert model.margins(tone(3000), [rock])[0] != pytest.approx(first[0], abs=1e-5)
    assert model.margins(tone(440), [calm, rock]) == pytest.approx(first[::-1], abs=1e-5)


def test_what_is_no_audio_language_model_is_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="cannot be loaded") as error:
        load_audio_language_model(str(tmp_path / "nothing"), CPU)
    assert "\n" not in str(error.value)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_audio", "architectures": ["Unheard"]}))
    with pytest.raises(EvaluationError, match="has no class"):
        load_audio_language_model(str(tmp_path), CPU)
    silent = save_tiny_model(tmp_path / "silent", [word for word in WORDS if word.lower() != "yes"])
    with pytest.raises(EvaluationError, match="none of 'yes', 'Yes'"):
        load_audio_language_model(str(silent), CPU)


class Certain:
    """Says yes to the questions that name one of its words; remembers what it was asked."""

    identity, sample_rate = "certain", 8000

    def __init__(self, *words: str) -> None:
        self.words, self.asked = words, list[tuple[int, str]]()

    def margins(self, wave: torch.Tensor, questions: Sequence[str]) -> list[float]:
        self.asked += [(len(wave), question) for question in questions]
        return [1.0 if any(word in question for word in self.words) else -1.0 for question in questions]


def coverage(prompts: list[str], answerer: Certain, tags: dict[str, dict[str, str]] | None = None) -> ClipValues:
    clap = CLAPS.load("synthetic")
    encoder = AudioEncoder("synthetic", "0" * 16, clap)
    evaluators = Evaluators(
        load_reward("synthetic"), encoder, vocabulary=load_vocabulary(), answerer=answerer, tags=tags
    )
    clips = [clip_from_wave(tone(440), 16000, str(n)) for n in range(len(prompts))]
    result = METRICS.load("challenge-concepts").compute(MetricInputs(clips, prompts, evaluators))
    assert isinstance(result, ClipValues)
    return result


def test_coverage_is_the_fraction_of_a_prompts_three_tags() -> None:
    answerer = Certain("jazz", "calm")
    prompts = ["calm jazz with piano and drums", "techno", "something else"]
    result = coverage(prompts, answerer)
    np.testing.assert_allclose(result.values, [2 / 3, 0.0, np.nan])
    assert answerer.asked == [
        (8000, "Is the genre of this music jazz? Answer yes or no."),
        (8000, "Is there piano in this music? Answer yes or no."),
        (8000, "Is the mood of this music calm? Answer yes or no."),
        (8000, "Is the genre of this music techno? Answer yes or no."),
    ]
    assert result.notes == ["genre jazz: yes; instrument piano: no; mood calm: yes", "genre techno: no", ""]
    assert result.summary([0, 1, 2]) == "genre 1 of 2, instrument 0 of 1, mood 1 of 1"


def test_given_tags_are_asked_whatever_the_prompt_says(tmp_path: Path) -> None:
    table = tmp_path / "tags.csv"
    table.write_text("prompt,genre,instrument,mood\na song,samba,cuica,\n")
    tags = read_tags(table)
    assert tags == {"a song": {"genre": "samba", "instrument": "cuica"}}
    assert coverage(["a song"], Certain("cuica"), tags).values.tolist() == [0.5]
    with pytest.raises(EvaluationError, match="has none of the prompt 'jazz'; add a row"):
        coverage(["jazz"], Certain(), tags)
    for text, kind, reason in (
        ("prompt,genre,mood\na,b,c\n", CorpusError, "no column 'instrument'"),
        ("genre,instrument,mood\na,b,c\n", EvaluationError, "line 2 has no prompt"),
        ("prompt,genre,instrument,mood\na,b,c,d\na,b,c,d\n", EvaluationError, "stands there twice"),
    ):
        table.write_text(text)
        with pytest.raises(kind, match=reason):
            read_tags(table)


def test_tags_of_a_text_are_the_first_of_each_kind_that_it_affirms() -> None:
    vocabulary = load_vocabulary()
    assert tags_in("sad piano and cello, no jazz", vocabulary).keys() == {"instrument", "mood"}
    assert tags_in("nothing of the kind", vocabulary) == {}


def test_both_coverages_carry_a_line_that_they_do_not_compare() -> None:
    [line] = cautions(["reward", "concepts", "challenge-concepts"])
    assert "do not compare" in line and cautions(["concepts"]) == [line] and cautions(["reward", "fad"]) == []


def test_the_command_measures_it_with_a_model_by_folder(folder: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for number, hertz in enumerate((220.0, 440.0, 880.0)):
        write_wav(clips / f"{number}.wav", tone(hertz).numpy(), 16000)
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("id,prompt\n0,calm rock with piano\n1,calm piano\n2,rock\n")
    metric = ("--metric", "challenge-concepts", "--no-cache")
    arguments: list[str | Path] = ["evaluate", clips, "--prompts", prompts, *metric]
    done = plaudit(*arguments, "--audio-language-model", folder, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert "do not compare" in done.out
    model = load_audio_language_model(str(folder), CPU)
    with (tmp_path / "out" / "clips.csv").open() as file:
        values = [float(row["challenge-concepts"]) for row in csv.DictReader(file)]
    questions = [QUESTIONS["genre"].format("rock"), QUESTIONS["instrument"].format("piano"),
                 QUESTIONS["mood"].format("calm")]  # fmt: skip
    answers = [margin > 0 for margin in model.margins(tone(220), questions)]
    assert values[0] == pytest.approx(sum(answers) / 3, abs=1e-6)
    without = plaudit(*arguments)
    assert without.code == 1 and "name one with --audio-language-model" in " ".join(without.err.split())
    tags = plaudit(*arguments, "--tags", prompts)
    assert tags.code == 2 and "--audio-language-model" in " ".join(tags.err.split())
