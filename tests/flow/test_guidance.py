from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from plaudit.flow import Branch, branches, combine, integrate, step_progress
from plaudit.generate.settings import Boundaries, Guidance

VELOCITIES: dict[Branch, torch.Tensor] = {
    "conditional": torch.tensor([3.0, -1.0]),
    "text": torch.tensor([2.0, 0.5]),
    "negative": torch.tensor([-1.0, 4.0]),
}


def guided(guidance: Guidance, scored: bool = True) -> torch.Tensor:
    """What a network whose passes give VELOCITIES would be guided to."""
    passes = {branch: VELOCITIES[branch] for branch in branches(guidance, scored)}
    return combine(guidance, passes, torch.tensor([0.5, 2.0]), torch.tensor([0.7]))


def test_joint_guidance_is_the_published_formula() -> None:
    expected = 4.5 * VELOCITIES["conditional"] - 3.5 * VELOCITIES["negative"]
    torch.testing.assert_close(guided(Guidance(weight=4.5)), expected)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_at_or_below_a_weight_of_one_only_the_conditional_pass_is_run(weight: float) -> None:
    guidance = Guidance(weight=weight)
    assert branches(guidance, scored=True) == ("conditional",)
    assert torch.equal(guided(guidance), VELOCITIES["conditional"])


@given(st.floats(0, 8), st.floats(0, 8))
@settings(max_examples=50, deadline=None)
def test_separate_guidance_is_its_formula_whatever_passes_it_spares(text: float, reward: float) -> None:
    guidance = Guidance(mode="separate", text_weight=text, reward_weight=reward)
    conditional, alone, negative = VELOCITIES["conditional"], VELOCITIES["text"], VELOCITIES["negative"]
    expected = negative + text * (alone - negative) + reward * (conditional - alone)
    torch.testing.assert_close(guided(guidance), expected, atol=1e-4, rtol=1e-5)


@given(st.floats(0, 8))
@settings(max_examples=20, deadline=None)
def test_separate_guidance_with_equal_weights_is_joint_guidance(weight: float) -> None:
    separate = Guidance(mode="separate", text_weight=weight, reward_weight=weight)
    expected = weight * VELOCITIES["conditional"] + (1 - weight) * VELOCITIES["negative"]
    torch.testing.assert_close(guided(separate), expected, atol=1e-4, rtol=1e-5)
    assert "text" not in branches(separate, scored=True)


def test_separate_guidance_without_a_score_guides_by_the_text_alone() -> None:
    guidance = Guidance(mode="separate", text_weight=3.0, reward_weight=9.0)
    assert branches(guidance, scored=False) == ("conditional", "negative")
    expected = 3 * VELOCITIES["conditional"] - 2 * VELOCITIES["negative"]
    torch.testing.assert_close(guided(guidance, scored=False), expected)


@given(st.floats(0, 1), st.floats(1.5, 8))
@settings(max_examples=25, deadline=None)
def test_rescaling_brings_a_clips_spread_back_and_nothing_else(rescale: float, weight: float) -> None:
    generator = torch.Generator().manual_seed(0)
    velocities: dict[Branch, torch.Tensor] = {
        "conditional": torch.randn(2, 5, 3, generator=generator),
        "negative": torch.randn(2, 5, 3, generator=generator),
    }
    x, t = torch.randn(2, 5, 3, generator=generator), torch.tensor([0.9, 0.3])
    plain, output, conditional = (
        x - t[:, None, None] * v
        for v in (
            combine(Guidance(weight=weight), velocities, x, t),
            combine(Guidance(weight=weight, rescale=rescale), velocities, x, t),
            velocities["conditional"],
        )
    )
    expected = (1 - rescale) * plain.std((1, 2)) + rescale * conditional.std((1, 2))
    torch.testing.assert_close(output.std((1, 2)), expected, atol=1e-5, rtol=1e-4)
    scaled = output / output.std((1, 2), keepdim=True)
    torch.testing.assert_close(scaled, plain / plain.std((1, 2), keepdim=True), atol=1e-4, rtol=1e-4)


def test_rescaled_guidance_removes_all_noise() -> None:
    """With exact passes for latents that are all the same clip, sampling ends at that clip, with its spread."""
    generator = torch.Generator().manual_seed(0)
    clip, other = torch.randn(2, 40, 8, generator=generator), torch.randn(2, 40, 8, generator=generator)

    def velocity(x: torch.Tensor, t: float, step: int) -> torch.Tensor:
        passes: dict[Branch, torch.Tensor] = {"conditional": (x - clip) / t, "negative": (x - other) / t}
        return combine(Guidance(weight=3.0, rescale=1.0), passes, x, torch.tensor([t]))

    sample = integrate(velocity, torch.randn(2, 40, 8, generator=generator), 8)
    torch.testing.assert_close(sample.std((1, 2)), clip.std((1, 2)), atol=1e-4, rtol=1e-4)
    extrapolated = 3 * clip - 2 * other
    cosine = torch.nn.functional.cosine_similarity(sample.flatten(1), extrapolated.flatten(1))
    assert (cosine > 0.99).all()


@pytest.mark.parametrize("mode", ["joint", "separate"])
@pytest.mark.parametrize("scored", [True, False])
@given(weight=st.floats(0, 8), other=st.floats(0, 8), rescale=st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_equal_branches_cancel(mode: str, scored: bool, weight: float, other: float, rescale: float) -> None:
    """Guidance extrapolates from differences: where passes agree there is nothing to add, nor to rescale."""
    velocity = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1))
    weights = {"weight": weight, "text_weight": weight, "reward_weight": other}
    guidance = Guidance.model_validate({"mode": mode, "rescale": rescale, **weights})
    x, t = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(2)), torch.tensor([0.6])
    output = combine(guidance, {branch: velocity for branch in branches(guidance, scored)}, x, t)
    torch.testing.assert_close(output, velocity, atol=2e-5, rtol=0)


@pytest.mark.parametrize("rescale", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("scored", [True, False])
def test_a_weight_of_one_is_the_conditional_pass_in_every_mode(rescale: float, scored: bool) -> None:
    for guidance in (
        Guidance(weight=1.0, rescale=rescale),
        Guidance(mode="separate", text_weight=1.0, reward_weight=1.0, rescale=rescale),
    ):
        assert branches(guidance, scored) == ("conditional",)
        assert torch.equal(guided(guidance, scored), VELOCITIES["conditional"])


def test_an_interval_says_at_which_steps_it_begins_and_ends() -> None:
    guidance = Guidance(schedule="interval", start=0.25, stop=0.6)
    progress = step_progress(8)
    assert guidance.switches(progress) == {2, 5}  # progress 0.25 and 0.625
    assert Guidance(schedule="interval", start=0.0, stop=1.0).switches(progress) == set()
    assert Guidance().switches(progress) == Guidance(schedule="linear").switches(progress) == set()


def guided_steps(start: float, stop: float, boundaries: Boundaries) -> list[int]:
    """Of 25 steps."""
    guidance = Guidance(weight=5.0, schedule="interval", start=start, stop=stop)
    weights = [guidance.at(progress, boundaries).weight for progress in step_progress(25, boundaries)]
    return [step for step, weight in enumerate(weights) if weight == 5.0]


def test_an_interval_at_the_published_steps_and_at_ours() -> None:
    assert guided_steps(0.2, 0.8, "published") == list(range(6, 20))  # 14 steps, since times are rounded to float32
    assert guided_steps(0.2, 0.8, "exact") == list(range(5, 20))
    assert guided_steps(0.0, 1.0, "published") == guided_steps(0.0, 1.0, "exact") == list(range(25))
    assert step_progress(25, "published") == pytest.approx(step_progress(25), abs=1e-7)


@given(st.floats(0, 8), st.floats(0, 8))
@settings(max_examples=25, deadline=None)
def test_a_floor_is_the_weight_outside_an_interval_and_at_the_end_of_a_line(weight: float, floor: float) -> None:
    interval = Guidance(weight=weight, schedule="interval", start=0.2, stop=0.6, floor=floor)
    assert [interval.at(p).weight for p in (0.0, 0.9)] == pytest.approx([floor, floor])
    assert interval.at(0.4).weight == pytest.approx(weight)
    line = Guidance(weight=weight, schedule="linear", floor=floor)
    assert [line.at(p).weight for p in (0.0, 1.0)] == pytest.approx([weight, floor])
    assert line.at(0.25).weight == pytest.approx(weight + (floor - weight) * 0.25)  # hi + (lo - hi) p, as published


def test_a_linear_schedule_anneals_to_no_guidance() -> None:
    guidance = Guidance(weight=5.0, schedule="linear")
    assert guidance.at(0.0).weight == 5.0
    assert guidance.at(0.5).weight == 3.0
    assert guidance.at(1.0).weight == 1.0


def test_an_interval_guides_inside_and_only_there() -> None:
    guidance = Guidance(weight=5.0, schedule="interval", start=0.2, stop=0.6)
    assert [guidance.at(p).weight for p in (0.0, 0.2, 0.4, 0.6, 0.9)] == [1.0, 5.0, 5.0, 1.0, 1.0]
    assert branches(guidance.at(0.9), scored=True) == ("conditional",)


def test_a_schedule_moves_both_separate_weights() -> None:
    guidance = Guidance(mode="separate", text_weight=3.0, reward_weight=7.0, schedule="linear").at(0.5)
    assert (guidance.text_weight, guidance.reward_weight) == (2.0, 4.0)


@pytest.mark.parametrize(
    "values",
    [
        {"weight": -1},
        {"weight": float("nan")},
        {"mode": "both"},
        {"schedule": "cosine"},
        {"schedule": "interval", "start": 0.6, "stop": 0.4},
        {"stop": 1.5},
        {"wait": 3},
    ],
)
def test_bad_values_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Guidance.model_validate(values)
