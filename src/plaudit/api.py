"""The Python API: one function per command, with the command's options as settings.

    plaudit.generate("slow sad piano in a minor key", count=4, best_of=8, output="out")

Settings are given as an object, by name, or both: what is named changes the object's. Sections are mappings, as in
`sampling={"steps": 10}`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator

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
from plaudit.settings import (
    Count,
    CountOrZero,
    Positive,
    Precision,
    Seconds,
    Seed,
    Settings,
    merge,
    nearest,
    option,
    validated,
)

if TYPE_CHECKING:
    import numpy as np

    from plaudit.evaluate.comparison import ComparisonTable, TrackedMetric
    from plaudit.evaluate.concepts.detectors import Detector, ErrorRates
    from plaudit.evaluate.concepts.vocabulary import Vocabulary
    from plaudit.evaluate.embeddings import AudioEncoder, EmbeddingCache, Reference
    from plaudit.evaluate.evaluation import Evaluation, Evaluators
    from plaudit.generate.clips import ClipRequest
    from plaudit.generate.model import TextToMusic
    from plaudit.generate.optimize import Optimizer
    from plaudit.pipeline.runner import Approve
    from plaudit.recipe import Recipe
    from plaudit.reward.calibration import Calibration
    from plaudit.reward.scoring import Clip, ContentCache, Ranked, ScoreCache, ScoredClip, ScoreReference
    from plaudit.types import Embedder, Reward

Kind = TypeVar("Kind", bound=Settings)
Cache = TypeVar("Cache", bound="ContentCache")

CLIPS, MODELS, REFERENCE = "Clips", "Models", "Reference"
"""Headings of options."""

_TRUNCATION_NOTES = 5
"""The maximum number of prompts with a note of their own."""

RewardName = Annotated[
    str,
    option(
        "synthetic", "--reward", help="A known or installed reward, a reward folder, or FILE.py:CLASS.", panel="Models"
    ),
]
DEVICE_HELP = "auto (a GPU where there is one), cpu, cuda or mps."
Device = Annotated[str, option("auto", "--device", help=DEVICE_HELP)]
ScorePrecision = Annotated[
    Precision,
    option("no", "--precision", help="Of the encoders' networks: bf16, which large ones are faster in; no: float32."),
]  # fmt: skip
Engine = Annotated[
    Literal["local", "ray"],
    option("local", "--engine", help="local: this process. ray: many, here or on a cluster."),
]
RayAddress = Annotated[
    str | None, option(None, "--ray-address", help="Address of a Ray cluster. Default: one is started here.")
]
UseCache = Annotated[
    bool, option(True, "--no-cache", value=False, help="Neither read nor write the cache in the user's cache folder.")
]


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
    settings = _settings(GenerateSettings, settings, changes)
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
        files = _advancing(files, len(requests), advance)
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


def _advancing(files: Iterator[Path], total: int, advance: Any) -> Iterator[Path]:
    for done, file in enumerate(files, start=1):
        advance(done, total)
        yield file


class ScoreSettings(Settings):
    """Settings of `score`.

    prompt: of all clips; "" for none, None for each clip's own, as plaudit generate recorded it.
    """

    prompt: str | None = option(
        None, "--prompt", help="The prompt of the clips; empty for none. Default: the prompt recorded by plaudit "
        "generate, in the JSON file beside a clip or in its tags.",
    )  # fmt: skip
    table: Path | None = option(
        None, "--table", help="CSV with columns file and optionally prompt (or caption) and system."
    )
    reward: RewardName = "synthetic"
    reference: Path | None = option(
        None, "--reference", help="Folder or saved reference: each score's percentile among its scores."
    )
    save_reference: Path | None = option(None, "--save-reference", help="Write the scores as a reference (JSON).")
    calibration: Path | None = option(
        None, "--calibration",
        help="Biases of systems (plaudit reward calibrate) to subtract, by the system in --table.",
    )  # fmt: skip
    cache: UseCache = True
    device: Device = "auto"
    precision: ScorePrecision = "no"
    engine: Engine = "local"
    ray_address: RayAddress = None


@dataclass(frozen=True)
class Score:
    """A clip's reward, or the error that prevented scoring.

    calibrated: minus its system's bias. percentile: among the scores of a reference, as percentile_definition says.
    """

    file: Path
    prompt: str
    system: str | None
    reward: float | None
    error: str | None
    calibrated: float | None = None
    percentile: float | None = None
    percentile_definition: str | None = None


Paths = str | Path | Sequence[str | Path]


def score(
    clips: Paths = (), settings: ScoreSettings | None = None, *, reporter: Reporter | None = None, **changes: Any
) -> list[Score]:
    """Scores of audio files, of those in folders and in a table, by a reward. Only differences between scores mean
    anything.

    Files that cannot be scored have an error instead. The candidates of best_of in a folder of `generate` are left out.
    """
    from plaudit import loading
    from plaudit.reward.calibration import load_calibration
    from plaudit.reward.scoring import ScoreCache, identity_of_reward, save_reference, score_reference

    settings = _settings(ScoreSettings, settings, changes)
    reporter = reporter or WarningReporter()
    calibration = None if settings.calibration is None else load_calibration(settings.calibration)
    to_score = _clips(clips, settings, reporter)
    reward = loading.load_reward(settings.reward, settings.device)
    with _user_cache(ScoreCache, settings.cache, reporter) as cache:
        reference = None
        if settings.reference is not None:
            reference = _score_reference(settings.reference, settings, reward, cache, reporter)
        if settings.engine == "ray":
            from plaudit.ray_engine import Cluster, score_clips_on_ray

            with reporter.progress("scoring") as advance:
                cluster = Cluster(settings.ray_address, device=settings.device)
                rows = score_clips_on_ray(
                    to_score, settings.reward, cluster, settings.cache, advance, settings.precision
                )
        else:
            rows = _scored("scoring", to_score, reward, cache, reporter, settings.precision)
    if settings.save_reference is not None:
        name = str(settings.save_reference)
        save_reference(settings.save_reference, score_reference(name, identity_of_reward(reward), rows))
    if calibration is not None and (unknown := calibration.unknown([row.clip.system or "(none)" for row in rows])):
        reporter.note(f"{settings.calibration} has no bias of {', '.join(unknown)}: their scores are not calibrated")
    return [_score(row, reference, calibration) for row in rows]


class RankSettings(Settings):
    """Settings of `rank`; see ScoreSettings."""

    prompt: str | None = ScoreSettings.model_fields["prompt"]  # type: ignore[assignment]
    table: Path | None = ScoreSettings.model_fields["table"]  # type: ignore[assignment]
    keep: Count = option(1, "-n", "--keep", help="Clips to keep per prompt.")
    reward: RewardName = "synthetic"
    copy_to: Path | None = option(None, "--copy", help="Copy the kept clips into this folder, with ranks in names.")
    cache: UseCache = True
    device: Device = "auto"
    precision: ScorePrecision = "no"


@dataclass(frozen=True)
class Ranking:
    """The best clips of each prompt, their copies (None where none were made), and the errors of other clips."""

    best: list[Ranked]
    copies: list[Path | None]
    errors: list[str]


def rank(
    clips: Paths = (), settings: RankSettings | None = None, *, reporter: Reporter | None = None, **changes: Any
) -> Ranking:
    """The best clips of each prompt, with their lead over the next; copied to `copy_to` where it is set."""
    from plaudit import loading
    from plaudit.errors import AudioError
    from plaudit.reward.scoring import ScoreCache, copy_ranked, rank_clips

    settings = _settings(RankSettings, settings, changes)
    reporter = reporter or WarningReporter()
    to_rank, folder = _clips(clips, settings, reporter), settings.copy_to
    if folder is not None:  # copies of an earlier ranking are not ranked
        to_rank = [clip for clip in to_rank if not clip.file.resolve().is_relative_to(folder.resolve())]
        if not to_rank:
            raise AudioError(f"--copy {folder} contains all clips to be ranked; copy into another folder")
    reward = loading.load_reward(settings.reward, settings.device)
    with _user_cache(ScoreCache, settings.cache, reporter) as cache:
        rows = _scored("ranking", to_rank, reward, cache, reporter, settings.precision)
    best = rank_clips(rows, settings.keep)
    copies: list[Path | None] = [None] * len(best) if folder is None else [*copy_ranked(best, folder)]
    return Ranking(best, copies, [row.error for row in rows if row.error is not None])


def _clips(clips: Paths, settings: ScoreSettings | RankSettings, reporter: Reporter) -> list[Clip]:
    from plaudit.errors import AudioError
    from plaudit.reward.scoring import clips_at, clips_in_table
    from plaudit.sidecars import candidates_note
    from plaudit.tables import check_text

    paths = [Path(clips)] if isinstance(clips, (str, Path)) else [Path(path) for path in clips]
    if not paths and settings.table is None:
        raise AudioError("no files: give audio files or folders, - for a list on standard input, or --table")
    if settings.prompt is not None:
        check_text(settings.prompt, "--prompt")
    if note := candidates_note(paths):
        reporter.note(note)
    in_table = [] if settings.table is None else clips_in_table(settings.table, settings.prompt)
    return in_table + (clips_at(paths, settings.prompt, sys.stdin) if paths else [])


@contextmanager
def _user_cache(kind: type[Cache], used: bool, reporter: Reporter) -> Iterator[Cache | None]:
    """The user's cache of scores or embeddings, closed at the end; None where it is not used."""
    cache = kind.of_user(reporter.note) if used else None
    try:
        yield cache
    finally:
        if cache is not None:
            cache.close()


def _scored(
    label: str, clips: list[Clip], reward: Reward, cache: ScoreCache | None, reporter: Reporter,
    precision: Precision,
) -> list[ScoredClip]:
    from plaudit.reward.scoring import score_clips

    with reporter.progress(label) as advance:
        return score_clips(clips, reward, cache, advance, precision)


def _score_reference(
    path: Path, settings: ScoreSettings, reward: Reward, cache: ScoreCache | None, reporter: Reporter
) -> ScoreReference:
    """A saved reference, or the scores of a folder's clips with the prompt of those compared with it."""
    from plaudit.reward.scoring import clips_at, identity_of_reward, load_reference, score_reference

    identity = identity_of_reward(reward)
    if not path.is_dir():
        return load_reference(path, identity)
    rows = _scored("reference", clips_at([path], settings.prompt, []), reward, cache, reporter, settings.precision)
    return score_reference(str(path), identity, rows)


def _score(row: ScoredClip, reference: ScoreReference | None, calibration: Calibration | None) -> Score:
    clip, value = row.clip, row.score
    return Score(
        clip.file, clip.prompt, clip.system, value, row.error,
        None if calibration is None or value is None else calibration.apply(value, clip.system or ""),
        None if reference is None or value is None else reference.percentile(value),
        None if reference is None else reference.definition,
    )  # fmt: skip


class EvaluatorSettings(Settings):
    """The models that metrics use."""

    reward: RewardName = "synthetic"
    clap: str = option(
        "synthetic", "--clap", help="The CLAP of the CLAP score and of the zero-shot concept detector.", panel=MODELS
    )
    detector: str = option(
        "probes", "--detector",
        help="Concept detector: probes (trained on the synthetic corpus), clap (zero-shot), or FILE.py:NAME.",
        panel=MODELS,
    )  # fmt: skip
    vocabulary: Path | None = option(None, "--vocabulary", help="YAML of concepts to detect. Default: the package's.")
    device: Device = "auto"

    def load_vocabulary(self) -> Vocabulary:
        """The vocabulary of concepts."""
        from plaudit.evaluate.concepts.vocabulary import SHIPPED_VOCABULARY, load_vocabulary

        return load_vocabulary(self.vocabulary or SHIPPED_VOCABULARY)

    def load_detector(self, vocabulary: Vocabulary) -> Detector:
        """The concept detector."""
        from plaudit.evaluate.concepts.detectors import DETECTORS

        return DETECTORS.load(self.detector)(self._load_clap, vocabulary)

    def load(self, embeddings: Sequence[str] | None = None) -> Evaluators:
        """The models; embeddings: encoders of the distances, None for the CLAP alone."""
        from plaudit import loading
        from plaudit.errors import EvaluationError
        from plaudit.evaluate.embeddings import AudioEncoder
        from plaudit.evaluate.evaluation import Evaluators

        names = embeddings or [self.clap]
        if len(set(names)) < len(names):
            raise EvaluationError("an --embedding is named twice; name each once")
        vocabulary, (clap, _) = self.load_vocabulary(), self._load_clap()
        encoders = tuple(
            clap
            if name == self.clap
            else AudioEncoder(
                name,
                loading.AUDIO_ENCODERS.identity(name),
                loading.load_part(loading.AUDIO_ENCODERS, name, self.device),
            )
            for name in names
        )
        detector = self.load_detector(vocabulary)
        return Evaluators(loading.load_reward(self.reward, self.device), clap, encoders, detector, vocabulary)

    def _load_clap(self) -> tuple[AudioEncoder, Embedder]:
        from plaudit import loading
        from plaudit.evaluate.embeddings import AudioEncoder

        model = loading.load_part(loading.CLAPS, self.clap, self.device)
        return AudioEncoder(self.clap, loading.CLAPS.identity(self.clap), model), model


class EvaluateSettings(EvaluatorSettings):
    """Settings of `evaluate`."""

    prompts: Path | None = option(
        None, "--prompts", help="Prompts of a folder's clips: CSV with id or file, and prompt; or a list.", panel=MODELS
    )
    reference: Path | None = option(
        None, "--reference", help="Folder of reference audio, or an exported reference.", panel=REFERENCE
    )
    metrics: tuple[str, ...] | None = option(
        None, "--metric", help="A metric such as frechet, or FILE.py:NAME; repeatable. Default: all."
    )
    embeddings: tuple[str, ...] | None = option(
        None, "--embedding", help="Encoder for distances; repeatable. Default: that of --clap.", panel=MODELS
    )
    audio_language_model: str | None = option(
        None, "--audio-language-model", panel=MODELS,
        help="For challenge-concepts: a model of transformers by folder, or by name on the Hub as NAME[@REVISION].",
    )  # fmt: skip
    tags: Path | None = option(
        None, "--tags", panel=MODELS,
        help="For challenge-concepts: a table of prompts with genre, instrument and mood. Default: those in the text.",
    )  # fmt: skip
    concept_errors: Path | None = option(
        None, "--concept-errors", help="Error rates of the detector, as written by plaudit concepts -o.", panel=MODELS
    )
    export_reference: Path | None = option(None, "--export-reference", help="Write the reference's statistics here.")
    with_embeddings: bool = option(
        False,
        "--with-embeddings",
        help="Export the embeddings too; all but Fréchet distances need them.",
        panel=REFERENCE,
    )
    output: Path | None = option(None, "-o", "--output", help="Folder for values.parquet, clips.csv and summary.json.")
    cache: UseCache = True

    @model_validator(mode="after")
    def _reference_is_there(self) -> EvaluateSettings:
        if self.export_reference is not None and self.reference is None:
            raise ValueError("--export-reference needs a --reference to export")
        if self.tags is not None and self.audio_language_model is None:
            raise ValueError("--tags need a model that answers; name one with --audio-language-model")
        return self


def evaluate(
    clips: str | Path,
    settings: EvaluateSettings | None = None,
    *,
    reporter: Reporter | None = None,
    **changes: Any,
) -> Evaluation:
    """Evaluate the clips in a folder or a table: every metric per clip and of the set, with 95 % intervals.

    Clips that are missing or cannot be read have an error and are in no mean. Written to `output` where one is given.
    """
    from plaudit.devices import resolve_device
    from plaudit.evaluate.concepts.detectors import SHIPPED_ERROR_RATES, load_rates, rates_of
    from plaudit.evaluate.embeddings import EmbeddingCache, export_references
    from plaudit.evaluate.evaluation import evaluate_clips, with_audio_language_model
    from plaudit.evaluate.metrics import metrics_named
    from plaudit.evaluate.prompt_matching import match_prompts
    from plaudit.reward.scoring import ScoreCache

    settings = _settings(EvaluateSettings, settings, changes)
    reporter, clips = reporter or WarningReporter(), Path(clips)
    metrics = metrics_named(settings.metrics) if settings.metrics else None
    entries, notes = match_prompts(clips, settings.prompts)
    if failed := [entry for entry in entries if entry.error is not None]:  # before the reference is encoded
        reporter.note(f"{len(failed)} of {len(entries)} clips cannot be evaluated; the first: {failed[0].error}")
    evaluators = settings.load(settings.embeddings)
    if settings.audio_language_model is not None:
        device = resolve_device(settings.device)
        evaluators = with_audio_language_model(evaluators, settings.audio_language_model, settings.tags, device)
    assert evaluators.detector is not None and evaluators.vocabulary is not None
    known_rates = load_rates(settings.concept_errors or SHIPPED_ERROR_RATES)
    rates = rates_of(evaluators.detector, evaluators.vocabulary, known_rates)
    with (
        _user_cache(ScoreCache, settings.cache, reporter) as scores,
        _user_cache(EmbeddingCache, settings.cache, reporter) as embeddings,
    ):
        references, reference_notes, contents = load_references(
            settings.reference, evaluators.encoders, embeddings, reporter
        )
        if settings.export_reference is not None:
            export_references(settings.export_reference, references, settings.with_embeddings)
        about = {"reward": settings.reward, "clap": settings.clap, "clips": str(clips.resolve())}
        with reporter.progress("evaluating") as advance:
            evaluation = evaluate_clips(
                entries, evaluators, references, metrics, system=clips.resolve().stem, scores=scores,
                embeddings=embeddings, settings=about | _about_evaluators(evaluators, references, rates),
                progress=advance,
            )  # fmt: skip
    evaluation.notes[:0] = [*notes, *reference_notes, *_shared_files([entry.file for entry in entries], contents)]
    if settings.output is not None:
        evaluation.save(settings.output)
    return evaluation


def load_references(
    place: Path | None, encoders: Sequence[AudioEncoder], cache: EmbeddingCache | None, reporter: Reporter
) -> tuple[list[Reference], list[str], set[str]]:
    """One reference per encoder, or none; notes on its files; and the digests of these."""
    from plaudit.evaluate.embeddings import embed_reference_folder, reference_for
    from plaudit.evaluate.embeddings import load_references as exported_references

    if place is None:
        return [], [], set()
    if not place.is_dir():
        exported = exported_references(place)
        return [reference_for(exported, encoder) for encoder in encoders], [], set()
    with reporter.progress("reference") as advance:
        return embed_reference_folder(place, encoders, cache, advance)


def _about_evaluators(
    evaluators: Evaluators, references: Sequence[Reference], rates: ErrorRates | None
) -> dict[str, Any]:
    from plaudit import __version__

    def absolute(source: str) -> str:
        return str(Path(source).resolve()) if Path(source).exists() else source

    return {
        "plaudit": __version__,
        "reward_identity": getattr(evaluators.reward, "identity", None),
        "clap_digest": evaluators.clap.digest,
        "embeddings": {one.name: one.digest for one in evaluators.encoders},
        "reference": [{"embedding": r.embedding, "clips": r.clips, "source": absolute(r.source)} for r in references],
        "detector": evaluators.detector and evaluators.detector.identity,
        "audio_language_model": evaluators.answerer and evaluators.answerer.identity,
        "vocabulary": evaluators.vocabulary and evaluators.vocabulary.digest,
        "detector_errors": None if rates is None else rates.to_dict(),
    }


def _shared_files(files: Sequence[Path | None], reference: set[str]) -> list[str]:
    """A note where clips are themselves part of the reference."""
    from plaudit.evaluate.embeddings import content_digest

    same = sum(content_digest(file) in reference for file in files if file is not None) if reference else 0
    return [f"{same} of the clips are files of the reference too, which brings them close to it"] if same else []


class ConceptsSettings(EvaluatorSettings):
    """Settings of `measure_detector`."""

    clips: Count = option(500, "--clips", ge=2, help="Labelled clips of the synthetic corpus to measure on.")
    seconds: Seconds = option(10.0, "--seconds", ge=2.5, le=300, help="Length of each.")
    codec: str | None = option(None, "--codec", help="Pass the clips through this codec first.")
    output: Path | None = option(
        None, "-o", "--output", help="JSON file to add the rates to, for plaudit evaluate --concept-errors."
    )


def measure_detector(
    settings: ConceptsSettings | None = None, *, reporter: Reporter | None = None, **changes: Any
) -> ErrorRates:
    """Measure the error rates of the concept detector on clips of the synthetic corpus, whose concepts are known."""
    from plaudit import loading
    from plaudit.corpus.sources import synthetic_source
    from plaudit.evaluate.concepts.detectors import save_rates

    settings = _settings(ConceptsSettings, settings, changes)
    vocabulary = settings.load_vocabulary()
    detector = settings.load_detector(vocabulary)
    codec = None if settings.codec is None else loading.load_part(loading.CODECS, settings.codec, settings.device)
    with (reporter or WarningReporter()).progress("measuring") as advance:
        corpus = synthetic_source(settings.seconds)
        rates = corpus.measure_detector(detector, vocabulary, settings.clips, advance, codec)
    if settings.output is not None:
        save_rates(settings.output, rates)
    return rates


class CompareSettings(Settings):
    """Settings of `compare`. margins: by metric, differences below which count as none."""

    metrics: tuple[str, ...] | None = option(
        None, "--metric", help="A metric; repeatable. Default: all that the systems share."
    )
    pair_by: Literal["id", "prompt"] | None = option(
        None, "--by", help="Pair clips by this column. Default: id where all have one."
    )
    shared_prompts: bool = option(
        False, "--shared-prompts", help="Compare only prompts that all systems share, and print how many are left out."
    )
    margins: dict[str, Positive] = option(
        {},
        "--margin",
        help="METRIC=SIZE: differences below this count as none; repeatable. Default: 0.2 standard deviations between "
        "prompts.",
    )
    ordered: bool = option(
        False, "--ordered", help="The systems are a series, such as checkpoints: find where reward and metrics diverge."
    )
    sort: str | None = option(None, "--sort", help="Order the page's players by the differences of this metric.")
    players: CountOrZero = option(20, "--players", help="Prompts with players: half the worst, half the best.")
    device: Device = "auto"
    output: Path | None = option(None, "-o", "--output", help="Folder for the page, its clips, JSON and CSV.")


@dataclass(frozen=True)
class SystemComparison:
    """Differences between systems; of a series, the metrics against the reward; and the page where one was written."""

    table: ComparisonTable
    series: list[TrackedMetric]
    page: Path | None


def compare(
    systems: Sequence[str | Path],
    settings: CompareSettings | None = None,
    *,
    reporter: Reporter | None = None,
    **changes: Any,
) -> SystemComparison:
    """Differences between systems on the same prompts, with intervals and tests; the first is the baseline.

    systems: runs, or RUN:STAGE; folders written by `evaluate`; folders of clips, which are evaluated with its default
    settings; or tables with id or prompt, and metrics.
    """
    from plaudit.errors import EvaluationError
    from plaudit.evaluate.comparison import compare as compare_pairs
    from plaudit.evaluate.comparison import pair, track_series
    from plaudit.evaluate.pages.comparison import write_comparison
    from plaudit.evaluate.systems import System, is_clip_folder, models_behind, read_systems, system_of_values
    from plaudit.pipeline.run_systems import systems_at

    settings = _settings(CompareSettings, settings, changes)
    metrics = None if settings.metrics is None else list(settings.metrics)
    reporter = reporter or WarningReporter()

    def systems_of(name: str) -> list[System]:
        if not is_clip_folder(Path(name)):
            return systems_at(name)
        if len(systems) < 2:  # before its clips are measured
            raise EvaluationError(f"there is one system, {name!r}; a comparison needs two: name another")
        reporter.note(f"{name} has not been evaluated; measuring its clips with the default settings")
        evaluation = evaluate(name, reporter=reporter, device=settings.device)
        models = models_behind(evaluation.settings)
        return [system_of_values(evaluation.values, Path(name).resolve().name, Path(), name, models)]

    compared = read_systems([str(system) for system in systems], systems_of)
    pairing = pair(compared, metrics, settings.pair_by, settings.shared_prompts)
    table = compare_pairs(pairing, dict(settings.margins))
    series, page = track_series(pairing) if settings.ordered else [], None
    if settings.output is not None:
        page = write_comparison(table, settings.output, sort=settings.sort, players=settings.players, series=series)
    for note in [*pairing.notes, *(f"not tested: {reason}" for reason in table.untested)]:
        reporter.note(note)
    return SystemComparison(table, series, page)


class RunSettings(Settings):
    """Settings of `run`."""

    output: Path | None = option(None, "-o", "--output", help="Run folder. Default: runs/<recipe name>.")
    changes: tuple[str, ...] = option(
        (), "--set", help="Change a setting of the recipe, e.g. --set stages.crpo.beta=500. Repeatable."
    )
    source: Path | None = option(
        None, "--from", help="A run to start from; steps with the same inputs are shared. Needs -o."
    )
    only: str = option("report", "--only", help="Run only this step, e.g. sft, and those it needs.")
    device: Device = "auto"

    @model_validator(mode="after")
    def _source_is_another_run(self) -> RunSettings:
        if self.source is not None and self.output is None:
            raise ValueError("--from needs -o: the new run's folder")
        return self

    def load_recipe(self, recipe: str | Path | Recipe | None = None) -> Recipe:
        """The recipe with the changes; None stands for that of `source`."""
        from plaudit.errors import RecipeError, RunError
        from plaudit.recipe import Recipe, load_recipe

        if isinstance(recipe, Recipe):
            if self.changes:
                raise RecipeError("changes are for a recipe by its name or file; change the Recipe itself")
            return recipe
        if recipe is None:
            if self.source is None:
                raise RecipeError("name a recipe, or a run with --from")
            if not (self.source / "recipe.yaml").is_file():
                raise RunError(f"{self.source} is not a run folder; give --from a folder that `plaudit run` made")
            recipe = self.source / "recipe.yaml"
        return load_recipe(str(recipe), list(self.changes))

    def folder(self, recipe: Recipe) -> Path:
        """The run folder."""
        return self.output or Path("runs") / recipe.name


def run(
    recipe: str | Path | Recipe | None = None,
    settings: RunSettings | None = None,
    *,
    approve: Approve | None = None,
    reporter: Reporter | None = None,
    **changes: Any,
) -> Path:
    """Run a recipe up to a step, by default the report, and return the step's folder.

    Steps that are done are skipped, and what was interrupted is continued. approve: called with the steps that other
    settings, code or data would replace; RunError where it does not approve, as by default.
    """
    from plaudit.pipeline.runner import nothing_replaced
    from plaudit.pipeline.steps import run_recipe

    settings = _settings(RunSettings, settings, changes)
    loaded = settings.load_recipe(recipe)
    reporter, approve = reporter or WarningReporter(), approve or nothing_replaced
    folder = settings.folder(loaded)
    return run_recipe(loaded, folder, reporter, settings.only, approve, settings.source, settings.device)


def _settings(kind: type[Kind], settings: Kind | None, changes: Mapping[str, Any]) -> Kind:
    """The settings with changes by name; RecipeError in one line where one is unknown or does not fit."""
    if settings is not None and not changes:
        return settings
    values = {} if settings is None else settings.model_dump(exclude_unset=True)
    merge(values, changes)
    return validated(kind, values, kind.__name__)
