"""Preparation, generation and scoring on Ray Data's actor pools (extra `scale`).

A worker that dies is replaced and its task repeated, so tasks must be idempotent. Results come back to the calling
process, which alone records progress.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import pyarrow
import torch

from plaudit import loading
from plaudit.audio_format import AudioFormat
from plaudit.corpus.layouts import INSTRUMENTAL
from plaudit.corpus.manifest import Entry, load_clips
from plaudit.corpus.shards import Advance, EncodedShard, Job, Preprocessing, ShardEncoder, ShardEngine, frames_of
from plaudit.devices import resolve_device
from plaudit.errors import EngineError, ModelError, PlauditError
from plaudit.generate.clips import ClipRequest, generate_clips
from plaudit.generate.model import DEFAULT_EXECUTION, TextToMusic
from plaudit.generate.postprocess import PostProcessor
from plaudit.generate.separation import load_separator
from plaudit.generate.settings import Execution, PostSettings, SamplingSettings, SeparationSettings
from plaudit.registry import portable_name
from plaudit.reporting import Progress
from plaudit.reward.scoring import BATCH, Clip, ScoreCache, ScoredClip, score_clips
from plaudit.settings import Precision
from plaudit.workers import thread_count

T = TypeVar("T")
R = TypeVar("R")

CONNECT_TIMEOUT_SECONDS = 10.0
"""Seconds that a cluster's address has to answer (ours)."""


@dataclass(frozen=True)
class Cluster:
    """Which workers to use.

    address: of a running cluster; None takes $RAY_ADDRESS, and without it a cluster is started here for as long as
    it is used. workers: how many; None fills the cluster's GPUs, or its processors where it has none. threads:
    PyTorch's in each worker, None for as many as here: sums over threads differ in their last bits with the number.
    device: "cpu" leaves GPUs alone. retries: how often a task is begun again after its worker has died (ours); one that
    kills every worker must end.
    """

    address: str | None = None
    workers: int | None = None
    threads: int | None = None
    device: str = "auto"
    retries: int = 5


class _Attempts:
    """Counts the attempts at each task, in a separate process, since workers may die. Ray Data itself retries without
    limit."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        self.begun[number] += 1
        return self.begun[number]


class _Worker:
    """One process of the pool."""

    def __init__(self, build: bytes, threads: int, retries: int, begin: Callable[[int], int]) -> None:
        self.build, self.threads, self.retries, self.begin = build, threads, retries, begin
        self.work: Callable[[Any], Any] | None = None

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        """One task; both it and the answer are pickled: ("done", result), or ("failed", an error of this package)."""
        (number,), (task,) = batch["number"].to_pylist(), batch["task"].to_pylist()
        try:
            if (begun := self.begin(number)) > 1 + self.retries:
                lost = f"task {number} has lost {begun - 1} workers, perhaps for lack of memory"
                raise EngineError(f"{lost}; what is finished is kept, ask for fewer workers and run this again")
            if self.work is None:  # built here, so that a death while building counts as one of the task
                torch.set_num_threads(self.threads)
                self.work = pickle.loads(self.build)()
            with torch.inference_mode():
                answer = ("done", self.work(pickle.loads(task)))
        except PlauditError as error:
            answer = ("failed", error)
        return _table(number=[number], answer=[pickle.dumps(answer)])


def on_ray(build: Callable[[], Callable[[T], R]], tasks: Sequence[T], cluster: Cluster) -> Iterator[tuple[int, R]]:
    """(number, result) of each task, as they finish; build() is called in each worker and returns what does a task.

    PlauditErrors of a task are raised here. EngineError where Ray is not installed or can't be reached, or a task has
    lost more workers than it may.
    """
    with connected(cluster.address) as ray:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.execution_no_progress_timeout_s = -1  # a large shard on a slow machine is no hang
        context.max_consecutive_actor_init_deaths = cluster.retries
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        count, threads, gpus = _shape(ray.cluster_resources(), cluster, len(tasks))
        blocks = [_table(number=[number], task=[pickle.dumps(task)]) for number, task in enumerate(tasks)]
        attempts = ray.remote(num_cpus=0)(_Attempts).remote()
        answers = ray.data.from_arrow(blocks).map_batches(
            _Worker,
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=1),
            fn_constructor_args=(ray.cloudpickle.dumps(build), threads, cluster.retries, partial(_begin, attempts)),
            num_cpus=0 if gpus else threads,
            num_gpus=gpus,
        )
        try:
            for batch in answers.iter_batches(batch_size=None, batch_format="pyarrow"):
                for number, data in zip(batch["number"].to_pylist(), batch["answer"].to_pylist(), strict=True):
                    kind, answer = pickle.loads(data)
                    if kind == "failed":
                        raise answer
                    yield number, answer
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise EngineError(f"Ray gave up ({lines[-1].strip()}); what is finished is kept, run this again") from error


def _begin(attempts: Any, number: int) -> int:
    import ray

    return int(ray.get(attempts.begin.remote(number)))


def _shape(resources: dict[str, float], cluster: Cluster, tasks: int) -> tuple[int, int, int]:
    """(workers, threads of each, GPUs of each)."""
    processors = max(1, int(resources.get("CPU", 1)))
    threads = cluster.threads or thread_count()
    gpus = 0 if cluster.device == "cpu" else int(resources.get("GPU", 0))
    if not gpus and threads > processors:
        raise EngineError(f"workers of {threads} threads don't fit {processors} processors; set OMP_NUM_THREADS lower")
    fitting = gpus or processors // threads
    if cluster.workers is not None and cluster.workers > fitting:
        raise EngineError(f"{cluster.workers} workers don't fit the cluster, {fitting} do; ask for fewer")
    return min(cluster.workers or fitting, tasks), threads, min(1, gpus)


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray, connected; a connection that was there before is used and left alone. EngineError where there is none."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics are sent
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # lost workers are replaced without a message
    try:
        import ray
        import ray.data
    except ImportError:
        raise EngineError("Ray is not installed; run: pip install 'plaudit[scale]'") from None
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _check_address(address)
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        advice = "check the address, and that RAY_AUTH_MODE and RAY_AUTH_TOKEN are the cluster's"
        raise EngineError(f"no Ray cluster at {address} ({lines[0]}); {advice}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """EngineError where an address of the form [ray://]host:port does not answer: Ray itself tries for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_SECONDS).close()
    except OSError as error:
        raise EngineError(f"no Ray cluster at {address} ({error.strerror or error}); check the address") from None


def _table(**columns: list[Any]) -> pyarrow.Table:
    """Large binaries, whose offsets don't end at two gigabytes."""
    types = {name: pyarrow.large_binary() if isinstance(v[0], bytes) else None for name, v in columns.items()}
    return pyarrow.table({name: pyarrow.array(v, types[name]) for name, v in columns.items()})


def stream_clips_on_ray(
    names: tuple[str, str | None],
    model: TextToMusic,
    requests: Sequence[ClipRequest],
    settings: SamplingSettings,
    folder: Path,
    cluster: Cluster,
    execution: Execution = DEFAULT_EXECUTION,
    postprocessor: PostProcessor | None = None,
    keep_others: bool = False,
) -> Iterator[Path]:
    """As plaudit.generate.clips.stream_clips, for the model and the second model, or None, of these names;
    `folder` must be the same on all machines.

    Batches are those of `model`, the same one loaded here, on this machine, so that on like machines the files are
    those of one process. Paths come in order. Each worker loads the separator itself.
    """
    batch = model.sampler(settings, execution).batch
    execution = execution.model_copy(update={"batch": batch})
    parts = [tuple(requests[start : start + batch]) for start in range(0, len(requests), batch)]
    models = portable_name(names[0]), None if names[1] is None else portable_name(names[1])
    post = None if postprocessor is None else (postprocessor.settings, postprocessor.file)
    build = partial(_generator, models, cluster.device, settings, folder.absolute(), execution, post, keep_others)
    early: dict[int, list[Path]] = {}
    following = 0
    for number, paths in on_ray(build, parts, cluster):
        early[number] = paths
        while following in early:
            yield from (folder / path.name for path in early.pop(following))
            following += 1


def _generator(
    names: tuple[str, str | None],
    device: str,
    settings: SamplingSettings,
    folder: Path,
    execution: Execution,
    post: tuple[PostSettings, AudioFormat] | None,
    keep_others: bool,
) -> Callable[[tuple[ClipRequest, ...]], list[Path]]:
    model = loading.load(names[0], device)
    if names[1] is not None:
        model = replace(model, second=loading.load(names[1], device))
    postprocessor = None if post is None else PostProcessor.load(*post, resolve_device(device))
    return lambda requests: generate_clips(
        model, requests, settings, folder, execution, postprocessor, keep_others=keep_others
    )


NO_SEPARATION = SeparationSettings()


def build_shard_encoder(
    codec: str,
    text_encoder: str,
    seconds: float,
    batch_size: int,
    device: str,
    separation: SeparationSettings = NO_SEPARATION,
) -> ShardEncoder:
    """An encoder of shards of audio files, with models by name (plaudit.loading) on `device`.

    ModelError where separation is set and the extra is not installed.
    """
    where = resolve_device(device)
    loaded = loading.load_part(loading.CODECS, codec, where)
    text = loading.load_part(loading.TEXT_ENCODERS, text_encoder, where)
    preprocessing = vocal_removal(separation, where) if separation.passes else None
    return ShardEncoder(load_clips, loaded, text, frames_of(loaded, seconds), batch_size, preprocessing)


def vocal_removal(settings: SeparationSettings, device: torch.device) -> Preprocessing:
    """Passes of separation over each clip, but for those whose file says that it is instrumental."""
    separator = load_separator(settings.model, device)
    if separator is None:
        raise ModelError("taking vocals out needs the demucs package; pip install 'plaudit[separate]'")
    turns = Lock()

    def apply(wave: np.ndarray, rate: int) -> np.ndarray:
        with turns:  # clips are decoded in threads, and one separation fills the machine
            return separator([wave], rate, settings)[0].wave

    def spared(entry: Entry) -> bool:
        return entry.path is not None and entry.path.stem.endswith(INSTRUMENTAL)

    return Preprocessing(f"separation {settings.model_dump_json()}", apply, spared)


def ray_engine(build: Callable[[], ShardEncoder], cluster: Cluster) -> ShardEngine:
    """An engine whose shards are encoded by workers, each with an encoder from build().

    Shards come back in the order in which they finish, each with the bytes that a single process gives.
    """

    def make(jobs: Sequence[Job], advance: Advance) -> Generator[EncodedShard]:
        for number, shard in on_ray(partial(_one_at_a_time, build), jobs, cluster):
            advance(len(jobs[number].entries))
            yield shard

    return make


def _one_at_a_time(build: Callable[[], ShardEncoder]) -> Callable[[Job], Any]:
    encoder = build()
    return lambda job: next(iter(encoder([job])))


TASK = 16 * BATCH
"""Clips of a task (ours): few enough that a lost worker costs little."""


def score_clips_on_ray(
    clips: Sequence[Clip],
    reward: str,
    cluster: Cluster,
    cached: bool = True,
    progress: Progress = lambda done, total: None,
    precision: Precision = "no",
) -> list[ScoredClip]:
    """As plaudit.reward.scoring.score_clips, for the reward called `reward`; workers use the caches of their machines.

    Batches are those of a task, so that scores may differ from those of one process in their last digits.
    """
    absolute = [replace(clip, file=clip.file.absolute()) for clip in clips]
    parts = [tuple(absolute[start : start + TASK]) for start in range(0, len(clips), TASK)]
    scored: dict[int, list[ScoredClip]] = {}
    build = partial(_scorer, portable_name(reward), cluster.device, cached, precision)
    for number, rows in on_ray(build, parts, cluster):
        scored[number] = rows
        progress(sum(map(len, scored.values())), len(clips))
    rows = [row for number in range(len(parts)) for row in scored[number]]
    return [replace(row, clip=clip) for row, clip in zip(rows, clips, strict=True)]


def _scorer(
    name: str, device: str, cached: bool, precision: Precision
) -> Callable[[tuple[Clip, ...]], list[ScoredClip]]:
    reward = loading.load_reward(name, device)
    cache = ScoreCache.of_user(print) if cached else None
    return lambda clips: score_clips(clips, reward, cache, precision=precision)
