"""Decoding in parts is decoding of the whole, and a loop's end goes on at its start."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from plaudit.codec import mel_codec as mel_codec
from plaudit.codec.bigvgan import BigVGANConfig
from plaudit.codec.chunks import cross_faded, decode_piece, frame_ranges, in_chunks
from plaudit.codec.mel_codec import MelCodec
from plaudit.codec.mel_vae import CONTEXT
from plaudit.synthetic import codec as synthetic_codec
from plaudit.synthetic.codec import SyntheticCodec, load_synthetic_codec, noise_bands, noise_frames
from plaudit.synthetic.corpus import SyntheticCorpus
from tests.codec.test_mel_codec import tiny_codec
from tests.generate.tiny import FoldingCodec
from tests.synthetic.test_codec import SMALL

PADDED = nn.Conv1d(2, 3, 5, padding=2)


def convolve(x: Tensor) -> Tensor:
    return PADDED(x.transpose(1, 2)).transpose(1, 2)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(count=st.integers(1, 40), size=st.integers(1, 45), context=st.integers(0, 50), loop=st.booleans())
def test_chunks_keep_every_frame_once_and_see_their_context(count: int, size: int, context: int, loop: bool) -> None:
    found = frame_ranges(count, size, context, loop)
    assert [frame for c in found for frame in range(c.start, c.stop)] == list(range(count))
    for c in found:
        assert c.start - c.first == (context if loop else min(context, c.start))
        assert c.last - c.stop == (context if loop else min(context, count - c.stop))


@given(count=st.integers(1, 30), size=st.integers(1, 35), loop=st.booleans())
@settings(deadline=None)
def test_chunks_of_a_convolution_are_those_of_the_whole(count: int, size: int, loop: bool) -> None:
    x = random(2, count, 2)
    with torch.no_grad():
        if loop:  # the whole is a turn in the middle of many
            expected = convolve(x.repeat(1, 5, 1))[:, 2 * count : 3 * count]
        else:
            expected = convolve(x)
        made = torch.cat(list(in_chunks(convolve, x, size, 2, 1, loop)), 1)
        faded = cross_faded(convolve, x, size, 2, 4, 1, loop)
    torch.testing.assert_close(made, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(faded, expected, atol=1e-5, rtol=0)


def test_too_little_context_is_audible() -> None:
    """The comparison above can fail."""
    x = random(1, 30, 2)
    with torch.no_grad():
        assert (torch.cat(list(in_chunks(convolve, x, 10, 1, 1)), 1) - convolve(x)).abs().max() > 0.01


@pytest.fixture(scope="module")
def codec() -> SyntheticCodec:
    return load_synthetic_codec()


@pytest.fixture(scope="module")
def latents(codec: SyntheticCodec) -> Tensor:
    """The shipped codec's latents of twenty seconds of synthetic music: two clips, one after the other."""
    corpus = SyntheticCorpus(2, 10.0, 5, 0.0, 0.0)
    waves = torch.stack([torch.from_numpy(corpus.render(clip)) for clip in corpus.clips])
    with torch.inference_mode():
        return codec.encode(waves[:, : 156 * codec.hop]).mean.flatten(0, 1)[None]


def jump(wave: Tensor, at: int) -> float:
    """How far the curvature at sample `at` of a wave [T] exceeds what it is elsewhere: a click or a cut is far above 1.

    The greatest third difference over a millisecond, relative to the 99.9th percentile of such maxima.
    """
    rough = torch.nn.functional.max_pool1d(wave.diff(n=3).abs()[None], 16, 1)[0]
    return float(rough[at - 16 : at].max() / rough.quantile(0.999))


@pytest.mark.parametrize("part", [1, 40, 156])
def test_the_synthetic_codec_decodes_in_parts_what_it_decodes_at_once(
    codec: SyntheticCodec, latents: Tensor, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic_codec, "LATENTS_AT_ONCE", part)
    some = latents[:, : 12 if part == 1 else 312].repeat(2, 1, 1)
    some[1] = some[1].flip(0)
    with torch.inference_mode():
        whole, made = codec.decode(some), decode_piece(codec, some)
    assert made.shape == whole.shape
    # The phases of the whole are one long sum in float32; those of the parts are kept within a turn.
    assert (made - whole).abs().max() < 2e-4 * whole.abs().max()


def test_as_long_as_a_part_is_decoded_as_ever(codec: SyntheticCodec, latents: Tensor) -> None:
    with torch.inference_mode():
        assert torch.equal(decode_piece(codec, latents[:, :156]), codec.decode(latents[:, :156]))


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_a_loop_is_the_same_in_parts_of_any_size(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = SyntheticCodec(SMALL).eval()
    some = random(2, count, codec.latent_dim)
    made = []
    with torch.inference_mode():
        for part in (156, 3):
            monkeypatch.setattr(synthetic_codec, "LATENTS_AT_ONCE", part)
            made.append(decode_piece(codec, some, loop=True))
    assert made[0].shape == (2, count * codec.hop)
    torch.testing.assert_close(made[1], made[0], atol=1e-4 * float(made[0].abs().max()), rtol=0)


def test_the_end_of_a_loop_goes_on_at_its_start(codec: SyntheticCodec, latents: Tensor) -> None:
    """Of a steady sound, whose oscillators are bent away from whole turns, the join is like any other place."""
    steady = latents[:, 60:61].expand(1, 50, -1)
    codec = deepcopy(codec)
    codec.decoder.noise.bias.data -= 20  # noise would hide the jump
    with torch.inference_mode():
        loop, plain = decode_piece(codec, steady, loop=True)[0], codec.decode(steady)[0]
    assert jump(loop.repeat(2), len(loop)) < 1.5
    assert jump(plain.repeat(2), len(plain)) > 3


def test_closing_a_loop_leaves_its_tones_where_they_are(codec: SyntheticCodec, latents: Tensor) -> None:
    parts = frame_ranges(100, 156, codec.decoder.context + 1, True)
    with torch.inference_mode():
        closing = codec._closing_bend(latents[:, :100], parts)
    # Half a turn in the 6.4 s of this loop is 0.08 Hz; a bend is in bins of 15.6 Hz.
    assert closing.abs().max() * 15.625 <= 0.5 / 6.4 + 1e-4
    # A loop must hold whole turns of every oscillator.
    with torch.inference_mode():
        bend = codec.decoder(parts[0].of(latents[:, :100])).bend[:, 4 * (codec.decoder.context + 1) :][:, :400]
        turns = (bend + closing).double().sum(1) / 4
    assert (turns - turns.round()).abs().max() < 1e-3


def test_noise_keeps_its_level_where_a_loop_or_its_table_begins_anew() -> None:
    turn = noise_frames(0, 3 * 1600, 1600)
    assert torch.equal(turn[1600:3200], turn[:1600]) and torch.equal(turn[:1600], noise_frames(0, 1600))
    for period, noise in ((1600, turn), (2048, noise_frames(0, 3 * 2048))):
        wave = noise_bands(torch.full((1, 3 * period, turn.shape[1]), math.log(0.1)), noise)[0]
        level = 20 * wave.unfold(0, 512, 64).square().mean(1).sqrt().log10()
        joins = torch.cat([level[join - 12 : join + 4] for join in (period, 2 * period)])
        assert (joins - level.mean()).abs().max() < 0.7  # dB


def without_attention(codec: MelCodec) -> MelCodec:
    codec.vae.decoder.middle.attention.out.weight.data.zero_()
    return codec


@pytest.mark.parametrize("loop", [False, True])
def test_a_mel_codec_decodes_in_parts_what_it_decodes_at_once(loop: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the attention, which parts cannot have in common with the whole, is exact."""
    codec = without_attention(tiny_codec())
    monkeypatch.setattr(mel_codec, "PART_SECONDS", 120 * codec.hop / codec.sample_rate)
    some = random(2, 300, 3)
    with torch.inference_mode():
        made = decode_piece(codec, some, loop)
        if loop:
            whole = codec.decode(some.repeat(1, 3, 1))[:, 300 * codec.hop : 600 * codec.hop]
        else:
            whole = codec.decode(some)
    assert made.shape == whole.shape == (2, 300 * codec.hop)
    torch.testing.assert_close(made, whole, atol=1e-5, rtol=1e-4)


def test_the_contexts_are_as_wide_as_they_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = without_attention(tiny_codec())
    vocoder = codec.vocoder.config.context
    some = random(1, 200, 3).double()
    codec.double()
    with torch.inference_mode():
        mel = codec.vae.decode(some)
        changed = some.clone()
        changed[:, 100] += 1
        reached = (codec.vae.decode(changed) != mel).any(1).nonzero()[:, 1] // 2
        assert 100 - reached.min() <= CONTEXT and reached.max() - 100 <= CONTEXT
        wave = codec.vocoder(mel)
        other = mel.clone()
        other[:, :, 200] += 1
        changed = (codec.vocoder(other) != wave).nonzero()[:, 1] // codec.vocoder.config.hop
        assert 0 < 200 - changed.min() <= vocoder and changed.max() - 200 <= vocoder
    published = BigVGANConfig(
        128, 1536, (8, 4, 2, 2, 2, 2), (16, 8, 4, 4, 4, 4), (3, 7, 11), ((1, 3, 5),) * 3, False, False
    )
    assert published.context == 25


def test_attention_makes_parts_differ_smoothly_and_only_a_little() -> None:
    """Of a random VAE, the mel of parts is within a tenth of the whole's, and fades over where a cut would jump."""
    vae, some = tiny_codec().vae, random(1, 300, 3)
    steps = {}
    with torch.inference_mode():
        whole = vae.decode(some).transpose(1, 2)
        for fade in (mel_codec.FADE, 0):
            apart = cross_faded(lambda x: vae.decode(x).transpose(1, 2), some, 46, CONTEXT, fade, 2) - whole
            assert 0 < apart.std() / whole.std() < 0.1
            steps[fade] = torch.cat([apart[:, 2 * at - 1 : 2 * at + 1].diff(dim=1) for at in range(46, 300, 46)]).std()
    assert steps[mel_codec.FADE] < 0.5 * steps[0]


@pytest.mark.parametrize("loop", [False, True])
def test_no_network_sees_more_than_a_part_and_its_context(loop: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[nn.Module, list[int]] = {}

    def watch(network: nn.Module, axis: int) -> None:
        lengths = seen.setdefault(network, [])
        network.register_forward_pre_hook(lambda module, given: lengths.append(given[0].shape[axis]))

    small, mel = SyntheticCodec(SMALL).eval(), tiny_codec()
    monkeypatch.setattr(synthetic_codec, "LATENTS_AT_ONCE", 20)
    monkeypatch.setattr(mel_codec, "PART_SECONDS", 120 * mel.hop / mel.sample_rate)
    watch(small.decoder, 1)
    watch(mel.vae.decoder, 2)
    watch(mel.vocoder, 2)
    with torch.inference_mode():
        decode_piece(small, random(1, 200, small.latent_dim), loop)
        decode_piece(mel, random(1, 500, 3), loop)
    assert max(seen[small.decoder]) <= 20 + 2 * (small.decoder.context + 1)
    assert max(seen[mel.vae.decoder]) <= 120
    assert max(seen[mel.vocoder]) <= 240 + 2 * mel.vocoder.config.context
    assert all(len(lengths) > 3 for lengths in seen.values())


def test_a_codec_that_knows_no_parts_decodes_at_once() -> None:
    codec, some = FoldingCodec(), random(1, 7, 5)
    assert torch.equal(decode_piece(codec, some), codec.decode(some))
    assert torch.equal(decode_piece(codec, some, loop=True), codec.decode(some))
