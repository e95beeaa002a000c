"""Scoring files on the CPU: the package in turns with the naive way, one file after the other."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soundfile
import torch
import typer

from benchmarks import paper_networks
from benchmarks.cost.timing import in_turns
from benchmarks.reference_scoring import plain_reward
from plaudit import loading
from plaudit.audio import read_audio, resample
from plaudit.machine import environment_of, seconds_of
from plaudit.reward.base import Recording
from plaudit.reward.features import RewardFeatures, embed_batched, embed_whole
from plaudit.reward.scoring import BATCH, Clip, score_clips
from plaudit.reward.tunejury import TuneJury, TuneJuryHead
from plaudit.settings import Precision
from plaudit.synthetic.corpus import SyntheticCorpus

SECONDS = 10.0


def written_clips(folder: Path, count: int) -> list[Clip]:
    """Clips of the synthetic composer as 16-bit wav files, every fourth at 44.1 kHz in stereo."""
    corpus = SyntheticCorpus(count, SECONDS)
    clips = []
    for index, clip in enumerate(corpus.clips):
        wave, rate = corpus.render(clip), corpus.rate
        if index % 4 == 3:
            wave, rate = np.stack([resample(wave, rate, 44100)] * 2, axis=1), 44100
        path = folder / f"{clip.id}.wav"
        soundfile.write(path, wave, rate, "PCM_16")
        clips.append(Clip(path, clip.caption))
    return clips


def file_by_file(clips: Sequence[Clip], reward: TuneJury) -> list[float]:
    """Load a file, score it in float32, take the next."""
    scores = []
    for clip in clips:
        wave, rate = read_audio(clip.file)
        scores.append(float(reward.score([torch.from_numpy(wave)], rate, [clip.prompt])[0]))
    return scores


def by_package(clips: Sequence[Clip], reward: TuneJury, precision: Precision) -> list[float]:
    """The scores of `plaudit score`."""
    return [float(row.score) for row in score_clips(clips, reward, precision=precision) if row.score is not None]


def measure(
    clips: Sequence[Clip], reward: TuneJury, naive: dict[str, TuneJury], repeats: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """(median seconds a clip, scores) of each way: `naive` rewards file by file, then the package."""
    scores: dict[str, list[float]] = {}

    def keep(name: str, way: Callable[[], list[float]]) -> Callable[[], None]:
        return lambda: scores.update({name: way()})

    ways = {name: keep(name, lambda one=one: file_by_file(clips, one)) for name, one in naive.items()}  # type: ignore[misc]
    precisions: tuple[Precision, ...] = ("no", "bf16")
    for precision in precisions:
        way = f"package, {'float32' if precision == 'no' else precision}"
        ways[way] = keep(way, lambda precision=precision: by_package(clips, reward, precision))  # type: ignore[misc]
    taken = in_turns(ways, repeats, lambda done, total: None)
    return {way: seconds / len(clips) for way, seconds in taken.items()}, scores


def milliseconds_by_stage(clips: Sequence[Clip], reward: TuneJury) -> dict[str, float]:
    """Milliseconds a clip of each stage with one thread, in batches of the size that scoring has; float32."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    features, clips = reward.features, clips[: 4 * BATCH]
    decoded: list[tuple[np.ndarray, int]] = []
    recordings: list[Recording] = []

    def decode() -> None:
        decoded[:] = [read_audio(clip.file) for clip in clips]

    def resampled() -> None:
        recordings[:] = [Recording(torch.from_numpy(wave), rate, "") for wave, rate in decoded]
        for recording in recordings:
            for view in features.views:
                recording.view(view)

    def batches(embed: Callable[[list[Recording]], object]) -> Callable[[], object]:
        return lambda: [embed(recordings[at : at + BATCH]) for at in range(0, len(recordings), BATCH)]

    clap_view, audio_view = features.views
    prompts = [clip.prompt for clip in clips]
    stages: dict[str, Callable[[], object]] = {
        "decode": decode,
        "resample": resampled,
        "clap": batches(lambda some: embed_batched(features.clap, [one.view(clap_view) for one in some])),
        "audio encoder": batches(lambda some: embed_whole(features.audio_encoder, [r.view(audio_view) for r in some])),
        "prompts and head": lambda: [
            reward.score_features(torch.zeros(BATCH, features.clip_dim), prompts[at : at + BATCH])
            for at in range(0, len(prompts) // BATCH * BATCH, BATCH)
        ],
    }
    if hasattr(features.clap, "listening"):
        waves = batches(lambda some: features.clap.listening(torch.stack([r.view(clap_view) for r in some])))  # type: ignore[attr-defined]
        stages["spectra of clap, part of clap"] = waves
    try:
        with torch.inference_mode():
            for stage in stages.values():
                stage()
            return {
                name: 1000 * min(seconds_of(stage) for _ in range(3)) / len(clips) for name, stage in stages.items()
            }
    finally:
        torch.set_num_threads(threads)


def published_reward() -> TuneJury:
    """A reward over CLAP (HTSAT) and MERT-330M of the published sizes with random weights."""
    torch.manual_seed(0)
    features = RewardFeatures(paper_networks.clap().eval(), paper_networks.mert().eval())
    return TuneJury(TuneJuryHead(features.dim), features)


def main(
    count: Annotated[int, typer.Option("-n", "--count", min=2, help="Clips of 10 s.")] = 100,
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs of each way, of which the median counts.")] = 3,
    published: Annotated[
        bool, typer.Option(help="Measure CLAP and MERT-330M of the published sizes, with random weights.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time the scoring of files against one file after the other, in turns in one process.

    times_file_by_file is the naive way against `plaudit score`, both in float32: file by file with PyTorch's default
    threads and the encoders of benchmarks.reference_scoring. times_same_encoders has the package's encoders instead.
    """
    shipped = loading.load_tunejury("synthetic", "cpu")
    with tempfile.TemporaryDirectory() as place:
        clips = written_clips(Path(place), count)
        if published:
            reward, naive = published_reward(), "file by file"
            seconds, scores = measure(clips, reward, {naive: reward}, repeats)
        else:
            reward, naive = shipped, "file by file, plain encoders"
            ways = {naive: plain_reward(shipped), "file by file, the package's encoders": reward}
            seconds, scores = measure(clips, reward, ways, repeats)
        package = seconds["package, float32"]
        deviation = float(np.std(scores[naive]))
        results: dict[str, Any] = {"times_file_by_file": seconds[naive] / package}
        if not published:
            results["times_same_encoders"] = seconds["file by file, the package's encoders"] / package
            results["milliseconds_by_stage_one_thread"] = milliseconds_by_stage(clips, reward)
        results |= {
            "milliseconds_a_clip": {way: 1000 * taken for way, taken in seconds.items()},
            "largest_difference_in_deviations": {
                way: float(np.abs(np.subtract(values, scores[naive])).max()) / deviation
                for way, values in scores.items()
                if way != naive
            },
            "clips": count,
            "environment": environment_of(torch.device("cpu")),
        }
    if as_json:
        print(json.dumps(results))
        return
    for name, value in results.items():
        if name != "environment":
            print(f"{name}: {value}")


if __name__ == "__main__":
    typer.run(main)
