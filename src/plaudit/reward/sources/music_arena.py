"""Music Arena (arXiv 2507.20900): battles between systems, voted on by visitors of its site.

Published as music-arena/music-arena-dataset, CC BY 4.0: one JSON a battle under `battle_data/<month>/` whose audio_a
and audio_b are files under the same folder, or the same fields as Parquet; and, in the project's logs, with
a_metadata, b_metadata and vote as nested objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

from plaudit.errors import VoteError
from plaudit.reward.sources.layout import (
    Record,
    SourceClip,
    SourceVotes,
    json_rows,
    need_folder,
    parquet_rows,
    struct_columns,
    unrecognized,
)
from plaudit.reward.votes import parse_winner
from plaudit.types import Vote

_REQUIRED = ("battle_uuid", "prompt", "preference", "system_a", "system_b", "audio_a", "audio_b")
_OPTIONAL = ("user_pseudonym",)


def read(folder: Path) -> SourceVotes:
    """The battles with a vote whose audio is published for both sides; the listener is the pseudonym.

    VoteError where the folder holds no battles, or a battle lacks a field.
    """
    need_folder(folder)
    votes: list[Vote] = []
    clips: dict[str, SourceClip] = {}
    skipped: Counter[str] = Counter()
    for row, parquet, number in _battles(folder):
        if row.values["preference"] is None:
            skipped["no vote"] += 1
            continue
        audio = {side: row.values[f"audio_{side}"] for side in ("a", "b")}
        if not all(audio.values()):
            skipped["audio not published"] += 1
            continue
        identifier = row.text("battle_uuid")
        for side, path in audio.items():
            file = SourceClip(folder / str(path)) if parquet is None else SourceClip(parquet, f"audio_{side}", number)
            if file.column is not None or file.file.is_file():
                clips[f"{identifier}_{side}"] = file
        votes.append(
            Vote(
                id=identifier,
                prompt=row.text("prompt", ""),
                a=f"{identifier}_a",
                b=f"{identifier}_b",
                winner=parse_winner(row.text("preference"), f"{row.where}: column 'preference'"),
                system_a=row.text("system_a"),
                system_b=row.text("system_b"),
                source="music-arena",
                listener=row.text("user_pseudonym", ""),
            )
        )
    if not votes and not skipped:
        raise unrecognized(folder, "battles of Music Arena (battle_data/*/*.json or *.parquet)")
    return SourceVotes(votes, clips, dict(skipped))


def _battles(folder: Path) -> Iterator[tuple[Record, Path | None, int]]:
    """Every battle in the flat layout; with the Parquet file and row that hold its audio, or no file."""
    logs = folder / "battle_data" if (folder / "battle_data").is_dir() else folder
    for path in sorted(logs.rglob("*.json")):
        for row in json_rows(path):
            flat = Record(row.where, _flattened(row.values)) if "a_metadata" in row.values else row
            for column in _REQUIRED:
                if column not in flat.values:
                    raise VoteError(f"{row.where}: field {column!r} is missing; it has {', '.join(flat.values)}")
            yield flat, None, 0
    for path in sorted(folder.rglob("*.parquet")):
        holds_audio = _holds_bytes(path)
        for number, row in enumerate(parquet_rows(path, _REQUIRED, _OPTIONAL)):
            sides = {f"audio_{side}": _path(row.values[f"audio_{side}"]) for side in ("a", "b")}
            yield Record(row.where, {**row.values, **sides}), path if holds_audio else None, number


def _flattened(record: Any) -> dict[str, Any]:
    """A battle of the project's logs under the published names; audio is found by its file name."""
    vote, detailed = record.get("vote") or {}, record.get("prompt_detailed") or {}
    flat = {
        "battle_uuid": record.get("uuid"),
        "prompt": record.get("prompt") or detailed.get("overall_prompt") or "",
        "preference": vote.get("preference"),
        "user_pseudonym": (record.get("prompt_user") or {}).get("salted_ip"),
    }
    for side in ("a", "b"):
        metadata = record.get(f"{side}_metadata") or {}
        flat[f"system_{side}"] = (metadata.get("system_key") or {}).get("system_tag")
        address = urlparse(record.get(f"{side}_audio_url") or "")
        flat[f"audio_{side}"] = PurePosixPath(address.path).name
    return flat


def _holds_bytes(path: Path) -> bool:
    return "audio_a" in struct_columns(path)


def _path(value: Any) -> Any:
    return value["path"] if isinstance(value, dict) else value
