"""Tiny data sets in the layouts in which they are published."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import soundfile

RATE = 8000
AUDIO = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def wav(pitch: float, seconds: float = 1.0) -> bytes:
    """A tone as the bytes of a wav file."""
    memory = io.BytesIO()
    time = np.arange(round(seconds * RATE)) / RATE
    soundfile.write(memory, 0.3 * np.sin(2 * np.pi * pitch * time), RATE, format="WAV")
    return memory.getvalue()


def write_file(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def write_parquet(path: Path, columns: dict[str, Any], audio: tuple[str, ...] = (), group: int = 2) -> None:
    """A Parquet file with small row groups, whose audio columns have the type that the Hub gives them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: pyarrow.array(values, AUDIO if name in audio else None) for name, values in columns.items()}
    pyarrow.parquet.write_table(pyarrow.table(arrays), path, row_group_size=group)


def battle(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "battle_uuid": f"uuid-{number}",
        "date": "2026-02-01T00:00:00-05:00",
        "prompt": f"prompt {number}",
        "is_instrumental": True,
        "user_pseudonym": f"user {number % 2}",
        "audio_a": f"list_audio_files/07-2026FEB/{number}a.wav",
        "system_a": "sonauto-v2-2",
        "audio_b": f"list_audio_files/07-2026FEB/{number}b.wav",
        "system_b": "riffusion-fuzz-1-0",
        "preference": "A",
        "lyrics": "",
        **changes,
    }


def music_arena(folder: Path, battles: list[dict[str, Any]]) -> Path:
    for number, record in enumerate(battles):
        write_file(folder / "battle_data" / "07-2026FEB" / f"log-{number}.json", json.dumps(record))
        for side in ("audio_a", "audio_b"):
            if record.get(side):
                write_file(folder / record[side], wav(200 + 10 * number))
    write_file(folder / "metadata" / "07-2026FEB.md", "# Music Arena Dataset")
    return folder


def musicprefs(folder: Path) -> Path:
    rows = [
        "prompt,audio_a,audio_b,system_a,system_b,musicality,fidelity",
        '"slow, sad piano",x_0.wav,y_0.wav,musicgen-small,stable-audio,A_wins,B_wins',
        "upbeat funk,x_1.wav,y_1.wav,musicgen-small,riffusion,tie,A_wins",
        "upbeat funk,x_1.wav,z_1.wav,musicgen-small,mustango,B_wins,A_wins",
    ]
    write_file(folder / "human_preference.csv", "\n".join(rows) + "\n")
    names = ["x_0.wav", "y_0.wav", "x_1.wav", "y_1.wav", "z_1.wav"]
    cells = [{"bytes": wav(220 + 50 * n), "path": name} for n, name in enumerate(names)]
    write_parquet(folder / "data" / "train-00000-of-00002.parquet", {"audio": cells[:3]}, ("audio",))
    write_parquet(folder / "data" / "train-00001-of-00002.parquet", {"audio": cells[3:]}, ("audio",))
    return folder


def aime(folder: Path, answers: tuple[int, ...] = (1, 2)) -> Path:
    count = len(answers)
    measure_durations = {
        "question-type": ["Music Quality", "Text-Audio Alignment"][:count],
        "description": ["newage, world, celtic"] * count,
        "model-1": ["Suno v3"] * count,
        "model-2": ["MusicGen Large"] * count,
        "track-1-id": [5331] * count,
        "track-1-begin": ["00:00:02"] * count,
        "track-1-end": ["00:00:03"] * count,
        "track-2-id": [1226, 9999][:count],
        "track-2-begin": ["00:00:00"] * count,
        "track-2-end": ["00:00:01"] * count,
        "answer": list(answers),
    }
    write_parquet(folder / "AIME-survey" / "data" / "train-00000-of-00001.parquet", measure_durations)
    # Two seconds of one pitch, then two of another: the excerpt from second 2 to 3 has the second.
    changing = np.concatenate([soundfile.read(io.BytesIO(wav(pitch, 2.0)))[0] for pitch in (250, 1000)])
    memory = io.BytesIO()
    soundfile.write(memory, changing, RATE, format="WAV")
    tracks = {
        "id": ["01226", "05331"],
        "model": ["MusicGen Large", "Suno v3"],
        "description": [["newage", "world", "celtic"]] * 2,
        "audio": [{"bytes": wav(500, 2.0), "path": "01226.wav"}, {"bytes": memory.getvalue(), "path": "05331.wav"}],
    }
    write_parquet(folder / "AIME" / "data" / "train-00000-of-00001.parquet", tracks, ("audio",))
    return folder


def songeval(folder: Path, ratings: list[list[dict[str, int]]]) -> Path:
    lines = []
    for number, annotation in enumerate(ratings):
        write_file(folder / "mp3" / f"{number}.mp3", wav(200 + 30 * number))
        lines.append(json.dumps({"file_name": f"mp3/{number}.mp3", "gender": "female", "annotation": annotation}))
    write_file(folder / "metadata.jsonl", "\n".join(lines) + "\n")
    return folder


def rating(value: int, **changes: int) -> dict[str, int]:
    return dict.fromkeys(("Coherence", "Musicality", "Memorability", "Clarity", "Naturalness"), value) | changes
