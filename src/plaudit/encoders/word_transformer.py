"""A small transformer over hashed words: the reader inside the embedded text encoder and the embedded CLAP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plaudit.encoders.words import BUCKETS, LENGTH, WordBatch


class WordTransformer(nn.Module):
    """Hashed words -> one vector per position, `depth` pre-norm transformer layers of `width` (ours)."""

    def __init__(self, width: int = 128, depth: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(BUCKETS + 1, width, padding_idx=0)
        self.position = nn.Parameter(torch.zeros(LENGTH, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.embedding.weight, std=0.05)
        nn.init.normal_(self.position, std=0.02)

    def forward(self, batch: WordBatch) -> Tensor:
        """-> [B, LENGTH, width], layer-normed, zero at padding."""
        longest = int((batch.index != 0).sum(1).max())
        index = batch.index[:, :longest]  # what is padding in every text need not be computed
        present = index != 0  # [B, L]
        found = (batch.grams != 0).sum(1, keepdim=True)  # [V, 1]
        vectors = self.embedding(batch.grams).sum(1) / found.clamp(min=1).sqrt()  # [V, W]
        x = vectors[index] + self.position[:longest]  # [B, L, W]
        for block in self.blocks:
            x = block(x, present)
        return F.pad(self.norm(x) * present.unsqueeze(-1), (0, 0, 0, LENGTH - longest))

    @staticmethod
    def pool(tokens: Tensor, batch: WordBatch) -> Tensor:
        """The mean of each text's words, start mark included: [B, LENGTH, width] -> [B, width].

        Every word reaches the mean from the first step of training; what only the start mark's attention could
        fetch, such as the rarely named key, took thousands of steps to be noticed.
        """
        return tokens.sum(1) / (batch.index != 0).sum(1, keepdim=True)


class Block(nn.Module):
    """Self-attention and a feed-forward layer, each normed before and added after."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """x [B, L, W] -> [B, L, W]; positions that are not `present` [B, L] are attended by nobody."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, L, W/H]
            for part in self.qkv(self.norm_attention(x)).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=present[:, None, None, :])
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.feed(self.norm_feed(x))
