"""The paper's recipe through every step at the true sizes of its models, with random weights."""

from __future__ import annotations

import csv
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import paper_networks
from benchmarks.paper_networks import parameters
from plaudit import loading
from plaudit.audio import resample, write_wav
from plaudit.cli.console import ConsoleReporter
from plaudit.codec.mel_codec import MelCodec
from plaudit.corpus.layouts import FolderCorpus
from plaudit.corpus.shards import encode_corpus
from plaudit.encoders.laion_clap import LaionCLAP
from plaudit.encoders.mert import MERT
from plaudit.encoders.t5_clap import T5CLAPText
from plaudit.machine import peak_memory
from plaudit.pipeline.run_folder import Run
from plaudit.pipeline.steps import run_recipe, steps
from plaudit.recipe import load_recipe
from plaudit.reward.features import PUBLISHED_BLOCKS
from plaudit.reward.tunejury import TuneJuryHead, save_head
from plaudit.stages import inputs
from plaudit.synthetic.corpus import SyntheticCorpus

CLIPS = 12

SMALL = [
    "stages.sft.train={steps: 2, batch: 2, accumulate: 1, warmup: 0}",
    "stages.expert_iteration={candidates: 2, keep: 1}",
    "stages.expert_iteration.train={steps: 2, batch: 2, accumulate: 1}",
    "stages.expert_iteration.fine_tune={steps: 1, batch: 1, accumulate: 1}",
    "stages.pairs={captions: 1, candidates: 2, pairs: 1}",
    "stages.crpo.train={steps: 1, batch: 1, warmup: 0}",
    "training_loop={snapshot_every: 0, validate_every: 0, loader_threads: 1}",
    "sampling.steps=2",
    "sampling_batch=2",
    "post={separate: {passes: 0}, seconds: null}",
    "evaluate={prompts: 2, reference_clips: 2, sweep_prompts: 2, sweep_scores: [0, 5], audio_players: 2}",
]


@cache
def codec() -> MelCodec:
    """The 44.1 kHz mel codec."""
    network = paper_networks.codec()
    print(f"mel VAE {parameters(network.vae)}, BigVGAN {parameters(network.vocoder)}")
    return network


@cache
def clap() -> LaionCLAP:
    """LAION's CLAP."""
    network = paper_networks.clap()
    print(f"CLAP {parameters(network)}")
    return network


@cache
def text_encoder() -> T5CLAPText:
    """The encoder of Flan-T5-large with CLAP's text."""
    network = paper_networks.text_encoder(clap())
    print(f"T5's encoder {parameters(network.t5)}")
    return network


@cache
def mert() -> MERT:
    """MERT-v1-330M."""
    network = paper_networks.mert()
    print(f"MERT {parameters(network)}")
    return network


def register_networks() -> None:
    """Register these models under the names of the recipe."""
    loading.CODECS.register("codec-44k", codec)
    loading.TEXT_ENCODERS.register("text-t5-clap", text_encoder)
    loading.CLAPS.register("clap-music", clap)
    loading.AUDIO_ENCODERS.register("mert-330m", mert)
    # An untrained codec decodes noise, which training refuses.
    inputs.require_fit = lambda music: None


def prepare(folder: Path, seconds: float) -> Path:
    """Write audio, captions and rewards of a few clips, and their shard set; its folder."""
    corpus = SyntheticCorpus(CLIPS, seconds, 1)
    with (folder / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "caption", "reward"])
        for number, clip in enumerate(corpus.clips):
            write_wav(folder / f"{number}.wav", resample(corpus.render(clip), corpus.rate, 44_100), 44_100)
            rows.writerow([f"{number}.wav", clip.caption, number / CLIPS])
    source = FolderCorpus(folder, folder / "captions.csv", reward_column="reward", validation=0.0, test=0.4)
    encode_corpus(source, codec(), text_encoder(), folder / "shards", seconds, batch_size=2)
    return folder / "shards"


def main(seconds: Annotated[float, typer.Argument(help="Length of a clip.")] = 10.0) -> None:
    """Time of each step and peak memory of the paper's recipe at the true sizes of its models.

    For machines without the released weights: FluxAudio-S, Flan-T5-large's encoder, both CLAPs (HTSAT and
    RoBERTa-base), MERT-330M, MMAudio's mel VAE, BigVGAN v2 and TuneJury's head have random weights, clips are synthetic
    music at 44.1 kHz, and every training stage has one or two updates of small batches; the output is noise.
    Needs about 8 GB of memory and little disk.
    """
    torch.manual_seed(0)
    register_networks()
    with tempfile.TemporaryDirectory() as place:
        began = time.monotonic()
        shards = prepare(Path(place), seconds)
        print(f"preparing {CLIPS} clips of {seconds:g} s: {time.monotonic() - began:.1f} s")
        head, encoders = TuneJuryHead(2048, (1024, 512, 256, 128)), {"clap": "clap-music", "audio": "mert-330m"}
        save_head(Path(place) / "reward", head, PUBLISHED_BLOCKS, encoders, {"licence": "none", "provenance": {}})
        data = [f"corpus.folder={shards}", f"corpus.seconds={seconds}", f"reward.name={place}/reward"]
        recipe = load_recipe("paper", [*data, *SMALL])
        run_recipe(recipe, Path(place) / "run", ConsoleReporter())
        run = Run(Path(place) / "run")
        taken = {step.name: run.finished(step.name).seconds for step in steps(recipe)}
    for step, spent in taken.items():
        print(f"{step:24} {spent:8.1f} s")
    print(f"{'all':24} {sum(taken.values()):8.1f} s, {peak_memory() / 2**30:.1f} GiB at most")


if __name__ == "__main__":
    typer.run(main)
