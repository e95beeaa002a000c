"""A released TuneJury head against the scores that it gave where it was made."""

from __future__ import annotations

import pytest
import torch

from plaudit.published import read_released
from plaudit.reward.tunejury import head_from_published
from tests.parity.folder import FOLDER, assert_equal, fixtures_of, load


@pytest.mark.parametrize("name", fixtures_of("tunejury_head"))
def test_the_head_gives_the_published_scores(name: str) -> None:
    fixture = load(name)
    head = head_from_published(read_released(FOLDER / fixture.config["checkpoint"]))
    assert head.input_dim == fixture.config["input_dim"]
    assert list(head.hidden) == fixture.config["hidden_layers"]
    with torch.inference_mode():
        scores = head(fixture.inputs["features"])
    assert_equal(scores, fixture.outputs["reward"][:, 0], 1e-4)
