"""The CLAP cosine as a reward: how well a clip fits its prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from plaudit.devices import batched, device_of, placed
from plaudit.errors import ModelError
from plaudit.reward.base import Recording, View, Waves, identity_of, identity_of_model
from plaudit.reward.features import CLAP_SECONDS, embed_batched
from plaudit.storage import read_json
from plaudit.types import Embedder


class CLAPCosine:
    """A plaudit.types.Reward in -1..1: cosine of CLAP's embeddings of the centre 10 s and the prompt; 0 without one."""

    def __init__(self, clap: Embedder) -> None:
        self.clap = clap
        self.views = (View(clap.sample_rate, CLAP_SECONDS),)

    def to(self, device: torch.device) -> CLAPCosine:
        """Its CLAP on `device`."""
        self.clap = placed(self.clap, device)
        return self

    @property
    def device(self) -> torch.device:
        """Where its CLAP computes."""
        return device_of(self.clap)

    @cached_property
    def identity(self) -> str:
        """A digest of its CLAP."""
        return identity_of("clap", identity_of_model(self.clap))

    def score(self, waves: Waves, rate: int, prompts: Sequence[str]) -> Tensor:
        """One score per clip [B]; AudioError for a clip that is empty, silent or not finite."""
        return self.score_recordings([Recording(w, rate, f"clip {i}") for i, w in enumerate(waves)], prompts)

    def score_recordings(self, recordings: Sequence[Recording], prompts: Sequence[str]) -> Tensor:
        """The same of recordings [B] at any rates."""
        scores = torch.zeros(len(recordings))
        rows = [row for row, prompt in enumerate(prompts) if prompt]
        if rows:
            with torch.inference_mode():
                audio = embed_batched(self.clap, [recordings[row].view(self.views[0]) for row in rows])
                text = batched(self.clap, self.clap.text, [prompts[row] for row in rows])
                scores[rows] = (audio * text).sum(1).float()
        return scores


def read_clap_cosine(folder: Path, clap: Callable[[str], Embedder]) -> CLAPCosine:
    """The reward in a folder; clap loads its encoder by name. ModelError where it names none."""
    name = read_json(folder / "config.json").get("clap")
    if not isinstance(name, str):
        raise ModelError(f'{folder}/config.json must name a CLAP under "clap", e.g. "synthetic"')
    return CLAPCosine(clap(name))
