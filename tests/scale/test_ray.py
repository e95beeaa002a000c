"""Ray's workers leave what one process leaves, whatever happens to them."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from plaudit import loading
from plaudit.corpus.layouts import FolderCorpus
from plaudit.corpus.shards import ShardEncoder, encode_corpus
from plaudit.errors import CorpusError, EngineError
from plaudit.generate.clips import ClipRequest, generate_clips
from plaudit.generate.settings import Execution
from plaudit.ray_engine import Cluster, connected, on_ray, ray_engine, score_clips_on_ray, stream_clips_on_ray
from plaudit.reward.scoring import Clip, score_clips
from tests.corpus.test_shards import contents
from tests.corpus.toy import TOY, BandCodec, HashEncoder, encode, maker, write_folder

pytest.importorskip("ray", reason="Ray is not installed (extra scale)")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    with connected("local"):
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FolderCorpus:
    corpus = write_folder(tmp_path_factory.mktemp("audio"), 13)
    (corpus.folder / "005.wav").write_bytes(b"")
    return corpus


@pytest.fixture(scope="module")
def whole(source: FolderCorpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole") / "shards"
    encode(source, folder)
    return contents(folder)


def encode_on_ray(source: FolderCorpus, folder: Path, build: Callable[[], ShardEncoder], cluster: Cluster) -> None:
    message: list[tuple[int, int]] = []
    encode_corpus(
        source, BandCodec(), HashEncoder(), folder, 1.0, shard_size=4, batch_size=2,
        progress=lambda done, total: message.append((done, total)), engine=ray_engine(build, cluster), provenance=TOY,
    )  # fmt: skip
    assert message[-1] == (13, 13)


def test_the_same_bytes_and_only_what_is_missing(source: FolderCorpus, whole: dict[str, bytes], tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    encode_on_ray(source, folder, maker, Cluster(workers=1, threads=1))
    assert contents(folder) == whole
    (folder / "latents-00001.safetensors").unlink()
    before = (folder / "latents-00002.safetensors").stat().st_mtime_ns
    encode_on_ray(source, folder, maker, Cluster(workers=1, threads=1))
    assert contents(folder) == whole and (folder / "latents-00002.safetensors").stat().st_mtime_ns == before


def test_workers_killed_at_random_moments(source: FolderCorpus, whole: dict[str, bytes], tmp_path: Path) -> None:
    pids, folder, dice = tmp_path / "pids", tmp_path / "shards", random.Random(3)
    pids.mkdir()
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while not over.is_set() and len(killed) < 3:
            alive = [int(p.name) for p in pids.iterdir() if int(p.name) not in killed]
            if alive:
                time.sleep(dice.uniform(0, 0.5))
                try:
                    os.kill(alive[0], signal.SIGKILL)
                except ProcessLookupError:
                    pass
                else:
                    killed.append(alive[0])
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        encode_on_ray(source, folder, partial(maker, 0.2, pids), Cluster(workers=1, threads=1))
    finally:
        over.set()
        killer.join()
    assert killed and contents(folder) == whole


def deadly() -> Callable[[int], int]:
    return lambda task: os.kill(os.getpid(), signal.SIGKILL) or 0


def refused() -> Callable[[int], int]:
    def work(task: int) -> int:
        raise CorpusError(f"task {task} is malformed; mend it")

    return work


def test_a_task_that_kills_every_worker_ends_in_one_line() -> None:
    with pytest.raises(EngineError, match="task 0 has lost 2 workers") as caught:
        list(on_ray(deadly, [7], Cluster(workers=1, threads=1, retries=1)))
    assert "\n" not in str(caught.value)


def test_an_error_of_a_task_is_the_users() -> None:
    with pytest.raises(CorpusError, match="task 7 is malformed"):
        list(on_ray(refused, [7], Cluster(workers=1, threads=1)))


def test_scores_and_clips_are_those_of_one_process(tmp_path: Path) -> None:
    model, cluster = loading.load("synthetic", "cpu"), Cluster(workers=1, device="cpu")
    settings = model.config.sampling.changed(steps=2)
    requests = [ClipRequest(f"clip-{i}", prompt, i) for i, prompt in enumerate(("calm piano", "drums", "bass"))]
    one = generate_clips(model, requests, settings, tmp_path / "one", Execution(batch=2))
    names, execution = ("synthetic", None), Execution(batch=2)
    many = list(stream_clips_on_ray(names, model, requests, settings, tmp_path / "many", cluster, execution))
    assert [path.read_bytes() for path in many] == [path.read_bytes() for path in one]
    assert [p.with_suffix(".json").read_text() for p in many] == [p.with_suffix(".json").read_text() for p in one]

    clips = [*(Clip(path, "calm piano") for path in one), Clip(tmp_path / "none.wav")]
    alone = score_clips(clips, loading.load_reward("synthetic"))
    spread = score_clips_on_ray(clips, "synthetic", cluster, cached=False)
    assert [row.clip for row in spread] == clips and spread[3].error == alone[3].error
    assert np.allclose([row.score for row in spread[:3]], [row.score for row in alone[:3]], atol=1e-5)


def test_too_many_workers_are_refused() -> None:
    with pytest.raises(EngineError, match="ask for fewer"):
        list(on_ray(refused, [7], Cluster(workers=1000, threads=1)))
    with pytest.raises(EngineError, match="OMP_NUM_THREADS"):
        list(on_ray(refused, [7], Cluster(threads=1000)))
