"""Files whose headers are wrong about their length are read to their end; files that were cut are not."""

from __future__ import annotations

import io
import math
import struct
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.audio import LEAST_BYTES, audio_seconds, read_audio, read_stretches
from plaudit.containers import Splice, layout_of
from plaudit.containers.chunks import is_placeholder
from plaudit.containers.ogg import checksum
from plaudit.errors import AudioError
from tests.audio_bytes import (
    APE,
    ID3,
    RATE,
    TAG,
    encoded,
    ogg_pages,
    sound,
    with_frames,
    with_late_end,
    with_size,
    with_sizes,
    with_total,
    without_header,
    written,
)

NOISE = np.random.default_rng(0).bytes(9000)
WAVE, OTHER = sound(6), sound(3, 1)
QUIET_FIRST = np.concatenate([WAVE / 1000, WAVE])
MP3, FLAC, OGG = encoded(WAVE, "MP3"), encoded(WAVE, "FLAC"), encoded(WAVE, "OGG", "VORBIS")
MP3_2, FLAC_2, OGG_2 = encoded(OTHER, "MP3"), encoded(OTHER, "FLAC"), encoded(OTHER, "OGG", "VORBIS")
OPUS = encoded(sound(2, 2, 48000), "OGG", "OPUS", 48000)
OGG_22 = encoded(OTHER[::2], "OGG", "VORBIS", RATE // 2)
WAV, AU, AIFF = (encoded(WAVE, kind, "PCM_16") for kind in ("WAV", "AU", "AIFF"))
W64, CAF, RF64 = (encoded(WAVE, kind, "PCM_16") for kind in ("W64", "CAF", "RF64"))

WHOLE: dict[str, tuple[str, bytes, float]] = {
    "mp3 without a header": ("mp3", without_header(MP3), 6),
    "mp3 without a header, quiet first": ("mp3", without_header(encoded(QUIET_FIRST, "MP3")), 12),
    "mp3 without a header, loud first": ("mp3", without_header(encoded(QUIET_FIRST[::-1], "MP3")), 12),
    "mp3 of no frames": ("mp3", with_frames(MP3, 0), 6),
    "mp3 of few frames": ("mp3", with_frames(MP3, 10), 6),
    "mp3 of endless frames": ("mp3", with_frames(MP3, 2**32 - 1), 6),
    "mp3 of endless frames and bytes": ("mp3", with_frames(MP3, 2**32 - 1, 2**32 - 1), 6),
    "mp3 behind padding": ("mp3", bytes(3000) + without_header(MP3), 6),
    "mp3 between tags": ("mp3", ID3 + ID3 + without_header(MP3) + APE + TAG, 6),
    "mp3 before zeros": ("mp3", MP3 + bytes(100_000), 6),
    "mp3 twice": ("mp3", MP3 + MP3_2, 9),
    "mp3 twice with tags": ("mp3", ID3 + MP3 + TAG + ID3 + MP3_2 + TAG, 9),
    "mp3 twice without headers": ("mp3", without_header(MP3) + APE + ID3 + without_header(MP3_2), 9),
    "mp3 of two rates": ("mp3", MP3 + encoded(OTHER[::2], "MP3", rate=RATE // 2), 9),
    "mp3 of two numbers of channels": ("mp3", MP3 + encoded(np.stack([OTHER, OTHER], 1), "MP3"), 9),
    "mp3 by another name": ("bin", without_header(MP3), 6),
    "flac of unknown length": ("flac", with_total(FLAC, 0), 6),
    "flac of too few samples": ("flac", with_total(FLAC, 100_000), 6),
    "flac of too many samples": ("flac", with_total(FLAC, 900_000), 6),
    "flac of endless samples": ("flac", with_total(FLAC, 2**36 - 1), 6),
    "flac between tags": ("flac", ID3 + with_total(FLAC, 0) + TAG, 6),
    "flac before zeros": ("flac", with_total(FLAC, 0) + bytes(9000), 6),
    "flac before something": ("flac", with_total(FLAC, 0) + NOISE, 6),
    "flac twice": ("flac", FLAC + with_total(FLAC_2, 0), 9),
    "ogg chain": ("ogg", OGG + OGG_2, 9),
    "ogg chain of itself": ("ogg", OGG + OGG, 12),
    "ogg chain of two codecs and rates": ("oga", OGG + OPUS, 8),
    "ogg chain of two rates": ("ogg", OGG_22 + OGG, 9),
    "ogg chain with something between": ("ogg", OGG + bytes(999) + OGG_2 + ID3, 9),
    "opus chain": ("opus", OPUS + OPUS + OPUS, 6),
    "ogg before zeros": ("ogg", OGG + bytes(200_000), 6),
    "ogg before letters": ("ogg", OGG + b"OggS" + NOISE + b"OggS\0\4", 6),
    "ogg before tags": ("ogg", OGG + APE + TAG, 6),
    "ogg with a late end": ("ogg", with_late_end(OGG, 5806), 6),
    "ogg with a very late end": ("ogg", with_late_end(OGG, 600 * RATE), 6),
    "ogg with an absurd end": ("ogg", with_late_end(OGG, 2**50), 6),
    "wav of more by its header": ("wav", with_sizes(WAV, len(WAV), len(WAV)), 6),
    "wav before a tag": ("wav", WAV + TAG, 6),
    "rf64": ("rf64", RF64, 6),
} | {
    f"wav of {riff:#x}, {data:#x}": ("wav", with_sizes(WAV, riff, data), 6)
    for riff, data in (
        (0, 0), (8, 0), (36, 0), (2**32 - 1, 0), (0, 2**32 - 1), (2**32 - 1, 2**32 - 1), (2**32 - 1, 2**32 - 37),
        (0x7FFF0024, 0x7FFF0000), (0x7FFFF024, 0x7FFFF000), (2**31 - 1, 2**31 - 37), (2**31 + 36, 2**31),
        (0, 2**30), (10**9 + 36, 10**9), (2 * 10**9, 2 * 10**9 - 36), (10**9, 10**9 - 44),
    )
} | {
    f"{kind} of {size:#x}": (kind, with_size(*how, size, skip), 6)
    for kind, how, skip, sizes in (
        ("au", (AU, b".snd\0\0\0\x18", ">I"), 0, (0, 2**31 - 1, 2**32 - 1)),
        ("aiff", (AIFF, b"SSND", ">I"), 0, (0, 8, 2**31 - 1, 2**32 - 1)),
        ("w64", (W64, b"data", "<Q"), 12, (0, 24, 2**62, 2**63 - 1, 2**64 - 1)),
        ("caf", (CAF, b"data", ">Q"), 0, (0, 4, 2**63 - 1, 2**64 - 1)),
        ("rf64", (RF64, b"ds64", "<Q"), 12, (0, 2**40, 2**63 - 1, 2**64 - 1)),
    )
    for size in sizes
}  # fmt: skip


@pytest.mark.parametrize("case", WHOLE)
def test_what_is_there_is_read(tmp_path: Path, case: str, capfd: pytest.CaptureFixture[str]) -> None:
    suffix, data, seconds = WHOLE[case]
    path = written(tmp_path, f"a.{suffix}", data)
    planned = audio_seconds(path)
    wave, rate = read_audio(path)
    assert len(wave) / rate == pytest.approx(seconds, abs=0.06) and planned == pytest.approx(seconds, abs=0.2)
    level = np.array([np.abs(part).mean() for part in np.array_split(wave, round(seconds))])
    assert level.min() > 1e-5, "a second of it is empty"
    assert not capfd.readouterr().err  # decoders write warnings there


def test_the_parts_of_a_chain_are_what_they_are_alone(tmp_path: Path) -> None:
    for suffix, one, two in (("ogg", OGG, OGG_2), ("mp3", MP3, MP3_2), ("flac", FLAC, FLAC_2)):
        alone = [read_audio(written(tmp_path, f"{n}.{suffix}", data))[0] for n, data in enumerate((one, two))]
        together, rate = read_audio(written(tmp_path, f"both.{suffix}", one + two))
        assert rate == RATE and np.array_equal(together, np.concatenate(alone)), suffix
        assert audio_seconds(tmp_path / f"both.{suffix}") == len(together) / RATE


def test_a_link_at_another_rate_is_resampled(tmp_path: Path) -> None:
    wave, rate = read_audio(written(tmp_path, "a.ogg", OGG + OGG_22))
    assert rate == RATE
    alone = read_audio(written(tmp_path, "b.ogg", OGG_2))[0]
    inner = slice(2000, -2000)
    expected, actual = alone[inner], wave[len(WAVE) :][: len(alone)][inner]
    assert np.corrcoef(expected, actual)[0, 1] > 0.9  # every other sample of noise is not the noise


CUT = {"mp3": MP3, "flac": FLAC, "ogg": OGG, "wav": WAV, "au": AU, "aiff": AIFF, "w64": W64, "caf": CAF, "rf64": RF64}


@pytest.mark.parametrize("share", [0.995, 0.97, 0.6, 0.1, 0.002])
@pytest.mark.parametrize("suffix", CUT)
def test_a_file_that_was_cut_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    data = CUT[suffix]
    if suffix == "mp3" and share == 0.995:
        share = 0.98  # an MP3 encoder's count may differ by two frames
    path = written(tmp_path, f"a.{suffix}", data[: int(len(data) * share)])
    with pytest.raises(AudioError, match="truncated") as caught:
        read_audio(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_cut_is_seen_behind_a_chain_and_a_wrong_header(tmp_path: Path) -> None:
    for name, data in (
        ("a.ogg", OGG + OGG_2[:-3000]),
        ("b.flac", with_total(FLAC, 0)[:-3000]),
        ("c.flac", FLAC + FLAC_2[:-3000]),
        ("d.mp3", MP3 + MP3_2[: len(MP3_2) // 2]),
        ("e.ogg", OGG[: ogg_pages(OGG)[-1] + 3]),  # in the middle of the page's header
        ("f.ogg", OGG[: ogg_pages(OGG)[-1] + 21]),
    ):
        with pytest.raises(AudioError, match="truncated"):
            read_audio(written(tmp_path, name, data))


def test_what_is_missing_in_the_middle(tmp_path: Path) -> None:
    pages = ogg_pages(OGG)
    flipped = bytearray(OGG)
    flipped[pages[6] + 500] ^= 0xFF
    for name, data in (("flipped", bytes(flipped)), ("lost", OGG[: pages[6]] + OGG[pages[7] :])):
        with pytest.raises(AudioError, match="truncated"):
            read_audio(written(tmp_path, f"{name}.ogg", data))
    middle = len(pages) // 2  # a recording of a broadcast: headers, and then whatever was on
    joined = written(tmp_path, "broadcast.ogg", OGG[: pages[2]] + OGG[pages[middle] :])
    assert 2 < len(read_audio(joined)[0]) / RATE < 5


@given(st.integers(1, 2**28 - 200))
@settings(max_examples=200, deadline=None)
def test_common_sizes_are_no_placeholders(size: int) -> None:
    assert not is_placeholder(size)


def test_empty_files_stay_empty(tmp_path: Path) -> None:
    header = with_sizes(WAV, 36, 0)[:44]
    for name, data in (
        ("a.wav", header),
        ("b.wav", header + b"LIST\x04\0\0\0INFO"),
        ("c.au", AU[:8] + bytes(4) + AU[12:24]),
    ):
        for read in (read_audio, audio_seconds):
            with pytest.raises(AudioError, match="no samples"):
                read(written(tmp_path, name, data))


@pytest.mark.parametrize("rate", [1, 100, 2**31 - 1])
def test_rates_that_cannot_be(tmp_path: Path, rate: int) -> None:
    path = written(tmp_path, "a.wav", WAV[:24] + struct.pack("<II", rate, rate * 2 & 0xFFFFFFFF) + WAV[32:])
    for read in (read_audio, audio_seconds):
        with pytest.raises(AudioError, match=f"sampling rate of {rate} Hz by its header"):
            read(path)


def test_memory_is_that_of_the_sound_and_not_of_the_header(tmp_path: Path) -> None:
    stereo = np.stack([sound(60), sound(60, 1)], 1)
    for name, data in (
        ("a.flac", with_total(encoded(stereo, "FLAC"), 2**36 - 1)),
        ("b.ogg", with_late_end(encoded(stereo, "OGG", "VORBIS"), 2**50)),
    ):
        path = written(tmp_path, name, data)
        tracemalloc.start()
        read_audio(path)
        whole = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        waves, _ = read_stretches(path, [(20, 1), (50, 2)])
        few = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert [len(wave) for wave in waves] == [RATE, 2 * RATE]
        assert whole < 4 * len(stereo) * 3.5 and few < 9e6, (name, whole, few)


@given(st.lists(st.tuples(st.floats(0, 8), st.floats(0, 8)), max_size=4))
@settings(max_examples=30, deadline=None)
def test_stretches_are_slices_of_the_whole(stretches: list[tuple[float, float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), "a.flac", FLAC)
        whole, rate = read_audio(path)
        waves, same = read_stretches(path, stretches)
        assert same == rate and len(waves) == len(stretches)
        for wave, (start, seconds) in zip(waves, stretches, strict=True):
            begin = round(start * rate)
            assert np.array_equal(wave, whole[begin : max(begin, math.floor(begin + seconds * rate))])


@given(
    st.lists(st.one_of(st.binary(max_size=9), st.tuples(st.integers(0, 40), st.integers(0, 40))), max_size=5), st.data()
)
@settings(max_examples=100, deadline=None)
def test_a_splice_is_its_pieces_joined(pieces: list[bytes | tuple[int, int]], draw: st.DataObject) -> None:
    source = bytes(range(40))
    pieces = [p if isinstance(p, bytes) else (min(p), max(p)) for p in pieces]
    joined = b"".join(p if isinstance(p, bytes) else source[p[0] : p[1]] for p in pieces)
    splice = Splice(io.BytesIO(source), pieces)
    assert splice.read() == joined and splice.seek(0, 2) == len(joined)
    for _ in range(3):
        place, count = draw.draw(st.integers(0, len(joined) + 2)), draw.draw(st.integers(0, 20))
        splice.seek(place)
        assert splice.read(count) == joined[place : place + count] and splice.tell() == min(
            place + count, max(place, len(joined))
        )


def test_a_page_has_the_checksum_that_others_write() -> None:
    for start, end in zip(ogg_pages(OGG), [*ogg_pages(OGG)[1:], len(OGG)], strict=True):
        page = OGG[start:end]
        assert checksum(page[:22] + bytes(4) + page[26:]) == struct.unpack("<I", page[22:26])[0]


def test_any_bytes_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    makers: list[Callable[[bytes], bytes]] = [
        lambda d: d[: dice.integers(1, len(d))],
        lambda d: d[dice.integers(0, len(d)) :],
        lambda d: bytes(b ^ (255 if dice.random() < 1e-4 else 0) for b in d[:30000]) + d[30000:],
        lambda d: d[:200].translate(bytes(dice.permutation(256).tolist())) + d[200:],
    ]
    for suffix, data in CUT.items():
        for number, make in enumerate(makers * 3):
            path = written(tmp_path, f"{number}.{suffix}", make(data))
            layout_of(path)
            try:
                assert audio_seconds(path) < 1 + path.stat().st_size / LEAST_BYTES
                wave, _ = read_audio(path)
                assert np.isfinite(wave).all()
            except AudioError as error:
                assert "\n" not in str(error)
