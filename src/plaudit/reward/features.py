"""What the reward's head sees of a clip and its prompt: frozen encoders' embeddings, side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from plaudit.audio import SILENT_PEAK, resample, resample_tensor
from plaudit.errors import AudioError, ModelError
from plaudit.types import AudioEmbedder, Embedder

CLAP_SECONDS = 10.0
SEGMENT_SECONDS = 300.0
"""The second listener hears longer tracks in segments of this length (TuneJury)."""

SHORTEST_REST = 1.0
"""A rest shorter than this many seconds stays with the segment before it: encoders need something to hear (ours)."""

PUBLISHED_BLOCKS = ("clap_audio", "audio", "clap_text")
BLOCKS = (*PUBLISHED_BLOCKS, "clap_match")


class RewardFeatures:
    """Blocks of features, concatenated in the order named; TuneJury's are CLAP audio, MERT and CLAP text.

    clap_audio: CLAP's embedding of the centre 10 s (a shorter clip whole). audio: the second listener's, of the whole
    clip; of one over 300 s, the mean over its segments, weighted by their lengths. clap_text: CLAP's embedding of the
    prompt. clap_match (ours): clap_audio times clap_text, channel by channel, whose sum is their cosine; a small set
    of votes does not teach a plain network to multiply.
    Without a prompt, clap_text and clap_match are zeros, not the encoding of the empty string.
    """

    def __init__(self, clap: Embedder, audio: AudioEmbedder, blocks: Sequence[str] = PUBLISHED_BLOCKS) -> None:
        unknown = [block for block in blocks if block not in BLOCKS]
        if unknown or not blocks or len(set(blocks)) < len(blocks):
            raise ModelError(f"reward blocks {list(blocks)} must be one or more distinct of {', '.join(BLOCKS)}")
        self.clap, self.listener, self.blocks = clap, audio, tuple(blocks)
        needs_clap = any(block in ("clap_audio", "clap_match") for block in blocks)
        self._clip_dims = {"clap_audio": clap.dim * needs_clap, "audio": audio.dim * ("audio" in blocks)}
        self.clip_dim = sum(self._clip_dims.values())
        self.dim = sum(audio.dim if block == "audio" else clap.dim for block in self.blocks)

    @property
    def clip_identity(self) -> dict[str, str]:
        """What clip features depend on: two with the same identity may share a FeatureStore."""
        embedders = {"clap_audio": self.clap, "audio": self.listener}
        used = {part: embedder for part, embedder in embedders.items() if self._clip_dims[part]}
        return {part: f"{embedder.name}, {embedder.dim}" for part, embedder in used.items()}

    def columns_of(self, heard: RewardFeatures) -> Tensor:
        """Which columns of heard.clip_features are this one's clip_features, so that a subset needs no new extraction.

        ModelError where `heard` lacks a block that this one needs, or has it from another encoder.
        """
        theirs, own = heard.clip_identity, self.clip_identity
        if any(theirs.get(part) != own[part] for part in own):
            raise ModelError(f"the reward is to hear {own}, but {theirs} were extracted; use another features folder")
        starts = {"clap_audio": 0, "audio": heard._clip_dims["clap_audio"]}
        return torch.cat([torch.arange(width) + starts[part] for part, width in self._clip_dims.items()])

    def clip_features(self, waves: Sequence[Tensor], rate: int) -> Tensor:
        """Prompt-free part: waves [T] each, of any lengths, at `rate` Hz -> [B, clip_dim].

        Differentiable in the waves where the encoders are. AudioError for a clip that is empty,
        silent or not finite, naming its place.
        """
        for index, wave in enumerate(waves):
            check_wave(wave, f"clip {index}")
        parts = []
        if self._clip_dims["clap_audio"]:
            heard = [centre(wave, round(CLAP_SECONDS * rate)) for wave in waves]
            parts.append(_embedded(self.clap, heard, rate))
        if self._clip_dims["audio"]:
            parts.append(_heard_whole(self.listener, waves, rate))
        return torch.cat(parts, dim=-1) if parts else torch.zeros(len(waves), 0)

    def with_prompts(self, clip_features: Tensor, prompts: Sequence[str]) -> Tensor:
        """clip_features [B, clip_dim] and their prompts -> the head's input [B, dim]."""
        clap_audio, audio = clip_features.split(list(self._clip_dims.values()), dim=-1)
        parts = {"clap_audio": clap_audio, "audio": audio}
        if "clap_text" in self.blocks or "clap_match" in self.blocks:
            parts["clap_text"] = self._prompt_features(prompts).to(clip_features)
        if "clap_match" in self.blocks:
            parts["clap_match"] = clap_audio * parts["clap_text"]
        return torch.cat([parts[block] for block in self.blocks], dim=-1)

    def _prompt_features(self, prompts: Sequence[str]) -> Tensor:
        """[B, clap.dim]; each distinct prompt is read once."""
        distinct = sorted({prompt for prompt in prompts if prompt})
        rows = {prompt: row for row, prompt in enumerate(distinct, start=1)}
        table = torch.zeros(len(distinct) + 1, self.clap.dim)
        with torch.inference_mode():
            for start in range(0, len(distinct), 256):
                chunk = distinct[start : start + 256]
                table[1 + start : 1 + start + len(chunk)] = self.clap.text(chunk).float().cpu()
        return table[[rows.get(prompt, 0) for prompt in prompts]]


def check_wave(wave: Tensor, name: str) -> None:
    """AudioError where `wave` [T] cannot be scored: the wrong shape, empty, not finite, or silent."""
    if wave.ndim != 1:
        raise AudioError(f"{name} has shape {list(wave.shape)}; the reward takes mono waveforms of shape [T]")
    if wave.numel() == 0:
        raise AudioError(f"{name} is empty; give audio of at least a fraction of a second")
    if not torch.isfinite(wave).all():
        raise AudioError(f"{name} holds NaN or infinite samples; decode or generate it again")
    if wave.abs().max() < SILENT_PEAK:
        raise AudioError(f"{name} is silent; there is nothing to score")


def centre(wave: Tensor, samples: int) -> Tensor:
    """The middle `samples` of wave [T], or all of a shorter one."""
    start = max(0, (wave.shape[-1] - samples) // 2)
    return wave[start : start + samples]


def segments(samples: int, rate: int) -> list[int]:
    """Lengths of the segments of SEGMENT_SECONDS that a track of `samples` is heard in; the last is what is left."""
    full = round(SEGMENT_SECONDS * rate)
    whole, rest = divmod(samples, full)
    lengths = [full] * whole
    if not lengths or rest >= SHORTEST_REST * rate:
        return [*lengths, rest] if rest else lengths
    return [*lengths[:-1], full + rest]


def _heard_whole(listener: AudioEmbedder, waves: Sequence[Tensor], rate: int) -> Tensor:
    """[B, listener.dim]: of each wave the mean over its segments, weighted by their lengths."""
    lengths = [segments(wave.shape[-1], rate) for wave in waves]
    pieces = [piece for wave, cut in zip(waves, lengths, strict=True) for piece in wave.split(cut)]
    heard = _embedded(listener, pieces, rate).split([len(cut) for cut in lengths])
    weights = [torch.tensor(cut, dtype=torch.float64) / sum(cut) for cut in lengths]
    return torch.stack([weight.to(rows) @ rows for weight, rows in zip(weights, heard, strict=True)])


def _embedded(embedder: AudioEmbedder, waves: Sequence[Tensor], rate: int) -> Tensor:
    """[B, embedder.dim]. Only clips of the same length share a batch, since padding would change what is heard."""
    if rate != embedder.sample_rate and any(wave.requires_grad for wave in waves):
        waves = [resample_tensor(wave[None], rate, embedder.sample_rate)[0] for wave in waves]
    elif rate != embedder.sample_rate:
        waves = [torch.from_numpy(resample(wave.cpu().numpy(), rate, embedder.sample_rate)) for wave in waves]
    rows_of_length: dict[int, list[int]] = defaultdict(list)
    for row, wave in enumerate(waves):
        rows_of_length[wave.shape[-1]].append(row)
    pieces = [embedder.audio(torch.stack([waves[row] for row in rows])) for rows in rows_of_length.values()]
    order = torch.tensor([row for rows in rows_of_length.values() for row in rows])
    return torch.cat(pieces).float()[torch.argsort(order)]
