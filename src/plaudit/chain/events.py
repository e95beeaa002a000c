"""What a run looks at and listens to while a stage trains: losses on held-out clips, and sample clips."""

from __future__ import annotations

from pathlib import Path

from plaudit.chain.data import labels, shards
from plaudit.chain.runner import Context
from plaudit.errors import RecipeError
from plaudit.generate.clips import ClipRequest, make_clips
from plaudit.generate.execution import Execution
from plaudit.generate.model import TextToMusic
from plaudit.stages.data import Source
from plaudit.stages.settings import TrainSettings
from plaudit.stages.training import Event
from plaudit.stages.validation import validation_losses

VALIDATION, SAMPLES = "validation", "samples"


def training_events(context: Context, model: TextToMusic, settings: TrainSettings, work: Path) -> list[Event]:
    """The events that the recipe's `loop` asks for; rows go to `validation.jsonl`, clips to `samples/<step>/`."""
    loop, events = context.recipe.loop, []
    if loop.validate_every:
        found = shards(context)
        rows = found.rows("validation")
        if not len(rows):
            raise RecipeError("loop.validate_every needs held-out clips; raise corpus.validation_share")
        held_out = Source(found, rows, labels(context)[rows])

        def validate(step: int) -> dict[str, float]:
            with context.accelerator.autocast():
                return validation_losses(model.backbone, held_out, loop.validation_clips, settings.batch)

        events.append(Event(VALIDATION, loop.validate_every, validate))
    if loop.sample_every:
        requests = [ClipRequest(f"{i:02d}", prompt, i) for i, prompt in enumerate(loop.sample_prompts)]

        def sample(step: int) -> dict[str, float]:
            folder = work / SAMPLES / f"{step:08d}"
            make_clips(model, requests, context.recipe.sampling, folder, Execution(batch=len(requests)))
            return {}

        events.append(Event(SAMPLES, loop.sample_every, sample))
    return events
