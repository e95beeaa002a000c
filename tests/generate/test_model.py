from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from plaudit.backbone import build_backbone
from plaudit.errors import ModelError, PromptError, RecipeError
from plaudit.generate.model import TextToMusic, read_model_config, save_model
from plaudit.generate.settings import Execution, Guidance, SamplingSettings
from plaudit.storage import load_module
from tests.generate.tiny import FoldingCodec, HashedText, tiny_music

SETTINGS = SamplingSettings(precision="no", steps=5, guidance=Guidance(weight=4.0), score=2.0, prefix="good ")


def test_a_clip_is_the_same_in_any_batch() -> None:
    model = tiny_music()
    prompts, seeds = ["piano", "drums", "piano", "bells", "bass"], [3, 4, 5, 6, 7]
    whole = model.generate(prompts, seeds, SETTINGS)
    assert whole.shape == (5, 1300)
    for size in (1, 2, 3):
        output = model.generate(prompts, seeds, SETTINGS, Execution(batch=size))
        torch.testing.assert_close(output, whole, atol=1e-5, rtol=0)
    alone = model.generate(["bells"], [6], SETTINGS)
    torch.testing.assert_close(alone[0], whole[3], atol=1e-5, rtol=0)


def test_seed_prompt_and_prefix_each_change_the_clip() -> None:
    model = tiny_music()
    base = model.generate(["piano"], [0], SETTINGS)
    assert torch.equal(base, model.generate(["piano"], [0], SETTINGS))
    assert not torch.allclose(base, model.generate(["piano"], [1], SETTINGS))
    assert not torch.allclose(base, model.generate(["drums"], [0], SETTINGS))
    assert not torch.allclose(base, model.generate(["piano"], [0], SETTINGS.changed(prefix="")))
    assert torch.equal(base, model.generate(["good piano"], [0], SETTINGS.model_copy(update={"prefix": ""})))


def test_each_distinct_prompt_is_read_once() -> None:
    model = tiny_music()
    reader = model.text_encoder
    assert isinstance(reader, HashedText)
    model.generate(["a", "b", "a", "a"], [0, 1, 2, 3], SETTINGS, Execution(batch=2))
    assert reader.read == [["good a", "good b"], [SETTINGS.negative_prompt]]


def test_clips_arrive_batch_by_batch_and_progress_is_reported() -> None:
    model = tiny_music()
    calls: list[tuple[int, int]] = []
    twos = Execution(batch=2)
    model.generate(["a", "b", "c"], [0, 1, 2], SETTINGS, twos, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    first = next(model.stream(["a", "b", "c"], [0, 1, 2], model.sampler(SETTINGS, Execution(batch=1))))
    torch.testing.assert_close(first, model.generate(["a"], [0], SETTINGS)[0])


def test_prompts_alone_are_enough() -> None:
    model = tiny_music()
    model.config = replace(model.config, sampling=SETTINGS)
    both = model.generate(["a", "b"], [0, 1], SETTINGS)
    assert torch.equal(model.generate(["a", "b"]), both)
    assert torch.equal(model.generate("a"), model.generate(["a"])) and model.generate("a").shape == both[:1].shape
    assert torch.equal(model.generate(["a", "b"], seeds=5), model.generate(["a", "b"], [5, 6]))
    assert torch.equal(model.generate("a", np.int64(5)), model.generate("a", np.array([5])))


def test_what_is_not_read_of_a_prompt_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_music()
    monkeypatch.setattr(HashedText, "truncation", lambda self, prompt: prompt[9:], raising=False)
    with pytest.warns(UserWarning, match="of prompt 'a prompt that is too long', that is too long"):
        model.generate("a prompt that is too long", settings=SETTINGS.model_copy(update={"prefix": ""}))


@pytest.mark.parametrize("prompts, seeds", [([], []), (["a"], [1, 2])])
def test_bad_requests_are_refused(prompts: list[str], seeds: list[int]) -> None:
    with pytest.raises(PromptError):
        tiny_music().generate(prompts, seeds, SETTINGS)


def test_a_saved_model_comes_back_as_it_was(tmp_path: Path) -> None:
    model = tiny_music("film")
    model.config = replace(model.config, sampling=SETTINGS)
    save_model(tmp_path / "model", model)
    config = read_model_config(tmp_path / "model")
    assert config == model.config
    backbone = build_backbone(config.backbone)
    load_module(tmp_path / "model", backbone)
    again = TextToMusic(backbone.eval(), FoldingCodec(), HashedText(), config)
    assert torch.equal(again.generate(["a"], [1], SETTINGS), model.generate(["a"], [1], SETTINGS))


def test_a_damaged_or_foreign_config_is_one_clear_line(tmp_path: Path) -> None:
    save_model(tmp_path, tiny_music())
    path = tmp_path / "config.json"
    good = json.loads(path.read_text())
    for broken, says in (
        ("{", "not valid JSON"),
        ("[1]", "does not describe"),
        (json.dumps({**good, "vocoder": "x"}), "vocoder"),
        (json.dumps({**good, "made": {}}), "'made' is now 'provenance'"),
        (json.dumps({**good, "codec": "embedded"}), "'embedded' are now 'synthetic'"),
        (json.dumps({k: v for k, v in good.items() if k != "codec"}), "codec"),
        (json.dumps({**good, "backbone": {**good["backbone"], "depth": 0}}), "depth"),
        (json.dumps({**good, "sampling": {**good["sampling"], "steps": 0}}), "sampling"),
    ):
        path.write_text(broken)
        with pytest.raises(ModelError, match=says) as error:
            read_model_config(tmp_path)
        assert "\n" not in str(error.value)
    with pytest.raises(ModelError, match="does not exist"):
        read_model_config(tmp_path / "nowhere")


def test_parts_that_do_not_fit_are_refused() -> None:
    model = tiny_music()

    class Wider(FoldingCodec):
        latent_dim = 8

    with pytest.raises(ModelError, match="folding"):
        TextToMusic(model.backbone, Wider(), model.text_encoder, model.config)


def test_changed_settings_are_validated() -> None:
    changed = SETTINGS.changed(steps=7, weight=2.0, score=None)
    assert (changed.steps, changed.guidance.weight, changed.score) == (7, 2.0, 2.0)
    assert SETTINGS.steps == 5
    for changes in ({"steps": 0}, {"weight": -1.0}, {"solver": "rk45"}, {"speed": 3}):
        with pytest.raises(RecipeError, match="sampling"):
            SETTINGS.changed(**changes)
