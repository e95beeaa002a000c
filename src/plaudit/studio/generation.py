"""Jobs of kind `generate`: clips from prompts, as they are done, with reward and CLAP score beside each.

A job's clips lie in `clips/JOB`. Begun again after the worker was killed, it finds the finished ones by their sidecars
and continues: batches and seeds are the same, so the clips are too.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from plaudit.errors import ModelError
from plaudit.reporting import Progress
from plaudit.studio.catalogue import resolve_clap, resolve_model, resolve_reward
from plaudit.studio.files import register_clip
from plaudit.studio.jobs import JobContext, JobReporter, job
from plaudit.studio.schemas import GenerationRequest
from plaudit.writing import write_atomically

CPU_BATCH = 2
"""Clips that a CPU samples at once: few, so that they appear soon; and the same in every attempt at a job."""

RECORD = "model.json"


@job("generate")
def generate(context: JobContext, request: dict[str, Any]) -> dict[str, Any]:
    """Generate the clips of a request."""
    from plaudit.api import GenerateSettings, stream_generate

    body = GenerationRequest.model_validate(request)
    settings, folder = context.settings, context.settings.layout.clips / context.job_id
    model = resolve_model(settings, body.model)
    reward = resolve_reward(settings, context.database, body.reward)
    folder.mkdir(parents=True, exist_ok=True)
    check_same_model(folder, model, body.model)
    batch = _batch(settings.device)
    changes = {
        "steps": body.steps, "score": body.score, "negative_prompt": body.negative_prompt,
        "guidance": None if body.guidance is None else {"weight": body.guidance},
        "piece": None if body.seconds is None else {"seconds": body.seconds},
    }  # fmt: skip
    generation = GenerateSettings.model_validate(
        {
            "model": model, "device": settings.device, "count": body.count, "best_of": body.best_of, "reward": reward,
            "seed": body.seed or 0, "output": folder, "execution": {"batch": batch},
            "sampling": {name: value for name, value in changes.items() if value is not None},
        }
    )  # fmt: skip
    progress = _StepProgress(context, batch or 1, len(body.prompts) * body.count * body.best_of)
    measures = _measures(reward, resolve_clap(body.clap), settings.device)
    clips = []
    stream = stream_generate(body.prompts, generation, reporter=progress, on_step=progress.on_step)
    for position, clip in enumerate(stream):
        context.check_cancelled()
        assert clip.file is not None
        measured = clip.details["measured"]
        known = {"loudness": measured.get("loudness"), "peak": measured.get("true_peak")}
        used = body.model_dump(exclude={"prompts", "count", "best_of"}) | {"seed": str(clip.seed)}
        score, clap = measures.of(clip.file, clip.prompt)
        row, _ = register_clip(
            context.database, settings.layout, clip.file, known, job_id=context.job_id, position=position,
            prompt=clip.prompt, model=body.model, seed=str(clip.seed), settings=used, reward=score, clap=clap,
        )  # fmt: skip
        clips.append(row.id)
    return {"folder": f"clips/{context.job_id}", "clips": clips, "notes": progress.notes}


class Measures:
    """The reward and the CLAP score of single clips, by models that are loaded once."""

    def __init__(self, reward: str, clap: str, device: str) -> None:
        from plaudit import loading
        from plaudit.evaluate.embeddings import AudioEncoder

        self._reward = loading.load_reward(reward, device)
        embedder = loading.load_part(loading.CLAPS, clap, device)
        self._encoder = AudioEncoder(clap, loading.CLAPS.identity(clap), embedder)

    def of(self, file: Path, prompt: str) -> tuple[float | None, float | None]:
        """Reward and CLAP score; None where the clip can't be scored, as one that is silent."""
        from plaudit.errors import AudioError
        from plaudit.evaluate.embeddings import clip_from_file, embed_prompts
        from plaudit.reward.scoring import Clip, score_clips

        score = score_clips([Clip(file, prompt)], self._reward)[0].score
        try:
            audio = clip_from_file(file).embedding(self._encoder)
        except AudioError:
            return score, None
        return score, float((audio * embed_prompts(self._encoder, [prompt])[0]).sum())


class _StepProgress(JobReporter):
    """Clips that are done, and the solver step of those in work. Every step looks whether the job was cancelled."""

    def __init__(self, context: JobContext, at_once: int, total: int) -> None:
        super().__init__(context)
        self._at_once = at_once
        self._clips = (0, total)
        self._lock = threading.Lock()

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """Of the clips."""
        self.context.check_cancelled()

        def advance(done: int, total: int) -> None:
            self._clips = done, total
            self.context.progress(done, total)

        yield advance

    def on_step(self, step: int, steps: int) -> None:
        """Before a solver step, perhaps of several threads at once."""
        with self._lock:
            done, total = self._clips
            self.context.progress(done, total, step, steps, at_once=min(self._at_once, max(1, total - done)))


def _measures(reward: str, clap: str, device: str) -> Measures:
    """Loaded once for all jobs, as long as the models are the same."""
    from plaudit import loading

    return _loaded(reward, clap, device, loading.REWARDS.identity(reward), loading.CLAPS.identity(clap))


@lru_cache(maxsize=2)
def _loaded(reward: str, clap: str, device: str, *identities: str) -> Measures:
    return Measures(reward, clap, device)


def _batch(device: str) -> int | None:
    from plaudit.devices import resolve_device

    return CPU_BATCH if resolve_device(device).type == "cpu" else None


def check_same_model(folder: Path, model: str, name: str) -> None:
    """ModelError where the model is another than when the job began: its clips would be of two models."""
    from plaudit import loading

    digest = loading.model_digest(loading.model_folder(model, loading.MODELS))
    record = folder / RECORD
    if not record.exists():
        write_atomically(record, json.dumps({"model": name, "digest": digest}))
    elif json.loads(record.read_bytes())["digest"] != digest:
        raise ModelError(f"model {name} was replaced after this job had begun; start a new one with the new model")
