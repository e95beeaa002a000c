"""TuneJury's head: frozen encoders' features -> one score."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from plaudit.assets import fill
from plaudit.errors import ModelError

PUBLISHED_HIDDEN = (1024, 512, 256, 128)
RELEASED_PREFIXES = ("score.", "net.")


class TuneJuryHead(nn.Module):
    """Linear-BatchNorm-ReLU-Dropout per hidden width, then a linear to one score (TuneJury, arXiv 2606.17006).

    Weights start Kaiming normal (fan out), biases at zero. Four buffers around the published network are ours, and
    at their initial values change nothing: inputs are standardized by `input_mean` and `input_std` [D], and the
    network's output becomes (output - offset) * scale, so that scores are centred and their margins calibrated.
    """

    input_mean: Tensor
    input_std: Tensor
    offset: Tensor
    scale: Tensor

    def __init__(
        self,
        input_dim: int,
        hidden: Sequence[int] = PUBLISHED_HIDDEN,
        dropout: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.input_dim, self.hidden, self.dropout = input_dim, tuple(hidden), dropout
        widths = [input_dim, *hidden]
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [nn.Linear(wide, narrow), nn.BatchNorm1d(narrow), nn.ReLU(), nn.Dropout(dropout)]
        layers.append(nn.Linear(widths[-1], 1))
        self.layers = nn.Sequential(*layers)
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
                nn.init.zeros_(layer.bias)
        self.register_buffer("input_mean", torch.zeros(input_dim))
        self.register_buffer("input_std", torch.ones(input_dim))
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        """features [B, D] -> scores [B]."""
        output: Tensor = self.layers((features - self.input_mean) / self.input_std).squeeze(-1)
        return (output - self.offset) * self.scale


def import_released_head(state: dict[str, Tensor], source: Path) -> TuneJuryHead:
    """The head that a released TuneJury state dict describes, ready for scoring; widths come from its shapes.

    The released keys are `score.<i>.*` (MuQ-MuLan) or `net.<i>.*` (CLAP and MERT), <i> counting the layers of one
    sequence. ModelError where `state` holds no such sequence, or one that does not fit the published pattern.
    """
    for prefix in RELEASED_PREFIXES:
        layers = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if layers:
            break
    else:
        raise ModelError(f"{source} is not a TuneJury head: no key begins with {' or '.join(RELEASED_PREFIXES)}")
    matrices = {int(n.split(".")[0]): w for n, w in layers.items() if n.endswith("weight") and w.ndim == 2}
    if not matrices:
        raise ModelError(f"{source} is not a TuneJury head: it holds no linear layer")
    shapes = [matrices[index].shape for index in sorted(matrices)]
    head = TuneJuryHead(shapes[0][1], [shape[0] for shape in shapes[:-1]])
    own = {name: value for name, value in head.state_dict().items() if not name.startswith("layers.")}
    fill(head, own | {f"layers.{name}": value for name, value in layers.items()}, source)
    return head.eval()


def load_released_head(path: Path) -> TuneJuryHead:
    """Read a released `.pt` file without running any code it may hold; ModelError where that is impossible."""
    if not path.is_file():
        raise ModelError(f"{path} does not exist; check the file name")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no common base for what damaged files raise
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path} cannot be read as plain weights ({first_line}); fetch it again") from None
    if not isinstance(state, dict):
        raise ModelError(f"{path} is not a TuneJury head: it holds a {type(state).__name__}, not a state dict")
    return import_released_head(state, path)
