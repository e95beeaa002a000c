from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from plaudit.backbone.layers import GatedMLP, SequenceConv, rotary_table, rotate, time_features


def test_time_features_are_cosines_then_sines_of_t_itself() -> None:
    features = time_features(torch.tensor([0.0, 0.5]))
    assert torch.equal(features[0], torch.cat((torch.ones(128), torch.zeros(128))))
    expected = torch.tensor([0.5, 0.5 * 10000 ** (-2 / 256)], dtype=torch.float64)
    torch.testing.assert_close(features[1, :2], expected.cos().float())
    torch.testing.assert_close(features[1, 128:130], expected.sin().float())


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 20))
@settings(max_examples=20, deadline=None)
def test_rotary_scores_depend_on_the_distance_alone(a: int, b: int, shift: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 8, generator=generator)
    table = rotary_table(64, 8, torch.device("cpu"))

    def score(i: int, j: int) -> torch.Tensor:
        return rotate(q, table[i]) @ rotate(k, table[j])

    torch.testing.assert_close(score(a, b), score(a + shift, b + shift), atol=1e-5, rtol=0)


def test_rotary_table_made_in_inference_mode_can_be_trained_through() -> None:
    with torch.inference_mode():
        rotary_table(13, 6, torch.device("cpu"))
    x = torch.randn(1, 1, 13, 6, requires_grad=True)
    rotate(x, rotary_table(13, 6, torch.device("cpu"))).sum().backward()
    assert x.grad is not None


def test_sequence_convolution_keeps_the_length_and_reads_neighbours() -> None:
    conv = SequenceConv(1, 1, kernel=3, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[[1.0, 10.0, 100.0]]]))
    out = conv(torch.tensor([[[1.0], [2.0], [3.0]]]))
    assert out.flatten().tolist() == [210.0, 321.0, 32.0]


def test_gated_mlp_is_the_three_layers_that_it_stands_for() -> None:
    mlp = GatedMLP(4, 6)
    x = torch.randn(2, 3, 4)
    w1, w3 = mlp.gate_up.weight.chunk(2)
    expected = (functional.silu(x @ w1.T) * (x @ w3.T)) @ mlp.down.weight.T
    torch.testing.assert_close(mlp(x), expected)
