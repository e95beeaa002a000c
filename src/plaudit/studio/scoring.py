"""Jobs of kind `score`: rewards of clips in a folder or by id, with their ranks among those of the same prompt."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, update

from plaudit.errors import AudioError
from plaudit.studio.catalogue import resolve_reward
from plaudit.studio.database import Clip as ClipRow
from plaudit.studio.files import audio_in, clip_file, resolve_folder
from plaudit.studio.jobs import JobContext, job
from plaudit.studio.schemas import ScoreRequest


@job("score")
def score(context: JobContext, request: dict[str, Any]) -> dict[str, Any]:
    """Score clips, and rank them by prompt: 1 is the best."""
    from plaudit.audio_format import recorded_prompt
    from plaudit.loading import load_reward
    from plaudit.reward.scoring import Clip, score_clips

    body, settings = ScoreRequest.model_validate(request), context.settings
    reward = load_reward(resolve_reward(settings, context.database, body.reward), settings.device)
    rows: list[dict[str, Any]] = []
    clips: list[Clip] = []
    if body.folder is not None:
        folder = resolve_folder(settings, body.folder)
        for file in audio_in(folder):
            prompt = recorded_prompt(file) if body.prompt is None else body.prompt
            rows.append({"clip": None, "file": file.relative_to(folder).as_posix(), "prompt": prompt})
            clips.append(Clip(file, prompt))
    else:
        with context.database.reading() as session:
            by_id = {row.id: row for row in session.scalars(select(ClipRow).where(ClipRow.id.in_(body.clips or [])))}
        for id in dict.fromkeys(body.clips or []):
            if id not in by_id:
                raise AudioError(f"there is no clip {id!r}; leave it out")
            prompt = by_id[id].prompt if body.prompt is None else body.prompt
            rows.append({"clip": id, "file": by_id[id].path, "prompt": prompt})
            clips.append(Clip(clip_file(settings.layout, by_id[id]), prompt))
    if not clips:
        raise AudioError(f"{body.folder} has no audio files; upload some")
    scored = score_clips(clips, reward, progress=lambda done, total: context.progress(done, total))
    for row, result in zip(rows, scored, strict=True):
        error = None if result.error is None else result.error.replace(str(result.clip.file), row["file"])
        row |= {"reward": result.score, "error": error}
    _rank(rows)
    with context.database.transaction() as session:
        for row in rows:
            if row["clip"] is not None and row["reward"] is not None and body.prompt is None:
                missing = ClipRow.reward.is_(None)
                session.execute(update(ClipRow).where(ClipRow.id == row["clip"], missing).values(reward=row["reward"]))
    return {"reward": body.reward, "scores": rows}


def _rank(rows: list[dict[str, Any]]) -> None:
    """Add each row's rank among those of its prompt; equal rewards share the better rank."""
    by_prompt: dict[str, list[float]] = {}
    for row in rows:
        if row["reward"] is not None:
            by_prompt.setdefault(row["prompt"], []).append(row["reward"])
    for row in rows:
        reward = row["reward"]
        others = by_prompt.get(row["prompt"], [])
        row["rank"] = None if reward is None else 1 + sum(value > reward for value in others)
