"""Synthetic music in the layout of MTG-Jamendo: MP3 files, captions as JSON, scores as CSV, some files broken."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from plaudit.audio import resample
from plaudit.synthetic.corpus import SyntheticCorpus
from plaudit.workers import thread_count

FAULTS = ("missing", "empty", "truncated", "garbage", "silent", "short")


@dataclass(frozen=True)
class JamendoFolder:
    """The files written; `broken`: tracks by id with the fault of each."""

    audio: Path
    captions: Path
    scores: Path
    tracks: list[str]
    broken: dict[str, str]


def write_jamendo(
    folder: Path, tracks: int, seconds: float, broken_fraction: float = 0.02, rate: int = 44100, channels: int = 2
) -> JamendoFolder:
    """`tracks` tracks of `seconds`; every third is named as instrumental, every second has a score."""
    corpus = SyntheticCorpus(tracks, seconds, seed=11)
    audio = folder / "audio"
    numbers = [214 + 97 * i for i in range(tracks)]
    ids = [f"{number % 100:02d}/{number}" for number in numbers]
    every = max(1, round(1 / broken_fraction)) if broken_fraction else tracks + 1
    broken = {id: FAULTS[i // every % len(FAULTS)] for i, id in enumerate(ids) if i % every == every - 1}

    def write(index: int) -> None:
        path = audio / f"{ids[index]}{'_instrumental' if index % 3 == 0 else ''}.mp3"
        path.parent.mkdir(parents=True, exist_ok=True)
        fault = broken.get(ids[index])
        if fault == "missing":
            return
        wave = resample(corpus.render(corpus.clips[index]), corpus.rate, rate)
        wave = {"silent": 0 * wave, "short": wave[: rate // 4]}.get(fault or "", wave)
        soundfile.write(path, np.stack([wave] * channels, axis=1), rate, format="MP3")
        data = path.read_bytes()
        damaged = {"empty": b"", "truncated": data[: len(data) // 2], "garbage": b"no music " * 999}
        if fault in damaged:
            path.write_bytes(damaged[fault])

    with ThreadPoolExecutor(thread_count()) as pool:
        list(pool.map(write, range(tracks)))
    items = [{"path": f"{id}.mp3", "caption": clip.caption} for id, clip in zip(ids, corpus.clips, strict=True)]
    (folder / "captions.json").write_text(json.dumps(items))
    rows = [f"track_{number:07d},{i / tracks:.3f}" for i, number in enumerate(numbers) if i % 2 == 0]
    (folder / "scores.csv").write_text("\n".join(["track_id,reward_score", *rows]) + "\n")
    return JamendoFolder(audio, folder / "captions.json", folder / "scores.csv", ids, broken)
