"""Output formats of audio: container, bit depth, dither, and tags with the provenance of the clip."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import soundfile
from pydantic import Field, model_validator

from plaudit import __version__
from plaudit.errors import AudioError
from plaudit.settings import Settings, option
from plaudit.sidecars import read_sidecar
from plaudit.writing import is_utf8

Container = Literal["wav", "flac", "mp3", "ogg"]

_BLOCK = 1 << 16
"""Samples encoded at once: libsndfile's Vorbis encoder overflows its stack on minutes at once."""

_LONGEST_TAG = 2000
"""Bytes of one tag: libsndfile gives up reading the INFO chunk of a wav file at about 2,040."""


class AudioFormat(Settings):
    """The format of an audio file.

    bits: of wav (16, 24 or 32, which is floating point) and flac (16 or 24); mp3 and ogg (Vorbis) have none.
    dither: add triangular noise of two steps' width before rounding to integers, so that the error does not follow the
    music. quality: of mp3 and ogg, variable bit rate.
    """

    container: Container = option("wav", "--format", help="File format.", panel="Files")
    bits: Literal[16, 24, 32] = option(
        16, "--bits", help="Bits a sample: 16, 24, or 32 for floating point.", panel="Files"
    )
    dither: bool = True
    quality: Annotated[float, Field(gt=0, le=1)] = 1.0

    @model_validator(mode="after")
    def _bits_fit(self) -> AudioFormat:
        if self.container == "flac" and self.bits == 32:
            raise ValueError("flac has 16 or 24 bits; take wav for floating point")
        return self

    @property
    def suffix(self) -> str:
        """The file name's suffix, with its dot."""
        return f".{self.container}"

    @property
    def lossy(self) -> bool:
        """Whether decoding returns another waveform than the one encoded."""
        return self.container in ("mp3", "ogg")

    @property
    def subtype(self) -> str:
        """libsndfile's name of the encoding."""
        depths = {16: "PCM_16", 24: "PCM_24", 32: "FLOAT"}
        return {"mp3": "MPEG_LAYER_III", "ogg": "VORBIS"}.get(self.container, depths[self.bits])

    def check_writable(self) -> None:
        """AudioError where the libsndfile that is installed cannot write this format."""
        if not soundfile.check_format(self.container.upper(), self.subtype):
            version = soundfile.__libsndfile_version__
            raise AudioError(f"libsndfile {version} writes no {self.container}; take wav or flac")


def encode_audio(
    wave: np.ndarray, rate: int, audio_format: AudioFormat, dither_seed: int = 0, tags: dict[str, Any] | None = None
) -> bytes:
    """The file that holds the waveform [T]; the same `dither_seed` gives the same samples.

    tags: plain JSON values that `read_tags` gives back; `prompt` is the title as well. What lies beyond +-1 is clipped
    where the format has integers, and digital silence is not dithered. AudioError for what is not finite, and for a
    format or rate that cannot be written.
    """
    from plaudit.audio import check_finite

    check_finite(wave, "the waveform to be encoded")
    audio_format.check_writable()
    samples = np.asarray(wave, dtype=np.float32)
    if not audio_format.lossy and audio_format.bits < 32:
        samples = _integers(samples, audio_format, dither_seed)
    # libsndfile's levels go from 0, the best, to almost 1.
    level = 0.99 * (1 - audio_format.quality) if audio_format.lossy else None
    memory = io.BytesIO()
    name = audio_format.container.upper()
    try:
        with soundfile.SoundFile(
            memory, "w", rate, 1, audio_format.subtype, format=name, compression_level=level
        ) as file:
            for key, text in _strings(tags or {}).items():
                setattr(file, key, text)
            for start in range(0, len(samples), _BLOCK):
                file.write(samples[start : start + _BLOCK])
    except soundfile.SoundFileError as error:
        raise AudioError(f"{audio_format.container} at {rate} Hz cannot be written ({error}); take another") from None
    return memory.getvalue()


def decode_audio(encoded: bytes) -> np.ndarray:
    """The waveform float32 [T] that a mono file holds."""
    return soundfile.read(io.BytesIO(encoded), dtype="float32")[0]


def read_tags(path: Path) -> dict[str, Any]:
    """The tags that `encode_audio` wrote into a file; {} where there are none. AudioError where it is no audio."""
    try:
        with soundfile.SoundFile(path if is_utf8(str(path)) else os.fsencode(path)) as file:
            tags = json.loads(file.comment)
    except soundfile.SoundFileError as error:
        raise AudioError(f"{path} cannot be read ({error}); check the file") from None
    except json.JSONDecodeError:
        return {}
    return tags if isinstance(tags, dict) else {}


def recorded_prompt(path: Path) -> str:
    """The prompt that a clip was generated from, by its sidecar or its tags; "" where neither records one."""
    prompt = read_sidecar(path).get("prompt")
    if not (isinstance(prompt, str) and prompt.strip()) and os.path.isfile(path):
        try:
            prompt = _tagged_prompt(path)
        except (AudioError, OSError, TypeError, ValueError):  # not audio, which decoding it reports
            return ""
    return prompt.strip() if isinstance(prompt, str) else ""


def _tagged_prompt(path: Path) -> str:
    prompt = read_tags(path).get("prompt")
    if not isinstance(prompt, str):
        return ""
    with soundfile.SoundFile(path) as file:
        title = str(file.title)
    # The title holds more of a long prompt than the JSON text does.
    return title if title.startswith(prompt) else prompt


def _integers(samples: np.ndarray, audio_format: AudioFormat, seed: int) -> np.ndarray:
    """Whole steps, as int16, or as int32 with the lowest byte empty where there are 24 bits: [T]."""
    full = 2 ** (audio_format.bits - 1)
    steps = samples.astype(np.float64) * full
    if audio_format.dither and samples.any():
        dice = np.random.default_rng(seed)
        steps += dice.random(len(steps)) - dice.random(len(steps))
    steps = np.clip(np.round(steps), -full, full - 1)
    return steps.astype(np.int16) if audio_format.bits == 16 else steps.astype(np.int32) << 8


def _strings(tags: dict[str, Any]) -> dict[str, str]:
    """soundfile's string attributes. The tags are one JSON text in ASCII, the only encoding that all formats share.

    Where they are too long, the last of them are left out, and the prompt is cut.
    """
    tags = dict(tags)
    while len(text := json.dumps(tags, separators=(",", ":"))) > _LONGEST_TAG and len(tags) > 1:
        tags.popitem()
    if len(text) > _LONGEST_TAG:
        tags = {name: str(value)[: _LONGEST_TAG // 12] for name, value in tags.items()}  # \\uXXXX twice a character
        text = json.dumps(tags, separators=(",", ":"))
    title = str(tags.get("prompt", "")).encode()[:_LONGEST_TAG].decode(errors="ignore")
    strings = {"title": title, "comment": text, "software": f"plaudit {__version__}"} if tags else {}
    return {key: value for key, value in strings.items() if value}
