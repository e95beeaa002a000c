"""What the reward's head sees of a clip and its prompt: frozen encoders' embeddings, side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from plaudit.errors import ModelError
from plaudit.reward.recording import Recording, View
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

        Differentiable in the waves where the encoders are. AudioError for a clip that is empty, silent or not finite,
        naming its place.
        """
        return self.recording_features([Recording(wave, rate, f"clip {index}") for index, wave in enumerate(waves)])

    @property
    def views(self) -> tuple[View, ...]:
        """The forms in which the encoders hear a recording."""
        heard = {"clap_audio": View(self.clap.sample_rate, CLAP_SECONDS), "audio": View(self.listener.sample_rate)}
        return tuple(view for part, view in heard.items() if self._clip_dims[part])

    def recording_features(self, recordings: Sequence[Recording]) -> Tensor:
        """The same of recordings [B] at any rates -> [B, clip_dim]."""
        parts = []
        if self._clip_dims["clap_audio"]:
            centres = View(self.clap.sample_rate, CLAP_SECONDS)
            parts.append(embed_batched(self.clap, [recording.heard(centres) for recording in recordings]))
        if self._clip_dims["audio"]:
            all_of_it = View(self.listener.sample_rate)
            parts.append(embed_whole(self.listener, [recording.heard(all_of_it) for recording in recordings]))
        return torch.cat(parts, dim=-1) if parts else torch.zeros(len(recordings), 0)

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


def segments(samples: int, rate: int) -> list[int]:
    """Lengths of the segments of SEGMENT_SECONDS that a track of `samples` is heard in; the last is what is left."""
    full = round(SEGMENT_SECONDS * rate)
    whole, rest = divmod(samples, full)
    lengths = [full] * whole
    if not lengths or rest >= SHORTEST_REST * rate:
        return [*lengths, rest] if rest else lengths
    return [*lengths[:-1], full + rest]


def embed_whole(listener: AudioEmbedder, waves: Sequence[Tensor]) -> Tensor:
    """[B, listener.dim] of waves [T] at its rate: the mean over their segments, weighted by their lengths."""
    lengths = [segments(wave.shape[-1], listener.sample_rate) for wave in waves]
    pieces = [piece for wave, cut in zip(waves, lengths, strict=True) for piece in wave.split(cut)]
    heard = embed_batched(listener, pieces).split([len(cut) for cut in lengths])
    weights = [torch.tensor(cut, dtype=torch.float64) / sum(cut) for cut in lengths]
    return torch.stack([weight.to(rows) @ rows for weight, rows in zip(weights, heard, strict=True)])


def embed_batched(embedder: AudioEmbedder, waves: Sequence[Tensor]) -> Tensor:
    """[B, embedder.dim] of waves [T] at its rate. Only clips of the same length share a batch: padding is heard."""
    rows_of_length: dict[int, list[int]] = defaultdict(list)
    for row, wave in enumerate(waves):
        rows_of_length[wave.shape[-1]].append(row)
    pieces = [embedder.audio(torch.stack([waves[row] for row in rows])) for rows in rows_of_length.values()]
    order = torch.tensor([row for rows in rows_of_length.values() for row in rows])
    return torch.cat(pieces).float()[torch.argsort(order)]
