"""The example of a score injection trains, generates, and is found again by the name in a model's config."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from plaudit.backbone import cross_load
from plaudit.errors import ModelError
from tests.backbone.tiny import inputs, tiny_config, tiny_model, wake
from tests.examples.small import EXAMPLES, SETTINGS, saved_and_loaded, train

NAME = f"{EXAMPLES / 'injection.py'}:BlockwiseAdd"


def test_before_training_any_score_leaves_the_network_unconditioned() -> None:
    latents, text, t = inputs(3)
    scores = torch.tensor([-3.0, 5.0, torch.nan])
    assert torch.equal(wake(tiny_model(NAME))(latents, text, t, scores), wake(tiny_model())(latents, text, t))


def test_it_trains_and_the_loaded_model_generates_by_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(NAME)
    before = {name: parameter.clone() for name, parameter in model.score.named_parameters()}
    losses = train(model)
    assert losses[-1] < 0.8 * losses[0]
    assert all(not torch.equal(parameter, before[name]) for name, parameter in model.score.named_parameters()
               if name != "embedder.null")  # fmt: skip
    monkeypatch.chdir(tmp_path)
    music = saved_and_loaded(tmp_path / "model", model)
    assert music.config.backbone.injection == NAME
    high, low = (music.generate("a", 1, SETTINGS.changed(score=score)) for score in (2.0, -2.0))
    assert torch.isfinite(high).all() and high.mean() > low.mean()


def test_weights_of_another_injection_load_into_it() -> None:
    model, report = cross_load(tiny_model("global_adaln").state_dict(), tiny_config(NAME))
    assert report.new == ["score.weight"] and report.unused == []
    assert torch.equal(model.score.weight, torch.ones(3))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (NAME.replace("BlockwiseAdd", "BlockwiseAd"), "did you mean BlockwiseAdd"),
        (NAME.replace("injection.py", "injections.py"), "there is no file"),
        (NAME.replace("BlockwiseAdd", "torch"), "has no embed"),
    ],
)
def test_a_wrong_name_is_one_line(name: str, says: str) -> None:
    with pytest.raises(ModelError, match=says) as error:
        tiny_config(name)
    assert "\n" not in str(error.value)
