"""Probes: small networks that hear in a clip what it is (genre, mood, ..., key) and what is wrong with it (flaws).

They are the ears of the simulated listeners. Rewards never see them. Ours throughout.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from plaudit.assets import EMBEDDED, load_module
from plaudit.corpus.embedded.flaws import FLAWS
from plaudit.corpus.embedded.hearing import (
    BINS_PER_OCTAVE,
    LEVEL_DIM,
    MEL_BANDS,
    OCTAVES,
    REGISTERS,
    RHYTHM_DIM,
    TEMPI,
    TUNING_BINS,
    Features,
    hear,
)
from plaudit.corpus.embedded.truth import GENRES, INSTRUMENTS, MODES, MOODS

TRUNK_WIDTH = 192
TUNING_DIM = (len(REGISTERS) - 1) * TUNING_BINS


@dataclass(frozen=True)
class Measurement:
    """What the probes heard in B clips.

    genre [B, genres], mood [B, moods], tempo [B, len(TEMPI)] and key [B, 12, modes] are probabilities that sum to one
    per clip (key over both axes), instruments [B, instruments] are independent probabilities, flaws [B, len(FLAWS)]
    are severities 0..1.
    """

    genre: Tensor
    mood: Tensor
    instruments: Tensor
    tempo: Tensor
    key: Tensor
    flaws: Tensor

    def __len__(self) -> int:
        return len(self.genre)

    def rows(self, index: Tensor) -> Measurement:
        """The measurements of the clips at `index` [M], in that order."""
        return Measurement(*(getattr(self, field.name)[index] for field in fields(self)))


class MelTrunk(nn.Module):
    """Convolutions over a log-mel spectrogram, pooled over time: [B, MEL_BANDS, N] -> [B, 3 * TRUNK_WIDTH].

    Mean, standard deviation and maximum over time keep what is typical, how much it changes, and what is rare.
    """

    def __init__(self, channels: tuple[int, int, int] = (16, 32, 48)) -> None:
        super().__init__()
        first, second, third = channels
        self.planes = nn.Sequential(
            nn.Conv2d(1, first, (5, 5), stride=(2, 2), padding=2), nn.BatchNorm2d(first), nn.ReLU(),
            nn.Conv2d(first, second, 3, stride=(2, 2), padding=1), nn.BatchNorm2d(second), nn.ReLU(),
            nn.Conv2d(second, third, 3, stride=(2, 1), padding=1), nn.BatchNorm2d(third), nn.ReLU(),
        )  # fmt: skip
        width = TRUNK_WIDTH
        self.lines = nn.Sequential(
            nn.Conv1d(third * MEL_BANDS // 8, width, 1), nn.BatchNorm1d(width), nn.ReLU(),
            nn.Conv1d(width, width, 3, padding=1), nn.BatchNorm1d(width), nn.ReLU(),
        )  # fmt: skip

    def forward(self, mel: Tensor) -> Tensor:
        lines = self.lines(self.planes(mel[:, None]).flatten(1, 2))  # [B, width, N / 4]
        return torch.cat([lines.mean(-1), lines.std(-1), lines.amax(-1)], 1)


class KeyProbe(nn.Module):
    """Judges all twelve tonics by one network that hears the clip as if each were C: tonal -> logits [B, 12, modes].

    So it is equivariant to transposition by construction. Ours.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.frames = nn.Sequential(nn.Linear(OCTAVES * BINS_PER_OCTAVE, width), nn.ReLU())
        self.judge = nn.Sequential(
            nn.Linear(3 * width, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, len(MODES))
        )

    def forward(self, tonal: Tensor) -> Tensor:
        # Per-clip standardization: what counts is which pitches stand out.
        tonal = (tonal - tonal.mean((1, 2, 3), keepdim=True)) / (tonal.std((1, 2, 3), keepdim=True) + 1e-3)
        step = BINS_PER_OCTAVE // 12
        views = torch.stack([tonal.roll(-step * tonic, 2) for tonic in range(12)], 1).flatten(2, 3)
        heard = self.frames(views.transpose(2, 3))  # [B, 12, N, width]
        opening = heard[:, :, : max(1, heard.shape[2] // 5)]  # pieces tend to open on their tonic
        return self.judge(torch.cat([heard.mean(2), heard.amax(2), opening.mean(2)], -1))


class RhythmProbe(nn.Module):
    """Judges every tempo candidate by one network: [B, tempi, RHYTHM_DIM] -> logits [B, tempi], heard [B, width].

    `heard` is the rhythm at the tempo that seems right: hidden states averaged with the candidates' probabilities.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(RHYTHM_DIM)
        self.hidden = nn.Sequential(nn.Linear(3 * RHYTHM_DIM, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.judge = nn.Linear(width, 1)
        self.usual = nn.Parameter(torch.zeros(len(TEMPI)))

    def forward(self, rhythm: Tensor) -> tuple[Tensor, Tensor]:
        rhythm = self.norm(rhythm.transpose(1, 2)).transpose(1, 2)
        # Beside its own view, a candidate is told the clip's average and best: a score is high only against others.
        context = [rhythm.mean(1, keepdim=True).expand_as(rhythm), rhythm.amax(1, keepdim=True).expand_as(rhythm)]
        hidden = self.hidden(torch.cat([rhythm, *context], -1))
        logits = self.judge(hidden)[..., 0] + self.usual
        return logits, torch.einsum("bk,bkw->bw", logits.softmax(-1), hidden)


class AttributeProbe(nn.Module):
    """Genre, mood, instruments, tempo and key of a clip, as logits by name. Trained on clean clips only."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = MelTrunk()
        self.rhythm = RhythmProbe()
        self.key = KeyProbe()
        joined = 3 * TRUNK_WIDTH + 64 + len(MODES)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(joined, 256), nn.ReLU(), nn.Dropout(0.3))
        self.genre = nn.Linear(256, len(GENRES))
        self.mood = nn.Linear(256, len(MOODS))
        self.instruments = nn.Linear(256, len(INSTRUMENTS))

    def forward(self, features: Features) -> dict[str, Tensor]:
        tempo, groove = self.rhythm(features.rhythm)
        key = self.key(features.tonal)
        # Major or minor is half of a mood, and the key probe hears it best; but mood must not train the key probe.
        mode = key.detach().float().flatten(1).softmax(-1).unflatten(1, key.shape[1:]).sum(1)
        hidden = self.head(torch.cat([self.trunk(features.mel), groove, mode], 1))
        return {
            "genre": self.genre(hidden),
            "mood": self.mood(hidden),
            "instruments": self.instruments(hidden),
            "tempo": tempo,
            "key": key,
        }


class FlawProbe(nn.Module):
    """Severity 0..1 of each flaw, [B, len(FLAWS)]."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = MelTrunk()
        self.rhythm = RhythmProbe()
        joined = 3 * TRUNK_WIDTH + 64 + TUNING_DIM + 3 * MEL_BANDS + LEVEL_DIM
        self.head = nn.Sequential(
            nn.BatchNorm1d(joined), nn.Dropout(0.2), nn.Linear(joined, 256), nn.ReLU(),
            nn.Dropout(0.2), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, len(FLAWS)),
        )  # fmt: skip

    def forward(self, features: Features) -> Tensor:
        _, groove = self.rhythm(features.rhythm)
        points = torch.tensor([0.02, 0.5, 0.98])
        quantiles = torch.quantile(features.mel.float(), points, dim=2).permute(1, 0, 2).flatten(1)
        joined = [self.trunk(features.mel), groove, features.tuning.flatten(1), quantiles, features.level]
        return self.head(torch.cat([part.float() for part in joined], 1)).float().sigmoid()


class Probes(nn.Module):
    """Both probes: features -> attribute logits by name, and flaw severities."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes = AttributeProbe()
        self.flaws = FlawProbe()


@torch.inference_mode()
def measure(probes: Probes, waves: Tensor, batch_size: int = 16) -> Measurement:
    """What `probes` hear in `waves` [B, T] at 16 kHz, T at least 2.5 seconds. AudioError for anything else."""
    parts: list[Measurement] = []
    for chunk in waves.split(batch_size):
        parts.append(measure_features(probes, hear(chunk)))
    return Measurement(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Measurement)))


@torch.inference_mode()
def measure_features(probes: Probes, features: Features) -> Measurement:
    """The same from features that were heard before."""
    logits = {name: value.float() for name, value in probes.attributes(features).items()}
    return Measurement(
        genre=logits["genre"].softmax(-1),
        mood=logits["mood"].softmax(-1),
        instruments=logits["instruments"].sigmoid(),
        tempo=logits["tempo"].softmax(-1),
        key=logits["key"].flatten(1).softmax(-1).unflatten(1, (12, len(MODES))),
        flaws=probes.flaws(features),
    )


def load_probes(folder: Path = EMBEDDED / "probes") -> Probes:
    """The shipped probes, or those of `folder`, ready to measure. ModelError where they are missing or damaged."""
    probes = Probes()
    load_module(folder, probes)
    return probes.eval().requires_grad_(False)
