from __future__ import annotations

import shutil

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from plaudit.backbone import PRESETS, FluxAudio, FluxAudioConfig
from plaudit.errors import PromptError
from plaudit.generate.sampling import batch_size
from plaudit.generate.settings import Execution, Guidance, SamplingSettings
from plaudit.types import TextFeatures
from tests.generate.tiny import tiny_music

CPU = torch.device("cpu")
with torch.device("meta"):
    SMALL = FluxAudio(PRESETS["fluxaudio-s-44k"])


def most_memory(model: FluxAudio, frames: int, rows: int, precision: str) -> int:
    """The highest sum of what PyTorch allocated and had not freed during one pass."""
    config = model.config
    network = model.for_inference(torch.bfloat16 if precision == "bf16" else torch.float32)
    text = TextFeatures(torch.zeros(rows, config.text_length, config.text_dim), torch.zeros(rows, config.text_c_dim))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        conditions, x, t = network.conditions(text), torch.zeros(rows, frames, config.latent_dim), torch.zeros(1)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            network.velocity(x, conditions, t)
    held = most = 0
    for event in recorded.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


@pytest.mark.parametrize("precision", ["bf16", "no"])
def test_the_estimate_of_memory_holds_and_is_not_far_off(precision: str) -> None:
    model = FluxAudio(FluxAudioConfig(40, 64, 64, hidden_dim=224, depth=3, fused_depth=2, num_heads=7))
    for frames, rows in ((430, 2), (100, 4)):
        taken = most_memory(model, frames, rows, precision)
        estimate = rows * model.row_bytes(frames, precision, CPU)
        assert 0.4 * estimate < taken < estimate


def test_batches_follow_the_budget() -> None:
    joint = SamplingSettings(guidance=Guidance(weight=4.0))
    alone = SamplingSettings(guidance=Guidance(weight=1.0))
    assert batch_size(SMALL, 430, joint, Execution(batch=11), CPU) == 11
    two, one = (batch_size(SMALL, 430, settings, Execution(memory=8.0), CPU) for settings in (joint, alone))
    assert 1 < two < one
    clip = 2 * SMALL.row_bytes(430, "bf16", CPU) / 2**30
    assert batch_size(SMALL, 430, joint, Execution(memory=2.5 * clip), CPU) == 2
    with pytest.raises(PromptError, match="one clip of 430 latents takes"):
        batch_size(SMALL, 430, joint, Execution(memory=0.9 * clip), CPU)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_clips_are_the_same_and_a_short_batch_compiles_nothing_anew() -> None:
    music = tiny_music()
    settings = SamplingSettings(steps=2, score=1.0, precision="no")
    plain = music.generate(["a", "b", "c"], [1, 2, 3], settings)
    sampler = music.sampler(settings, Execution(batch=2, compile="default"))
    assert sampler.warm_up() > 0
    torch._dynamo.utils.counters.clear()
    output = torch.stack(list(music.stream(["a", "b", "c"], [1, 2, 3], sampler)))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 0
    torch.testing.assert_close(output, plain, atol=1e-4, rtol=0)
    assert music.sampler(settings).warm_up() == 0
