import os
from pathlib import Path

import numpy as np
import pytest
import torch

from plaudit.errors import ModelError
from plaudit.reward.head import TuneJuryHead, import_released_head, load_released_head

PARITY = Path(os.environ.get("PLAUDIT_PARITY_DIR", Path(__file__).parents[2].parent / "shared" / "parity"))


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


@pytest.mark.parametrize("prefix", ["score.", "net."])
def test_released_names_of_any_width_are_imported(prefix: str) -> None:
    original = TuneJuryHead(6, (5, 3)).eval()
    imported = import_released_head(released_form(original, prefix), Path("head.pt"))
    x = torch.randn(4, 6)
    assert imported.hidden == (5, 3)
    torch.testing.assert_close(imported(x), original(x))


def test_a_state_dict_of_something_else_is_refused() -> None:
    with pytest.raises(ModelError, match=r"no key begins with score\. or net\."):
        import_released_head({"weight": torch.zeros(3)}, Path("head.pt"))
    state = released_form(TuneJuryHead(6, (5, 3)), "net.")
    del state["net.1.running_mean"]
    with pytest.raises(ModelError, match=r"missing .*running_mean"):
        import_released_head(state, Path("head.pt"))


def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path) -> None:
    damaged = tmp_path / "head.pt"
    damaged.write_bytes(b"not weights")
    with pytest.raises(ModelError) as error:
        load_released_head(damaged)
    assert "\n" not in str(error.value)
    with pytest.raises(ModelError, match="does not exist"):
        load_released_head(tmp_path / "none.pt")


def test_a_released_head_computes_what_it_computed_where_it_was_made() -> None:
    if not (PARITY / "tunejury_head_muq.pt").exists():
        pytest.skip(f"no released head in {PARITY}; set PLAUDIT_PARITY_DIR")
    arrays = np.load(PARITY / "tunejury_head_muq.npz")
    head = load_released_head(PARITY / "tunejury_head_muq.pt")
    with torch.inference_mode():
        scores = head(torch.from_numpy(arrays["in.features"]))
    np.testing.assert_allclose(scores.numpy(), arrays["out.reward"][:, 0], atol=1e-4)
