"""Running averages of weights: post-hoc EMA, from which averages of other lengths can be reconstructed, or exponential.

After Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models" (arXiv 2312.02696, section 3
and appendix C). An average of relative length sigma_rel at update t weighs the weights of update s by s^gamma: its
length grows with training, and it forgets the start. Models may be sharded over processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from plaudit.errors import ModelError
from plaudit.storage import load_tensors, save_tensors


def local_tensor(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor, detached; memory is shared."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """The full tensor, detached. For a sharded one this is a collective call."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_like(target: Tensor, source: Tensor) -> Tensor:
    """`source` sharded as `target` is. Every process has all of it, so nothing is communicated."""
    if isinstance(source, DTensor) or not isinstance(target, DTensor):
        return source
    source = source.to(target.device, target.dtype)
    return distribute_tensor(source, target.device_mesh, target.placements, src_data_rank=None)


@torch.no_grad()
def copy_into(target: Tensor, source: Tensor) -> None:
    """Copy `source`, full or sharded as `target` is, into `target`."""
    target.copy_(sharded_like(target, source))


def snapshot(tree: Any, keep: bool = True) -> Any:
    """A copy on the CPU of the full tensors in nested dicts and lists.

    For sharded tensors this is a collective call; a process that needs no copy passes `keep=False`, gets None in place
    of tensors, and holds one full tensor at a time.
    """
    if isinstance(tree, Tensor):
        full = full_tensor(tree)
        return full.to("cpu", copy=True) if keep else None
    if isinstance(tree, dict):
        return {key: snapshot(value, keep) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [snapshot(value, keep) for value in tree]
    return tree


KEPT_LENGTHS = (0.05, 0.10)
"""Relative lengths of the averages that others are reconstructed from."""


def ema_exponent(sigma_rel: float) -> float:
    """gamma of the profile s^gamma on [0, t] whose standard deviation is sigma_rel * t.

    That deviation is sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3))); gamma is the root above -1 of the cubic
    gamma^3 + 7 gamma^2 + (16 - 1 / sigma_rel^2) gamma + (12 - 1 / sigma_rel^2).
    """
    if not 0 < sigma_rel < 12**-0.5:
        raise ModelError(f"EMA: sigma_rel must lie between 0 and 0.288, the length of a plain mean, not {sigma_rel}")
    inverse = sigma_rel**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


@dataclass(frozen=True)
class Snapshot:
    """A running average after update `step` (from 1)."""

    step: int
    sigma_rel: float
    weights: dict[str, Tensor]

    def save(self, path: Path) -> None:
        """Write the snapshot as safetensors, atomically."""
        profile = {
            "ema.step": torch.tensor(self.step),
            "ema.sigma_rel": torch.tensor(self.sigma_rel, dtype=torch.float64),
        }
        save_tensors(path, self.weights | profile)

    @classmethod
    def load(cls, path: Path) -> Snapshot:
        """Read a snapshot; ModelError where the file is missing, damaged or of another kind."""
        weights = load_tensors(path)
        if not {"ema.step", "ema.sigma_rel"} <= weights.keys():
            raise ModelError(f"{path} is no EMA snapshot: it has no step and length; check the file name")
        return cls(int(weights.pop("ema.step")), float(weights.pop("ema.sigma_rel")), weights)


class PostHocEMA:
    """Running averages of a model's trainable parameters, in float32, one per relative length, sharded as they are.

    decay: also keep an exponential average, which starts at the model's weights. The main average, which a pass
    deploys, is that one, or else the one of the first length.

    The parameters must stay the same tensors, on the same device, until the last update.
    """

    def __init__(
        self, model: nn.Module, sigma_rels: Sequence[float] = KEPT_LENGTHS, decay: float | None = None
    ) -> None:
        self.sigma_rels, self.decay = tuple(sigma_rels), decay
        self.step = 0
        self._powers = [ema_exponent(sigma_rel) for sigma_rel in self.sigma_rels]
        self._parameters = [local_tensor(p) for _, p in _trainable(model)]
        count = len(self.sigma_rels) + (decay is not None)  # the exponential one last
        self._averages = [{name: p.detach().float().clone() for name, p in _trainable(model)} for _ in range(count)]
        self._local = [[local_tensor(value) for value in average.values()] for average in self._averages]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Average in the weights after update `step`, from 1; the first update replaces averages of relative length."""
        self.step = step
        parameters = [p.float() for p in self._parameters]
        kept = [(1 - 1 / step) ** (gamma + 1) for gamma in self._powers]
        if self.decay is not None:
            kept.append(self.decay)
        for keep, average in zip(kept, self._local, strict=True):
            torch._foreach_lerp_(average, parameters, 1 - keep)

    def weights(self, sigma_rel: float | None = None) -> dict[str, Tensor]:
        """The average of that length by parameter name, by default the main one; ModelError where none is kept."""
        if sigma_rel is None:
            return self._averages[0 if self.decay is None else -1]
        if sigma_rel not in self.sigma_rels:
            raise ModelError(f"no running average of length {sigma_rel}; kept are {self.sigma_rels}, or reconstruct it")
        return self._averages[self.sigma_rels.index(sigma_rel)]

    def copy_to(self, model: nn.Module) -> None:
        """Copy the main average into the model's trainable parameters."""
        load_parameters(model, self.weights())

    @contextmanager
    def in_place_of(self, model: nn.Module) -> Iterator[None]:
        """The model with the main average as its parameters, until the block ends."""
        trained = {name: p.detach().clone() for name, p in _trainable(model)}
        self.copy_to(model)
        try:
            yield
        finally:
            load_parameters(model, trained)

    def snapshots(self, keep: bool = True) -> list[Snapshot]:
        """Copies on the CPU of the averages of relative length, for `reconstruct`; see `snapshot` on sharded models."""
        return [Snapshot(self.step, length, snapshot(self.weights(length), keep)) for length in self.sigma_rels]

    def gather(self) -> None:
        """Keep full averages on every process; a collective call, after the last update."""
        self._parameters, self._local = [], []
        self._averages = [{name: full_tensor(value) for name, value in average.items()} for average in self._averages]

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to resume."""
        lengths = {"sigma_rels": list(self.sigma_rels), "decay": self.decay}
        return lengths | {"step": self.step, "averages": self._averages}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`; ValueError where it has other lengths or parameters."""
        if (tuple(state["sigma_rels"]), state["decay"]) != (self.sigma_rels, self.decay):
            raise ValueError(f"averages of lengths {state['sigma_rels']}, not {list(self.sigma_rels)}")
        for average, saved in zip(self._averages, state["averages"], strict=True):
            if average.keys() != saved.keys():
                raise ValueError("averages of another model's parameters")
            for name, value in average.items():
                copy_into(value, saved[name])
        self.step = state["step"]


@torch.no_grad()
def load_parameters(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy weights into the trainable parameters of the same names."""
    for name, parameter in _trainable(model):
        copy_into(parameter, weights[name])


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)


def reconstruct(snapshots: Sequence[Snapshot], sigma_rel: float, step: int | None = None) -> dict[str, Tensor]:
    """The average of any length `sigma_rel` at `step` (the last one by default).

    The target profile is fitted by the snapshots' profiles by least squares, and the coefficients are applied to their
    weights. ModelError where there are no snapshots or `step` lies beyond them.
    """
    if not snapshots:
        raise ModelError("no EMA snapshots to reconstruct from; keep some during training")
    last = max(snapshot.step for snapshot in snapshots)
    step = last if step is None else step
    if not 1 <= step <= last:
        raise ModelError(f"EMA: step {step} lies outside the snapshots, which reach to {last}")
    steps = np.array([snapshot.step for snapshot in snapshots], dtype=np.float64)
    powers = np.array([ema_exponent(snapshot.sigma_rel) for snapshot in snapshots])
    gram = overlap(steps[:, None], powers[:, None], steps[None], powers[None])
    target = overlap(steps, powers, np.array(step), np.array(ema_exponent(sigma_rel)))
    coefficients = np.linalg.lstsq(gram, target, rcond=None)[0]
    return {
        name: sum(
            (float(c) * s.weights[name].float() for c, s in zip(coefficients, snapshots, strict=True)),
            torch.zeros(()),
        )
        for name in snapshots[0].weights
    }


def overlap(step_a: np.ndarray, power_a: np.ndarray, step_b: np.ndarray, power_b: np.ndarray) -> np.ndarray:
    """Inner product of two normalized profiles (g + 1) s^g / t^(g + 1) on [0, t], elementwise, in float64."""
    shorter = np.minimum(step_a, step_b)
    # In logarithms: s^gamma overflows float64 within a few thousand updates.
    logarithm = (
        (power_a + power_b + 1) * np.log(shorter) - (power_a + 1) * np.log(step_a) - (power_b + 1) * np.log(step_b)
    )
    return (power_a + 1) * (power_b + 1) / (power_a + power_b + 1) * np.exp(logarithm)
