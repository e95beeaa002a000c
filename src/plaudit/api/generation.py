"""`generate`: clips of prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from plaudit.api.options import CLIPS, DEVICE_HELP, Engine, advancing, build_settings
from plaudit.audio_format import AudioFormat
from plaudit.generate.settings import (
    FILES,
    OPTIMIZATION,
    SAMPLING,
    Execution,
    GenerationSettings,
    NoiseOptimization,
    PostSettings,
    SamplingSettings,
    Trajectory,
)
from plaudit.reporting import Reporter, WarningReporter
from plaudit.settings import Count, Seed, Settings, merge, nearest, option, validated

if TYPE_CHECKING:
    import numpy as np

    from plaudit.generate.clips import ClipRequest
    from plaudit.generate.model import TextToMusic
    from plaudit.generate.optimize import Optimizer


_TRUNCATION_NOTES = 5
"""The maximum number of prompts with a note of their own."""


class GenerateSettings(Settings):
    """Settings of `generate`.

    sampling: what is set here replaces the model's own settings; the rest stays the model's. A setting of sampling may
    also be given without its section.
    """

    count: Count = option(1, "-n", "--count", help="Clips of each prompt.", panel=CLIPS)
    best_of: Count = option(
        1, "--best-of", help="Candidates for each clip, of which the reward keeps the best.", panel=CLIPS
    )
    reward: str = option("synthetic", "--reward", help="The reward of --best-of.", panel=CLIPS)
    seed: Seed = option(0, "--seed", help="Seed of the first clip; clip i of all prompts has seed + i.", panel=CLIPS)
    model: str = option("synthetic", "--model", help="A known model or a model folder.", panel=SAMPLING)
    sampling: SamplingSettings = Field(SamplingSettings(), json_schema_extra={"default_of": "model"})
    second_model: str | None = option(
        None, "--second-model", help="A checkpoint of the same latents that shares every trajectory.", panel=SAMPLING
    )
    execution: Execution = Execution()
    device: str = option("auto", "--device", help=DEVICE_HELP, panel=SAMPLING)
    post: PostSettings = PostSettings()
    output: Path | None = option(None, "-o", "--output", help="Folder for the clips.", panel=FILES)
    file: AudioFormat = AudioFormat()
    optimize: str | None = option(
        None, "--optimize", help="A reward that the initial noise is optimized for, by gradient; slow.",
        panel=OPTIMIZATION,
    )  # fmt: skip
    optimization: NoiseOptimization = NoiseOptimization()
    engine: Engine = "local"

    @model_validator(mode="before")
    @classmethod
    def _sampling_without_its_section(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        sampling = values.get("sampling", {})
        inner = sampling.model_dump(exclude_unset=True) if isinstance(sampling, Settings) else dict(sampling)
        names = [*cls.model_fields, *SamplingSettings.model_fields]
        moved = {
            name: value
            for name, value in values.items()
            if name not in cls.model_fields and nearest(str(name), names) in SamplingSettings.model_fields
        }
        merge(inner, moved)
        return {**{name: value for name, value in values.items() if name not in moved}, "sampling": inner}

    @model_validator(mode="after")
    def _fit_together(self) -> GenerateSettings:
        if self.sampling.trajectory is not None and self.second_model is None:
            raise ValueError("--switch-at and --average (sampling.trajectory) need --second-model")
        if self.engine == "ray" and self.optimize is not None:
            raise ValueError("--optimize works with --engine local only")
        return self


@dataclass(frozen=True)
class GeneratedClip:
    """A clip of `generate`. details: its settings and measurements, as in the JSON file beside it.

    file: where it was written; None for a clip in memory.
    """

    prompt: str
    seed: int
    file: Path | None
    details: dict[str, Any]
    in_memory: tuple[np.ndarray, int] | None = None

    @cached_property
    def _audio(self) -> tuple[np.ndarray, int]:
        from plaudit.audio import read_audio

        return self.in_memory or read_audio(self.file)  # type: ignore[arg-type]

    @property
    def waveform(self) -> np.ndarray:
        """[T], float32, read from the file where there is one."""
        return self._audio[0]

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return self._audio[1]


def generate(
    prompts: str | Sequence[str],
    settings: GenerateSettings | None = None,
    *,
    reporter: Reporter | None = None,
    **changes: Any,
) -> list[GeneratedClip]:
    """Generate clips for prompts: files in `output`, or waveforms in memory where it is None.

    A folder that was left incomplete is continued; clips of other prompts or settings in it are never replaced.
    Errors are PlauditError, in one line.
    """
    return list(stream_generate(prompts, settings, reporter=reporter, **changes))


def stream_generate(
    prompts: str | Sequence[str],
    settings: GenerateSettings | None = None,
    *,
    reporter: Reporter | None = None,
    on_step: Callable[[int, int], None] | None = None,
    **changes: Any,
) -> Iterator[GeneratedClip]:
    """The clips of `generate`, each as soon as it is finished; with best_of, as soon as its candidates are scored.

    on_step(step, steps) is called before each solver step of a batch of clips, where this process samples them, perhaps
    by several threads; what it raises ends the generation.
    """
    settings = build_settings(GenerateSettings, settings, changes)
    reporter = reporter or WarningReporter()
    if settings.output is not None:
        yield from _generate(prompts, settings, settings.output, reporter, on_step)
        return
    in_memory = settings.model_copy(update={"file": AudioFormat(container="wav", bits=32)})
    with TemporaryDirectory() as folder:
        for clip in _generate(prompts, in_memory, Path(folder), reporter, on_step):
            yield replace(clip, file=None, in_memory=(clip.waveform, clip.sample_rate))


def _generate(
    prompts: str | Sequence[str],
    settings: GenerateSettings,
    output: Path,
    reporter: Reporter,
    on_step: Callable[[int, int], None] | None,
) -> Iterator[GeneratedClip]:
    from plaudit import loading
    from plaudit.devices import resolve_device
    from plaudit.flow import unobserved
    from plaudit.generate.clips import clip_requests, stream_best_of, stream_clips
    from plaudit.generate.postprocess import PostProcessor
    from plaudit.sidecars import CANDIDATES, mark_candidates, read_sidecar
    from plaudit.tables import checked_prompt

    texts = [checked_prompt(text, "PROMPT") for text in ([prompts] if isinstance(prompts, str) else prompts)]
    groups = clip_requests(texts, settings.count, settings.seed, settings.best_of)
    requests = [request for group in groups for request in group]
    music = loading.load(settings.model, settings.device)
    if settings.second_model is not None:
        music = replace(music, second=loading.load(settings.second_model, settings.device))
    generation = generation_settings(settings, music)
    sampling, execution = generation.sampling, settings.execution
    postprocessor = PostProcessor.load(generation.post, generation.file, resolve_device(settings.device))
    reward = None if settings.best_of == 1 else loading.load_reward(settings.reward, settings.device)
    _note_truncation(music, sampling, requests, reporter)
    folder = output if reward is None else output / CANDIDATES
    if reward is not None:
        mark_candidates(folder)
    with reporter.progress("generating") as advance:
        if settings.engine == "ray":
            from plaudit.ray_engine import Cluster, stream_clips_on_ray

            models, cluster = (settings.model, settings.second_model), Cluster(device=settings.device)
            files = stream_clips_on_ray(
                models, music, requests, sampling, folder, cluster, execution, postprocessor, keep_others=True
            )
        else:
            optimizer = _optimizer(settings)
            files = stream_clips(
                music, requests, sampling, folder, execution, postprocessor, optimizer, keep_others=True,
                on_step=on_step or unobserved,
            )  # fmt: skip
        files = advancing(files, len(requests), advance)
        for file in files if reward is None else stream_best_of(groups, files, reward, settings.reward, output):
            details = read_sidecar(file)
            yield GeneratedClip(details["prompt"], details["seed"], file, details)


def generation_settings(settings: GenerateSettings, music: TextToMusic) -> GenerationSettings:
    """The model's sampling settings with the changes of `settings`, and the length of the delivered clip."""
    sampling = sampling_of(music.config.sampling, settings.sampling)
    if settings.second_model is not None and sampling.trajectory is None:
        sampling = sampling.model_copy(update={"trajectory": Trajectory()})
    return GenerationSettings(sampling=sampling, post=settings.post, file=settings.file).fitted(music.config.seconds)


def sampling_of(model: SamplingSettings, changes: SamplingSettings) -> SamplingSettings:
    """A model's sampling settings with `changes`."""
    values = model.model_dump()
    merge(values, changes.model_dump(exclude_unset=True))
    return validated(SamplingSettings, values, "sampling")


def _optimizer(settings: GenerateSettings) -> Optimizer | None:
    from plaudit import loading
    from plaudit.generate.optimize import Optimizer

    name = settings.optimize
    if name is None:
        return None
    return Optimizer(name, loading.load_tunejury(name, settings.device), settings.optimization)


def _note_truncation(
    music: TextToMusic, sampling: SamplingSettings, requests: Sequence[ClipRequest], reporter: Reporter
) -> None:
    """A note on each of the first prompts that the text encoder truncates, and on how many more there are."""
    from plaudit.encoders.truncation import truncation

    prompts = list(dict.fromkeys(request.prompt for request in requests))
    names = [f"prompt {number}" for number in range(1, len(prompts) + 1)] if len(prompts) > 1 else ["prompt"]
    lines = [
        f"{name}: {reason}"
        for name, prompt in zip(names, prompts, strict=True)
        if (reason := truncation(music.text_encoder, sampling.text_of(prompt)))
    ]
    if len(lines) > _TRUNCATION_NOTES:
        more = f"{len(lines) - _TRUNCATION_NOTES} more prompts are not read in full; the sidecars say which"
        lines[_TRUNCATION_NOTES:] = [more]
    if reason := truncation(music.text_encoder, sampling.negative_prompt):
        lines.append(f"negative prompt: {reason}")
    for line in lines:
        reporter.note(line)
