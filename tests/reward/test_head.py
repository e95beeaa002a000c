import pytest
import torch

from plaudit.errors import ModelError
from plaudit.reward.tunejury import TuneJuryHead, head_from_published


def released_form(head: TuneJuryHead, prefix: str) -> dict[str, torch.Tensor]:
    state = head.state_dict().items()
    return {prefix + name.removeprefix("layers."): value for name, value in state if name.startswith("layers.")}


def test_the_published_head_has_the_published_size() -> None:
    head = TuneJuryHead(2048)
    assert sum(p.numel() for p in head.parameters()) == 2_791_169
    assert [type(layer).__name__ for layer in head.layers][:4] == ["Linear", "BatchNorm1d", "ReLU", "Dropout"]


def test_initialization_is_kaiming_by_fan_out_with_zero_biases() -> None:
    head = TuneJuryHead(300, (400, 200), generator=torch.Generator().manual_seed(0))
    first, last = head.layers[0], head.layers[-1]
    assert isinstance(first, torch.nn.Linear) and isinstance(last, torch.nn.Linear)
    assert first.weight.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert not first.bias.any() and not last.bias.any()


def test_offset_and_scale_are_applied_after_the_network() -> None:
    head = TuneJuryHead(4, (8,)).eval()
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    plain = head(x)
    head.offset.fill_(0.5)
    head.scale.fill_(2.0)
    torch.testing.assert_close(head(x), (plain - 0.5) * 2)


@pytest.mark.parametrize("prefix", ["score.", "net.", "module.net."])
@pytest.mark.parametrize("hidden", [(5, 3), (4,), ()])
def test_released_names_of_any_width_are_imported(prefix: str, hidden: tuple[int, ...]) -> None:
    original = TuneJuryHead(6, hidden).eval()
    state = released_form(original, prefix)
    imported = head_from_published({"state_dict": state} if "module" in prefix else state)
    x = torch.randn(4, 6)
    assert imported.hidden == hidden and not imported.training
    torch.testing.assert_close(imported(x), original(x))


def test_a_state_dict_of_something_else_is_refused() -> None:
    with pytest.raises(ModelError, match=r"score\. or net\..*missing score\.0\.weight .*it holds weight$"):
        head_from_published({"weight": torch.zeros(3)})
    state = released_form(TuneJuryHead(6, (5, 3)), "net.")
    del state["net.1.running_mean"]
    state |= {"net.4.bias": torch.zeros(7), "audio.weight": torch.zeros(2, 2)}
    with pytest.raises(ModelError) as error:
        head_from_published(state)
    message = str(error.value)
    assert "missing net.1.running_mean (5,)" in message and "unknown audio.weight (2, 2)" in message
    assert "net.4.bias is (7,), not (3,)" in message and "\n" not in message
