"""The example of a codec: what it keeps of a waveform comes back, a corpus is encoded, and a model generates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from plaudit import loading
from plaudit.audio import write_wav
from plaudit.backbone import FluxAudio, FluxAudioConfig, initialize
from plaudit.corpus.layouts import FolderCorpus
from plaudit.corpus.shard_set import ShardSet
from plaudit.corpus.shards import encode_corpus
from plaudit.generate.model import ModelConfig, TextToMusic, save_model
from plaudit.generate.settings import SamplingSettings
from tests.examples.small import EXAMPLES

CODEC = f"{EXAMPLES / 'codec.py'}:CosineCodec"
TEXT = f"{EXAMPLES / 'encoders.py'}:HashedWords"


def tone(hertz: float, samples: int = 16 * 512) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(samples) / 16_000).astype(np.float32)


def test_low_frequencies_come_back_and_high_ones_do_not() -> None:
    codec = loading.CODECS.load(CODEC)
    for hertz, least, most in ((300, 0.0, 0.05), (4000, 0.95, 1.0)):
        wave = torch.from_numpy(tone(hertz))[None]
        back = codec.decode(codec.encode(wave).mean)
        assert back.shape == wave.shape
        assert least <= float((back - wave).square().mean() / wave.square().mean()) <= most


def test_it_encodes_a_corpus(tmp_path: Path) -> None:
    names = [f"{hertz}.wav" for hertz in (200, 300, 400)]
    for name in names:
        write_wav(tmp_path / "music" / name, tone(float(name[:3])), 16_000)
    rows = "".join(f"{name},a tone of {name[:3]} Hz\n" for name in names)
    (tmp_path / "music" / "clips.csv").write_text("file,caption\n" + rows)
    codec, text = loading.CODECS.load(CODEC), loading.TEXT_ENCODERS.load(TEXT)
    corpus = FolderCorpus(tmp_path / "music", Path("clips.csv"), validation=0, test=0)
    encode_corpus(corpus, codec, text, tmp_path / "shards", 8192 / 16_000)
    shards = ShardSet(tmp_path / "shards")
    assert (len(shards), shards.frames, shards.latent_dim) == (3, 16, 64)
    back = codec.decode(shards.posterior(np.array([0])).mean)
    assert float((back[0] - torch.from_numpy(tone(200))).square().mean()) < 0.01


def test_a_model_that_names_it_generates(tmp_path: Path) -> None:
    codec, text = loading.CODECS.load(CODEC), loading.TEXT_ENCODERS.load(TEXT)
    config = FluxAudioConfig(
        latent_dim=codec.latent_dim, text_dim=text.token_dim, text_c_dim=text.pooled_dim, text_length=text.length,
        hidden_dim=32, depth=2, fused_depth=1, num_heads=2, mlp_multiple=16,
    )  # fmt: skip
    backbone = FluxAudio(config)
    initialize(backbone, 0)
    model = TextToMusic(backbone.eval(), codec, text, ModelConfig(config, CODEC, TEXT, 1.024, "Apache-2.0", {}))
    save_model(tmp_path / "model", model)
    settings = SamplingSettings(steps=2, precision="no")
    wave = loading.load(str(tmp_path / "model"), "cpu").generate("a bright tone", 1, settings)
    assert wave.shape[-1] == 32 * codec.hop and torch.isfinite(wave).all()
