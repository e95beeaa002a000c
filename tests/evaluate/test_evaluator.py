from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from plaudit.errors import AudioError, PlauditError, PromptError, RunError
from plaudit.evaluate.distances import frechet_distance
from plaudit.evaluate.embeddings import AudioEncoder, reference_of
from plaudit.evaluate.evaluator import StageScores, embed_audio, evaluate_clips, frechet_difference
from plaudit.evaluate.set_metrics import SET_METRICS

RATE = 8000


class BandClap:
    """A listener whose embedding is the energy in eight bands, and a reader who knows tones by their names."""

    name = "bands"
    sample_rate = RATE
    dim = 8

    def audio(self, wave: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(wave, dim=1).abs()  # [B, F]
        bands = torch.stack([band.mean(dim=1) for band in spectrum.tensor_split(self.dim, dim=1)], dim=1)
        return bands / bands.norm(dim=1, keepdim=True)

    def text(self, prompts: list[str]) -> Tensor:
        return self.audio(torch.stack([tone(float(prompt.split()[0])) for prompt in prompts]))


class Loudness:
    """A reward that likes it loud."""

    def score(self, waves: list[Tensor], rate: int, prompts: list[str]) -> Tensor:
        return torch.stack([wave.square().mean().sqrt() for wave in waves])


def tone(frequency: float, seconds: float = 0.25, level: float = 0.5, rate: int = RATE) -> Tensor:
    return level * torch.sin(2 * torch.pi * frequency * torch.arange(int(seconds * rate)) / rate)


FREQUENCIES = [300.0, 800.0, 1300.0, 1800.0, 2300.0, 2800.0]
PROMPTS = [f"{frequency} Hz tone" for frequency in FREQUENCIES]
HEARD = BandClap().text(PROMPTS * 3).numpy() + np.random.default_rng(0).normal(0, 0.1, (18, 8))
REFERENCE = reference_of(AudioEncoder("bands", "d1", BandClap()), HEARD, "tones")


def evaluate(waves: list[Tensor], **extra: object) -> StageScores:
    return evaluate_clips(
        waves, RATE, PROMPTS, reward=Loudness(), clap=BandClap(), reference=REFERENCE, resamples=20, **extra
    )


def test_clips_that_do_as_asked_score_better() -> None:
    right = evaluate([tone(f) for f in FREQUENCIES])
    wrong = evaluate([tone(f) for f in reversed(FREQUENCIES)])
    assert right.clap == pytest.approx(np.ones(6), abs=1e-5)
    assert wrong.clap.mean() < 0.5
    assert right.reward == pytest.approx(np.full(6, 0.5 / np.sqrt(2)), rel=1e-3)
    assert right.frechet == pytest.approx(frechet_distance(right.embeddings, HEARD))
    assert right.utility is None


def test_utility_is_what_the_listeners_say_of_the_truth() -> None:
    def listeners(waves: list[Tensor], truths: list[float]) -> Tensor:
        return torch.stack([wave.std() for wave in waves]) * torch.tensor(truths)

    waves = [tone(f, level=0.5) for f in FREQUENCIES]
    truths = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    expected = 0.5 / np.sqrt(2) * np.array(truths)
    assert evaluate(waves, truths=truths, listeners=listeners).utility == pytest.approx(expected, rel=0.01)
    assert evaluate(waves, listeners=listeners).utility is None


def test_embeddings_do_not_depend_on_batch_length_or_rate() -> None:
    waves = [tone(400.0, rate=16000), tone(700.0, 0.5, rate=16000), tone(400.0, rate=16000)]
    together = embed_audio(BandClap(), waves, 16000, batch_size=2)
    alone = np.concatenate([embed_audio(BandClap(), [wave], 16000) for wave in waves])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together[0], BandClap().audio(tone(400.0)[None])[0], atol=0.02)


def test_distances_of_two_stages_are_compared_on_the_same_resampled_prompts() -> None:
    near, far = evaluate([tone(f) for f in FREQUENCIES]), evaluate([tone(500.0) for _ in FREQUENCIES])
    worse = frechet_difference(far, near)
    assert worse.mean == pytest.approx(far.frechet - near.frechet) and worse.mean > 0
    nothing = frechet_difference(near, near)
    assert (nothing.low, nothing.mean, nothing.high) == (0.0, 0.0, 0.0)
    assert near.frechet_interval.low >= 0.0


def test_scores_are_read_back_exactly(tmp_path: Path) -> None:
    scores = evaluate(
        [tone(f) for f in FREQUENCIES],
        truths=[0.1] * 6,
        listeners=lambda w, t: torch.tensor(t),
        coverage=lambda wave, rate, prompt: None if prompt.startswith("300") else 0.5,
        sets=("kernel", "vendi"),
    )
    scores.save(tmp_path / "scores")
    back = StageScores.load(tmp_path / "scores")
    assert back.prompts == scores.prompts and back.frechet == scores.frechet and back.sets == scores.sets
    for name in ("reward", "clap", "utility", "embeddings", "frechet_replicates", "concepts"):
        np.testing.assert_array_equal(getattr(back, name), getattr(scores, name))


def test_damaged_scores_are_refused(tmp_path: Path) -> None:
    evaluate([tone(f) for f in FREQUENCIES]).save(tmp_path)
    arrays = tmp_path / "embeddings.npz"
    arrays.write_bytes(arrays.read_bytes()[:100])
    with pytest.raises(RunError, match="damaged"):
        StageScores.load(tmp_path)
    with pytest.raises(PlauditError, match="does not exist"):
        StageScores.load(tmp_path / "nowhere")


@pytest.mark.parametrize("bad", [torch.full((2000,), torch.nan), torch.zeros(0)])
def test_a_clip_that_is_no_audio_is_named(bad: Tensor) -> None:
    with pytest.raises(AudioError, match=r"clip 2 .*1300"):
        evaluate([bad if i == 2 else tone(f) for i, f in enumerate(FREQUENCIES)])


def test_every_prompt_needs_its_clip() -> None:
    with pytest.raises(PromptError, match="5 clips for 6 prompts"):
        evaluate([tone(f) for f in FREQUENCIES[:5]])


def test_concepts_are_told_by_clip_and_a_prompt_that_names_none_has_none() -> None:
    found = evaluate(
        [tone(f) for f in FREQUENCIES],
        coverage=lambda wave, rate, prompt: None if prompt.startswith("300") else wave.abs().max().item(),
    )
    assert np.isnan(found.concepts[0]) and found.concepts[1:] == pytest.approx(np.full(5, 0.5), abs=0.03)
    assert evaluate([tone(f) for f in FREQUENCIES]).concepts is None


def test_metrics_of_the_set_are_those_of_the_embeddings() -> None:
    scores = evaluate([tone(f) for f in FREQUENCIES], sets=("kernel", "mauve", "vendi"))
    kernel, mauve, vendi = scores.sets
    expected = SET_METRICS["kernel"].measure(scores.embeddings, REFERENCE)[0]
    assert (kernel.value, kernel.low, kernel.high) == (expected.mean, expected.low, expected.high)
    assert mauve.value is None and "20" in mauve.note  # six clips are not enough, which is said and not dropped
    assert vendi.better == "higher" and vendi.embedding == "bands"
