from __future__ import annotations

import pytest
import torch

from plaudit.backbone import INJECTIONS
from tests.backbone.tiny import inputs, tiny_model, wake


@pytest.mark.parametrize("injection", INJECTIONS.builtin)
def test_the_copy_computes_what_the_network_does_under_autocast(injection: str) -> None:
    model = wake(tiny_model(injection)).eval()
    latents, text, t = inputs()
    score = None if injection == "none" else torch.tensor([0.5, torch.nan, -1.0])
    copied = model.for_inference(torch.bfloat16)
    with torch.inference_mode():
        exact = model(latents, text, t, score)
        with torch.autocast("cpu", torch.bfloat16):
            usual, quick = model(latents, text, t, score), copied(latents, text, t, score)
    usual_error, error = (float((output - exact).norm() / exact.norm()) for output in (usual, quick))
    assert 0 < error < 1.5 * usual_error + 1e-3
    assert error < 0.02


def test_the_copy_shares_what_it_does_not_cast_and_leaves_the_network_alone() -> None:
    model = wake(tiny_model("input_add"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for dtype in (torch.float32, torch.bfloat16):
        copied = model.for_inference(dtype)
        assert copied.latent_mean.data_ptr() == model.latent_mean.data_ptr()
        assert not copied.training and not any(p.requires_grad for p in copied.parameters())
    matrices = {name for name, p in copied.named_parameters() if p.dtype == torch.bfloat16}
    assert {"text_in.0.weight", "joint_blocks.0.audio.qkv.bias", "time.mlp.0.weight"} <= matrices
    convolutions = [p for p in copied.parameters() if p.dim() == 3]
    # Products read the memory of these weights as their matrices.
    assert convolutions and all(p.transpose(1, 2).is_contiguous() for p in convolutions)
    assert copied.joint_blocks[0].audio.query_norm.weight.dtype == torch.float32  # type: ignore[union-attr]
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_latents_shared_by_several_conditions_pass_the_input_once() -> None:
    model = wake(tiny_model("global_adaln")).eval()
    latents, text, t = inputs(2)
    rows = torch.tensor([0, 1, 1, 0])
    score = torch.tensor([1.0, 2.0, torch.nan, 0.5])
    passed: list[int] = []
    model.audio_in.register_forward_hook(lambda module, given, output: passed.append(len(output)))
    with torch.inference_mode():
        together = model.velocity(latents, model.conditions(text.rows(rows), score), t[:1])
        apart = model(latents.repeat(2, 1, 1), text.rows(rows), t[:1].expand(4), score)
    assert passed == [2, 4]
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)
