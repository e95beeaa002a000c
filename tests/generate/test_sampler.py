from __future__ import annotations

import threading
import time

import pytest
import torch

from plaudit.backbone.base import Backbone
from plaudit.errors import ModelError, PromptError
from plaudit.flow import Windows, plan_windows
from plaudit.generate.sampling import Sampler, SamplingPlan, initial_noise, sample_latents, velocity_jumps
from plaudit.generate.settings import SOLVERS, Execution, Guidance, SamplingSettings, Solver, Trajectory
from plaudit.types import TextFeatures
from tests.generate.tiny import HashedText, tiny_music

JOINT = SamplingSettings(steps=4, guidance=Guidance(weight=3.0), precision="no")


def features(*prompts: str) -> TextFeatures:
    return HashedText().encode(list(prompts))


def test_noise_of_a_seed_is_the_same_in_any_company() -> None:
    together = initial_noise([7, 8, 9], 4, 5)
    assert torch.equal(initial_noise([8], 4, 5)[0], together[1])
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("mode", ["joint", "separate"])
def test_one_batched_pass_gives_what_passes_apart_give(solver: Solver, mode: str) -> None:
    """The sampler against the plain loop that its formulas describe."""
    model = tiny_music().backbone
    text, negative, noise = features("a", "b"), features("no"), initial_noise([1, 2], 6, 5)
    scores = torch.tensor([0.5, 2.0])
    guidance = Guidance.model_validate({"mode": mode, "weight": 3.0, "text_weight": 2.0, "reward_weight": 5.0})
    output = sample_latents(
        model,
        text,
        negative,
        scores,
        noise,
        SamplingSettings(steps=3, solver=solver, guidance=guidance, precision="no"),
    )

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        times, both = torch.full((2,), t), torch.zeros(2, dtype=torch.long)
        conditional = model(x, text, times, scores)
        alone = model(x, text, times)
        negatives = model(x, negative.rows(both), times)
        if mode == "joint":
            return 3 * conditional - 2 * negatives
        return negatives + 2 * (alone - negatives) + 5 * (conditional - alone)

    x, before = noise, noise
    with torch.no_grad():
        for step in range(3):
            t, h = 1 - step / 3, 1 / 3
            v = here = velocity(x, t)
            if solver == "heun" or (solver == "heun-euler" and step < 2):
                v = (v + velocity(x - h * v, t - h)) / 2
            elif solver == "midpoint":
                v = velocity(x - h / 2 * v, t - h / 2)
            elif solver == "ab2" and step:
                v = 1.5 * v - 0.5 * before
            x, before = x - h * v, here
    torch.testing.assert_close(output, x * 2 + torch.arange(5.0), atol=1e-4, rtol=0)


def test_without_guidance_the_negative_prompt_has_no_effect() -> None:
    model, noise = tiny_music().backbone, initial_noise([1], 6, 5)
    settings = SamplingSettings(steps=2, guidance=Guidance(weight=1.0))
    first, second = (sample_latents(model, features("a"), features(n), None, noise, settings) for n in ("x", "y"))
    assert torch.equal(first, second)
    guided = [sample_latents(model, features("a"), features(n), None, noise, JOINT) for n in ("x", "y")]
    assert not torch.allclose(guided[0], guided[1])


def test_the_score_changes_the_clip_and_its_absence_is_the_null_score() -> None:
    model, noise = tiny_music().backbone, initial_noise([1], 6, 5)
    output = [
        sample_latents(model, features("a"), features(""), scores, noise, JOINT)
        for scores in (torch.tensor([0.0]), torch.tensor([3.0]), None, torch.tensor([torch.nan]))
    ]
    assert not torch.allclose(output[0], output[1])
    torch.testing.assert_close(output[2], output[3])


@pytest.mark.parametrize("solver, evaluations", [("euler", 1), ("ab2", 1), ("heun", 2), ("midpoint", 2)])
def test_where_guidance_is_off_only_the_conditional_branch_is_run(solver: Solver, evaluations: int) -> None:
    model = tiny_music().backbone
    rows: list[int] = []
    model.final.register_forward_hook(lambda module, given, output: rows.append(len(output)))
    guidance = Guidance(weight=3.0, schedule="interval", start=0.25, stop=0.75)
    settings = SamplingSettings(steps=8, solver=solver, guidance=guidance)
    scores = torch.tensor([1.0, 2.0])
    noise = initial_noise([1, 2], 6, 5)
    sample_latents(model, features("a", "b"), features("no"), scores, noise, settings)
    # Two clips; two branches in the four steps from a quarter to three quarters.
    assert rows == [count for count in (2, 2, 4, 4, 4, 4, 2, 2) for _ in range(evaluations)]
    rows.clear()
    separate = settings.changed(guidance={"mode": "separate", "text_weight": 2.0, "reward_weight": 5.0})
    sample_latents(model, features("a", "b"), features("no"), scores, noise, separate)
    assert rows == [6] * 8 * evaluations


def test_a_multistep_solver_forgets_its_past_where_guidance_begins_and_ends() -> None:
    """Of second order over an interval of guidance, as without one: halving the steps' length divides errors by 4."""
    model, text, noise = tiny_music().backbone, features("a"), initial_noise([1], 6, 5)
    guidance = Guidance(weight=4.0, schedule="interval", start=0.25, stop=0.75)

    def final(steps: int, solver: Solver) -> torch.Tensor:
        settings = SamplingSettings(steps=steps, solver=solver, guidance=guidance, precision="no")
        return sample_latents(model, text, features("no"), None, noise, settings)

    assert velocity_jumps(SamplingSettings(steps=8, guidance=guidance)) == {2, 6}
    exact = final(256, "heun")
    coarse, fine = (float((final(steps, "ab2") - exact).norm()) for steps in (16, 32))
    assert 3 < coarse / fine < 5


def test_bfloat16_stays_near_float32() -> None:
    model, noise = tiny_music().backbone, initial_noise([1], 6, 5)
    exact, quick = (
        sample_latents(model, features("a"), features(""), None, noise, JOINT.changed(precision=precision))
        for precision in ("no", "bf16")
    )
    assert quick.dtype == torch.float32
    assert 0 < (exact - quick).abs().mean() < 0.05 * exact.std()


def test_a_score_for_a_model_that_takes_none_is_refused() -> None:
    model = tiny_music("none").backbone
    with pytest.raises(ModelError, match="takes no score"):
        sample_latents(model, features("a"), features(""), torch.tensor([1.0]), initial_noise([1], 6, 5), JOINT)


def test_prompts_must_match_the_noise() -> None:
    model, noise = tiny_music().backbone, initial_noise([1, 2, 3], 6, 5)
    for text, negative in ((features("a"), features("")), (features("a", "b", "c"), features("", ""))):
        with pytest.raises(PromptError, match="3 clips"):
            sample_latents(model, text, negative, None, noise, JOINT)


def test_noise_of_the_cuda_generator_is_pytorchs() -> None:
    """The first values that torch.randn gives on a GPU with seed 0."""
    published = [-0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564, -0.62285122, -0.32838709]
    together = initial_noise([0, 2**40 + 7], 4, 5, "cuda")
    torch.testing.assert_close(together[0].flatten()[:8], torch.tensor(published), atol=1e-6, rtol=0)
    assert torch.equal(together[1], initial_noise([2**40 + 7], 4, 5, "cuda")[0])
    assert not torch.equal(together[1], initial_noise([7], 4, 5, "cuda")[0])
    many = initial_noise([1], 430, 40, "cuda")
    assert abs(float(many.mean())) < 0.03 and abs(float(many.std()) - 1) < 0.03


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_noise_of_the_cuda_generator_is_that_of_the_device() -> None:
    generator = torch.Generator("cuda").manual_seed(42)
    expected = torch.randn(1, 430, 40, device="cuda", generator=generator).cpu()
    torch.testing.assert_close(initial_noise([42], 430, 40, "cuda"), expected, atol=2e-6, rtol=0)


def test_the_noise_setting_changes_clips_and_nothing_else_does() -> None:
    music = tiny_music()
    settings = JOINT.model_copy(update={"noise": "cuda"})
    clip = music.generate("a", 3, settings)
    noise = initial_noise([3], music.frames, music.codec.latent_dim, "cuda")
    latents = sample_latents(music.backbone, features("a"), features(settings.negative_prompt), None, noise, JOINT)
    torch.testing.assert_close(clip, music.codec.decode(latents), atol=1e-5, rtol=0)
    assert not torch.allclose(clip, music.generate("a", 3, JOINT))


@pytest.mark.parametrize("precision, products", [("tf32", "high"), ("no", "highest")])
@pytest.mark.parametrize("before", ["highest", "high"])
def test_tf32_products_are_allowed_while_the_network_runs_and_as_before_afterwards(
    precision: str, products: str, before: str
) -> None:
    model, seen = tiny_music().backbone, list[tuple[str, bool, bool]]()
    inner = model.velocity

    def watched(*inputs: object) -> torch.Tensor:
        allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        seen.append((torch.get_float32_matmul_precision(), *allowed))
        return inner(*inputs)  # type: ignore[arg-type]

    model.velocity = watched  # type: ignore[method-assign,assignment]
    settings = JOINT.model_copy(update={"precision": precision})
    convolutions = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision(before)
    try:
        sample_latents(model, features("a"), features(""), None, initial_noise([1], 6, 5), settings)
        assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == [(products, precision == "tf32", precision == "tf32")] * 4
    assert torch.backends.cudnn.allow_tf32 == convolutions


def test_prompts_have_a_prefix_and_a_suffix() -> None:
    music = tiny_music()
    music.generate(["piano", "drums"], 0, JOINT.model_copy(update={"prefix": "good ", "suffix": ", live"}))
    assert isinstance(music.text_encoder, HashedText)
    assert music.text_encoder.read[0] == ["good piano, live", "good drums, live"]


@pytest.mark.parametrize("mode", ["switch", "average"])
def test_each_of_two_models_has_its_own_score(mode: str) -> None:
    first, second, noise = tiny_music().backbone, tiny_music().backbone, initial_noise([1, 2], 6, 5)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter *= 0.9
    text, negative = features("a", "b"), features("no")
    plan = SamplingPlan(second=second)

    def sampled(score: float, second_score: float | None) -> torch.Tensor:
        trajectory = Trajectory.model_validate({"mode": mode, "second_score": second_score})
        settings = JOINT.model_copy(update={"trajectory": trajectory})
        return sample_latents(first, text, negative, torch.full((2,), score), noise, settings, plan)

    assert torch.equal(sampled(1.0, None), sampled(1.0, 1.0))
    assert not torch.allclose(sampled(1.0, 1.0), sampled(1.0, 3.0))

    def velocity(model: Backbone, x: torch.Tensor, t: float, score: float) -> torch.Tensor:
        times = torch.full((2,), t)
        guided = model(x, text, times, torch.full((2,), score))
        return 3 * guided - 2 * model(x, negative.rows(torch.zeros(2, dtype=torch.long)), times)

    x = noise
    with torch.no_grad():
        for step in range(4):
            t = 1 - step / 4
            parts = [velocity(first, x, t, 1.0), velocity(second, x, t, 3.0)]
            x = x - ((parts[0] + parts[1]) / 2 if mode == "average" else parts[step >= 2]) / 4
    torch.testing.assert_close(sampled(1.0, 3.0), first.unstandardize(x), atol=1e-4, rtol=0)


@pytest.mark.parametrize("negatives", [1, 5])
@pytest.mark.parametrize("windows", [None, plan_windows(9, 6, 3)])
def test_threads_that_share_the_clips_leave_them_as_they_are(
    monkeypatch: pytest.MonkeyPatch, negatives: int, windows: Windows | None
) -> None:
    seen: set[str] = set()
    model, text, negative = tiny_music().backbone, features(*"abcde"), features(*"vwxyz"[:negatives])
    settings = JOINT.model_copy(update={"score": 1.0})
    sampler = Sampler.build(model, settings, 9 if windows else 6, Execution(), SamplingPlan(windows))
    velocity = sampler.network.velocity

    def watched(*arguments: torch.Tensor) -> torch.Tensor:
        seen.add(threading.current_thread().name)
        return velocity(*arguments)

    monkeypatch.setattr(sampler.network, "velocity", watched)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    results = []
    for count in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=count: count)
        results.append(sampler.latents(text, negative, [3, 1, 4, 1, 5]))
        assert ("MainThread" in seen) == (count == 1)
        seen.clear()
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=0)
    assert not torch.equal(results[0][1], results[0][0])


def test_threads_that_share_clips_keep_each_others_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    music, seen, started = tiny_music(), list[str](), threading.Barrier(2)
    inner = music.backbone.velocity

    def watched(*inputs: object) -> torch.Tensor:
        seen.append(torch.get_float32_matmul_precision())
        if started.wait(10):  # both threads are within a step, and one of them leaves it later
            time.sleep(0.01)
        result = inner(*inputs)  # type: ignore[arg-type]
        seen.append(torch.get_float32_matmul_precision())
        return result

    music.backbone.velocity = watched  # type: ignore[method-assign,assignment]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.set_float32_matmul_precision("high")
    try:
        sampler = music.sampler(JOINT.model_copy(update={"precision": "no", "steps": 12}))
        sampler.latents(music.encode_texts(["a", "b"]), music.encode_texts([""]), [1, 2])
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.set_num_threads(threads)
    assert set(seen) == {"highest"} and len(seen) == 2 * 2 * 12


@pytest.mark.parametrize("noise", ["cpu", "cuda"])
def test_trajectories_begin_at_the_noise_of_the_settings(noise: str) -> None:
    music = tiny_music()
    sampler = music.sampler(JOINT.model_copy(update={"noise": noise, "precision": "no", "steps": 4}))
    states = sampler.trajectories(music.encode_texts(["a", "b"]), music.encode_texts([""]), [3, 4], every=2)
    expected = initial_noise([3, 4], music.frames, music.codec.latent_dim, noise)  # type: ignore[arg-type]
    assert states.shape[:2] == (2, 3) and torch.equal(states[:, 0], expected)
