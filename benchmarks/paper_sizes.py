"""The paper's recipe through every step at the true sizes of its models: `python -m benchmarks.paper_sizes [seconds]`.

For machines without the released weights: FluxAudio-S, Flan-T5-large's encoder, both CLAPs (HTSAT and RoBERTa-base),
MERT-330M, MMAudio's mel VAE, BigVGAN v2 and TuneJury's head are built with random weights, clips are the embedded
composer's at 44.1 kHz, and every training pass has an update or two of small batches. It shows that the parts fit at
these sizes, what memory they take, and how long each step is; what comes out is noise. Clips have `seconds` (10 by
default, as in the paper; less is quicker). Needs about 8 GB of memory and little disk.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import torch

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
    made = paper_networks.codec()
    print(f"mel VAE {parameters(made.vae)}, BigVGAN {parameters(made.vocoder)}")
    return made


@cache
def clap() -> LaionCLAP:
    """LAION's CLAP."""
    made = paper_networks.clap()
    print(f"CLAP {parameters(made)}")
    return made


@cache
def text_encoder() -> T5CLAPText:
    """The encoder of Flan-T5-large with CLAP's text."""
    made = paper_networks.text_encoder(clap())
    print(f"T5's encoder {parameters(made.t5)}")
    return made


@cache
def mert() -> MERT:
    """MERT-v1-330M."""
    made = paper_networks.mert()
    print(f"MERT {parameters(made)}")
    return made


def put_on_shelves() -> None:
    """Let the recipe's names mean these models."""
    loading.CODECS.register("codec-44k", codec)
    loading.TEXT_ENCODERS.register("text-t5-clap", text_encoder)
    loading.CLAPS.register("clap-music", clap)
    loading.AUDIO_ENCODERS.register("mert-330m", mert)
    # An untrained codec gives back noise, which training rightly refuses.
    inputs.require_fit = lambda music: None


def prepare(folder: Path, seconds: float) -> Path:
    """Audio, captions and rewards of a few clips, and the shard set of them."""
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


def main(seconds: float) -> None:
    """Prints a line for each step."""
    torch.manual_seed(0)
    put_on_shelves()
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
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
