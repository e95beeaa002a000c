"""Decoding latents, and generation from prompts to files."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benchmarks.cost.timing import Advance, Section, in_turns
from benchmarks.sampling import naive_latents
from plaudit.devices import device_of
from plaudit.generate.clips import ClipRequest, generate_clips
from plaudit.generate.model import TextToMusic
from plaudit.generate.postprocess import PostProcessor
from plaudit.generate.sampling import initial_noise
from plaudit.generate.settings import Execution, PostSettings


def bench_decode(music: TextToMusic, clips: int, repeats: int, advance: Advance) -> Section:
    """Seconds per clip of decoding `clips` clips: one by one as `generate` does, compared with all at once and
    with gradients recorded, as by a plain call of the module."""
    latents = torch.randn(clips, music.frames, music.codec.latent_dim, generator=torch.Generator().manual_seed(0))
    latents = latents.to(device_of(music.codec))

    def batched() -> None:
        with torch.inference_mode():
            for clip in latents:
                music.codec.decode(clip[None])

    taken = in_turns({"naive": lambda: music.codec.decode(latents), "plaudit": batched}, repeats, advance)
    seconds = {way: total / clips for way, total in taken.items()}
    length = music.frames * music.codec.hop / music.codec.sample_rate
    facts = {"codec": music.codec.name, "times real time": length / seconds["plaudit"]}
    return Section("decode", f"a clip of {length:.1f} s from its latents", seconds, "naive", facts)


def bench_clips(music: TextToMusic, clips: int, repeats: int, advance: Advance) -> Section:
    """Seconds per clip from prompt to finished file with the model's settings, compared with a naive way: prompt by
    prompt, both texts encoded for each clip, float32, no post-processing."""
    settings = music.config.sampling
    prompts = [f"calm ambient pads, number {number}" for number in range(clips)]
    requests = [ClipRequest(f"clip-{number}", prompt, number) for number, prompt in enumerate(prompts)]
    postprocessor = PostProcessor(PostSettings(seconds=music.config.seconds))

    def batched() -> None:
        with tempfile.TemporaryDirectory() as folder:
            generate_clips(music, requests, settings, Path(folder), postprocessor=postprocessor)

    def naive() -> None:
        with torch.no_grad():
            text = music.encode_texts([prompts[0]])
            negative = music.encode_texts([settings.negative_prompt])
            noise = initial_noise([0], music.frames, music.codec.latent_dim).to(music.backbone.latent_mean.device)
            latents = naive_latents(music.backbone, music.backbone, text, negative, noise, settings.steps, bf16=False)
            music.codec.decode(latents.to(device_of(music.codec)))

    taken = in_turns({"naive float32": naive, "plaudit": batched}, repeats, advance)
    seconds = {"naive float32": taken["naive float32"], "plaudit": taken["plaudit"] / clips}
    batch = music.sampler(settings, Execution()).batch
    facts = {"clips": clips, "seconds for all": taken["plaudit"], "batch": batch, "steps": settings.steps}
    return Section("clips", f"a clip of {music.config.seconds:g} s, prompt to wav", seconds, "naive float32", facts)
