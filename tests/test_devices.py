"""Every model computes on its device alone, with the results that it has on the CPU; batches fit the memory there.

Without a GPU, two stand-ins show it: PyTorch's meta device, which computes shapes only and refuses to mix devices, and
`PretendGPU`, which also computes values.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks import paper_networks
from plaudit import devices, loading
from plaudit.codec.chunks import decode_piece
from plaudit.devices import SAMPLE_BYTES, batched, device_of, placed, resolve_device
from plaudit.errors import AudioError, ModelError
from plaudit.evaluate.embeddings import embed_waves
from plaudit.flow import plan_windows
from plaudit.generate.settings import SamplingSettings
from plaudit.reward.base import Recording
from plaudit.types import Posterior, TextFeatures
from tests.backbone.tiny import inputs, tiny_model
from tests.codec.test_mel_codec import tiny_codec
from tests.encoders import test_mert, test_t5_clap
from tests.pretend_gpu import GPU, OnGPU, PretendGPU

PROMPTS = ["a slow piano in a minor key", "", "fast drums"]


def test_decoders_stay_on_their_device() -> None:
    for codec, frames in ((loading.CODECS.load("synthetic"), 12), (tiny_codec(), 8)):
        wave = codec.to("meta").decode(torch.empty(2, frames, codec.latent_dim, device="meta"))
        assert wave.device.type == "meta" and wave.shape == (2, frames * codec.hop)


def test_long_decoding_stays_on_its_device() -> None:
    for codec, frames in ((loading.CODECS.load("synthetic"), 200), (tiny_codec(), 600)):
        wave = decode_piece(codec.to("meta"), torch.empty(1, frames, codec.latent_dim, device="meta"))
        assert wave.device.type == "meta" and wave.shape == (1, frames * codec.hop)


def test_windows_stay_on_their_device() -> None:
    windows = plan_windows(40, 16, 4, loop=True)
    x = torch.empty(2, 40, 3, device="meta")
    assert windows.join(windows.cut(x)).device.type == "meta"


def test_networks_stay_on_their_device_whatever_carries_the_score() -> None:
    latents, text, t = inputs(2)
    for injection in ("none", "global_adaln", "input_add", "score_token", "cross_attention", "film"):
        model, score = tiny_model(injection), None if injection == "none" else torch.zeros(2)
        with torch.inference_mode():
            expected = model(latents, text, t, score)
        with PretendGPU(), torch.inference_mode():
            there = [value if value is None else value.to("cuda") for value in (latents, text, t, score)]
            output = model.to("cuda")(*there)
            assert output.device == GPU
            torch.testing.assert_close(output.cpu(), expected)


def noise(batch: int, samples: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))


def mert(folder: Path) -> object:
    test_mert.released(folder)
    return test_mert.imported(folder)


AUDIO_ENCODERS: dict[str, Callable[[Path], object]] = {
    "statistics": lambda folder: loading.AUDIO_ENCODERS.load("statistics"),
    "synthetic": lambda folder: loading.CLAPS.load("synthetic"),
    "laion-clap": lambda folder: test_t5_clap.tiny_encoder(folder).clap,
    "mert": mert,
}
CODECS = {"synthetic": lambda: loading.CODECS.load("synthetic"), "mel": tiny_codec}
TEXT_ENCODERS: dict[str, Callable[[Path], object]] = {
    "synthetic": lambda folder: loading.TEXT_ENCODERS.load("synthetic"),
    "t5-clap": test_t5_clap.tiny_encoder,
}


def test_the_pretended_gpu_refuses_what_a_real_one_refuses() -> None:
    linear = nn.Linear(3, 3)
    with PretendGPU(), torch.inference_mode():
        there = torch.ones(2, 3).to("cuda")
        assert isinstance(there, OnGPU) and there.device == GPU
        with pytest.raises(RuntimeError, match="some on the CPU"):
            there + torch.ones(3)
        with pytest.raises(RuntimeError, match="some on the CPU"):
            linear(there)
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert linear.to("cuda")(there).device == GPU
        assert not isinstance(there.cpu(), OnGPU) and there.sum().item() == 6
    with PretendGPU(float64=False), pytest.raises(TypeError, match="float64"):
        torch.zeros(2, device="cuda").double()


@pytest.mark.parametrize("name", AUDIO_ENCODERS)
def test_audio_encoders_compute_on_the_gpu(name: str, tmp_path: Path) -> None:
    encoder = AUDIO_ENCODERS[name](tmp_path)
    waves = list(noise(3, 16000)) + list(noise(1, 20000))
    expected = embed_waves(encoder, waves, 16000)
    with PretendGPU(float64=False) as gpu:
        assert device_of(placed(encoder, GPU)) == GPU
        gpu.pinned = 0
        embeddings = embed_waves(encoder, waves, 16000)
        assert gpu.pinned == 2  # one copy for each length
    assert (embeddings == expected).all()


@pytest.mark.parametrize("name", CODECS)
def test_codecs_compute_on_the_gpu(name: str) -> None:
    codec = CODECS[name]()
    waves = noise(2, 40 * codec.hop)
    with torch.inference_mode():
        expected = codec.encode(waves)
        decoded = codec.decode(expected.mean)
    with PretendGPU(float64=False), torch.inference_mode():
        placed(codec, GPU)
        posterior = batched(codec, codec.encode, waves)
        wave = batched(codec, codec.decode, posterior.mean)
    for there, here in ((posterior.mean, expected.mean), (posterior.std, expected.std), (wave, decoded)):
        assert not isinstance(there, OnGPU) and torch.equal(there, here)


@pytest.mark.parametrize("name", TEXT_ENCODERS)
def test_text_encoders_compute_on_the_gpu(name: str, tmp_path: Path) -> None:
    encoder = TEXT_ENCODERS[name](tmp_path)
    with torch.inference_mode():
        expected = encoder.encode(PROMPTS)
    with PretendGPU(float64=False), torch.inference_mode():
        placed(encoder, GPU)
        assert encoder.encode(PROMPTS).tokens.device == GPU and encoder.encode(PROMPTS).pooled.device == GPU
        features = batched(encoder, encoder.encode, PROMPTS)
    assert torch.equal(features.tokens, expected.tokens) and torch.equal(features.pooled, expected.pooled)


@pytest.mark.parametrize("name", ["synthetic", "synthetic-clap"])
def test_rewards_compute_on_the_gpu_and_have_the_same_identity(name: str) -> None:
    reward = loading.load_reward(name, "cpu")
    waves, identity = list(noise(3, 24000)), reward.identity
    expected = reward.score(waves, 16000, PROMPTS)
    with PretendGPU(float64=False):
        there = loading.load_reward(name, "auto")
        assert device_of(there) == GPU and there.identity == identity
        scores = there.score(waves, 16000, PROMPTS)
        recordings = [Recording(wave, 16000, "clip") for wave in waves]
        assert torch.equal(there.score_recordings(recordings, PROMPTS), expected)
    assert torch.equal(scores, expected)


def test_a_sum_of_rewards_computes_on_the_gpu(tmp_path: Path) -> None:
    from plaudit.reward.weighted_sum import WeightedReward, WeightedSum

    rewards = [loading.load_reward(name, "cpu") for name in ("synthetic", "synthetic-clap")]
    both = WeightedSum([WeightedReward("a", 1.0, 0.0, 1.0, "a"), WeightedReward("b", 0.5, 0.1, 2.0, "b")], rewards)
    waves = list(noise(3, 24000))
    expected = both.score(waves, 16000, PROMPTS)
    with PretendGPU():
        assert {device_of(reward) for reward in placed(both, GPU).rewards} == {GPU}
        assert torch.equal(both.score(waves, 16000, PROMPTS), expected)


def test_a_model_samples_on_the_gpu() -> None:
    settings = SamplingSettings(steps=2, precision="no")
    expected = loading.load("synthetic", "cpu").generate(PROMPTS[:2], settings=settings)
    with PretendGPU():
        music = loading.load("synthetic")
        parts = (music.backbone, music.codec, music.text_encoder.text, music.text_encoder.clap)  # type: ignore[attr-defined]
        assert {device_of(part) for part in parts} == {GPU}
        clips = music.generate(PROMPTS[:2], settings=settings)
    # Threads may share the clips on the CPU alone: latents then differ by rounding, which phases add up.
    torch.testing.assert_close(clips, expected, atol=1e-3, rtol=0)


class Loud:
    """A part of another package that knows nothing of devices."""

    name, sample_rate, dim = "loud", 16000, 1

    def audio(self, wave: Tensor) -> Tensor:
        assert not isinstance(wave, OnGPU)
        return wave.abs().mean(1, keepdim=True)


def test_a_part_that_cannot_be_moved_computes_on_the_cpu() -> None:
    with PretendGPU() as gpu:
        loud = placed(Loud(), GPU)
        assert device_of(loud) == torch.device("cpu")
        assert batched(loud, loud.audio, torch.ones(2, 10)).tolist() == [[1.0], [1.0]] and not gpu.moved


class LoudReward(nn.Module):
    """A reward of another package with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([2.0]), requires_grad=False)

    def score(self, waves: list[Tensor], rate: int, prompts: list[str]) -> Tensor:
        return torch.cat([self.scale * wave.abs().max() for wave in waves])


def test_a_reward_that_is_a_module_gets_its_audio_on_its_device() -> None:
    from plaudit.reward.scoring import score_waves

    with PretendGPU() as gpu:
        reward = placed(LoudReward(), GPU)
        assert score_waves(reward, [torch.ones(5), torch.zeros(5)], 16000, ["", ""]).tolist() == [2.0, 0.0]
        assert gpu.pinned == 2


class Crowded(nn.Module):
    """A model whose memory holds `most` rows."""

    def __init__(self, most: int, error: type[RuntimeError] = torch.OutOfMemoryError) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1), requires_grad=False)
        self.most, self.error, self.sizes = most, error, list[int]()

    def audio(self, wave: Tensor) -> Tensor:
        self.sizes.append(len(wave))
        if len(wave) > self.most:
            raise self.error("CUDA out of memory. Tried to allocate 20.00 GiB")
        return self.weight * wave.sum(1, keepdim=True)

    def text(self, prompts: list[str]) -> TextFeatures:
        rows = self.audio(torch.tensor([[float(len(prompt))] for prompt in prompts]).to(self.weight.device))
        return TextFeatures(rows[:, None], rows)

    def encode(self, wave: Tensor) -> Posterior:
        rows = self.audio(wave)
        return Posterior(rows, rows + 1)


@pytest.fixture(autouse=True)
def _no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_LIMITS", {})


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_a_batch_that_runs_out_of_memory_is_halved_and_so_are_later_ones(error: type[RuntimeError]) -> None:
    rows = noise(16, 10)
    with PretendGPU(), torch.inference_mode():
        model = Crowded(3, error).to("cuda")
        assert torch.equal(batched(model, model.audio, rows), rows.sum(1, keepdim=True))
        assert model.sizes == [16, 8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
        model.sizes.clear()
        batched(model, model.audio, rows[:4])
        assert model.sizes == [2, 2]
        model.sizes.clear()
        batched(model, model.audio, torch.ones(3, 20))  # twice as long
        assert model.sizes == [1, 1, 1]


def test_posteriors_and_text_are_halved_too() -> None:
    with PretendGPU():
        model = Crowded(2).to("cuda")
        posterior = batched(model, model.encode, torch.ones(5, 3))
        assert posterior.mean.tolist() == [[3.0]] * 5 and posterior.std.tolist() == [[4.0]] * 5
        features = batched(model, model.text, ["a", "bb", "ccc"])
        assert features.pooled.flatten().tolist() == [1, 2, 3] and not isinstance(features.tokens, OnGPU)


def test_one_row_too_long_for_the_memory_is_an_error_of_one_line() -> None:
    with PretendGPU():
        model = Crowded(0).to("cuda")
        with pytest.raises(AudioError, match=r"more memory than cuda:0 has left; cut it shorter or use --device cpu"):
            batched(model, model.audio, noise(4, 10))


def test_other_errors_are_not_taken_for_full_memory() -> None:
    def broken(wave: Tensor) -> Tensor:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        batched(nn.Linear(1, 1), broken, noise(4, 10))


def test_batches_are_cut_by_the_memory_of_the_device() -> None:
    with PretendGPU(memory=10.4 * SAMPLE_BYTES * 100 / devices.MEMORY_FRACTION["cuda"]), torch.inference_mode():
        model = Crowded(99).to("cuda")
        batched(model, model.audio, noise(25, 100))
        assert model.sizes == [10, 10, 5]
        model.sizes.clear()
        model.sample_bytes = SAMPLE_BYTES / 2  # type: ignore[assignment]
        batched(model, model.audio, noise(25, 100))
        assert model.sizes == [20, 5]
    model = Crowded(99)
    batched(model, model.audio, noise(25, 100))
    assert model.sizes == [25]


def test_gradients_pass_through_the_device() -> None:
    wave = noise(4, 10).requires_grad_()
    model = Crowded(9)
    batched(model, model.audio, wave).sum().backward()
    assert wave.grad is not None and torch.equal(wave.grad, torch.ones(4, 10))


def test_auto_prefers_a_gpu_and_unknown_devices_are_refused() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    with PretendGPU():
        assert resolve_device("auto") == torch.device("cuda") and resolve_device("cuda:0") == GPU
        with pytest.raises(ModelError, match="no device 'cuda:1' here; there are 1"):
            resolve_device("cuda:1")
    for name in ("cuda", "tpu", "cpu:x", ""):
        with pytest.raises(ModelError, match=rf"no device {name!r} here; use auto or one of cpu"):
            resolve_device(name)


class Allocated(TorchDispatchMode):
    """The most bytes of tensors, computed while it is active, that exist at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: dict[int, int] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and not getattr(tensor, "counted", False):
                tensor.counted = True  # type: ignore[attr-defined]
                self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.now += size
            self.most = max(self.most, self.now)
        self.known[key] = self.known.get(key, 0) + 1

        def freed() -> None:
            self.known[key] -= 1
            if not self.known[key]:
                del self.known[key]
                self.now -= size

        weakref.finalize(tensor, freed)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mert", "clap", "codec", "statistics", "synthetic clap", "synthetic codec"])
def test_activations_of_networks_of_published_size_fit_their_estimate(name: str) -> None:
    models: dict[str, Callable[[], Any]] = {
        "mert": partial(paper_networks.mert, paper_networks.PAPER),
        "clap": partial(paper_networks.clap, paper_networks.PAPER),
        "codec": partial(paper_networks.codec, paper_networks.PAPER),
        "statistics": partial(loading.AUDIO_ENCODERS.load, "statistics"),
        "synthetic clap": partial(loading.CLAPS.load, "synthetic"),
        "synthetic codec": partial(loading.CODECS.load, "synthetic"),
    }
    model = models[name]()
    samples = 10 * model.sample_rate // 1024 * 1024
    wave = noise(1, samples)
    with Allocated() as allocated, torch.no_grad():
        model.encode(wave) if "codec" in name else model.audio(wave)
    assert 0.3 * model.sample_bytes * samples < allocated.most <= model.sample_bytes * samples
