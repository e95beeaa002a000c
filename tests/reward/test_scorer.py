import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from plaudit.errors import AudioError, ModelError, PromptError, VoteError
from plaudit.reward.features import FeatureStore, RewardFeatures
from plaudit.reward.training import SYNTHETIC_REWARD, comparisons, fit_reward
from plaudit.reward.tunejury import TuneJury, TuneJuryHead, read_tunejury, save_reward
from plaudit.types import Reward, Vote
from tests.reward.listeners import SpectrumEmbedder, clip

CLAP, MERT = SpectrumEmbedder("clap", 6, seed=0), SpectrumEmbedder("mert", 4, seed=1)
ENCODERS = (lambda _: CLAP, lambda _: MERT)
WAVES = [clip(n, 0.3 + 0.1 * (n % 3)) for n in range(7)]
PROMPTS = ["piano", "", "drums", "piano", "", "a bass", "drums"]


def a_jury() -> TuneJury:
    features = RewardFeatures(CLAP, MERT, ("clap_audio", "audio", "clap_text", "clap_match"))
    head = TuneJuryHead(features.dim, (16, 8), 0.5, torch.Generator().manual_seed(0))
    head.offset.fill_(0.3)
    return TuneJury(head, features, {"metrics": {"accuracy": 0.7}})


def test_scores_do_not_depend_on_the_batch() -> None:
    jury: Reward = a_jury()
    together = jury.score(WAVES, 8000, PROMPTS)
    alone = torch.cat([jury.score([wave], 8000, [prompt]) for wave, prompt in zip(WAVES, PROMPTS, strict=True)])
    backwards = a_jury().score(WAVES[::-1], 8000, PROMPTS[::-1], batch_size=2).flip(0)
    assert together.shape == (7,)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together, backwards, rtol=1e-5, atol=1e-5)
    assert len(a_jury().score([], 8000, [])) == 0


def test_stored_features_give_the_scores_of_their_waveforms() -> None:
    jury = a_jury()
    encoded = jury.features.clip_features(WAVES, 8000)
    torch.testing.assert_close(jury.score_features(encoded, PROMPTS), jury.score(WAVES, 8000, PROMPTS))


def test_a_score_has_a_gradient_in_the_waveform() -> None:
    jury, wave = a_jury(), clip(3).requires_grad_()
    jury.score_features(jury.features.clip_features([wave], 8000), ["piano"]).sum().backward()
    assert wave.grad is not None and wave.grad.any()


def test_bad_clips_and_counts_are_refused() -> None:
    with pytest.raises(AudioError, match="clip 0 is silent"):
        a_jury().score([torch.zeros(4000)], 8000, [""])
    with pytest.raises(AudioError, match="clip 3 holds NaN"):
        a_jury().score([*WAVES[:3], torch.full((4000,), float("nan"))], 8000, [""] * 4, batch_size=2)
    with pytest.raises(PromptError, match="7 clips and 1 prompts"):
        a_jury().score(WAVES, 8000, ["piano"])


def test_a_saved_reward_keeps_the_rate_that_clap_audio_goes_through(tmp_path: Path) -> None:
    features = RewardFeatures(CLAP, MERT, clap_through=2000)
    jury = TuneJury(TuneJuryHead(features.dim, (8,), generator=torch.Generator().manual_seed(0)), features)
    save_reward(jury, tmp_path, "mine", "mert")
    loaded = read_tunejury(tmp_path, *ENCODERS)
    assert loaded.features.clap_through == 2000 and loaded.identity == jury.identity
    plain = TuneJury(jury.head, RewardFeatures(CLAP, MERT))
    scores = jury.score(WAVES, 8000, PROMPTS)
    torch.testing.assert_close(loaded.score(WAVES, 8000, PROMPTS), scores)
    assert plain.identity != jury.identity and (plain.score(WAVES, 8000, PROMPTS) - scores).abs().max() > 1e-3


def test_a_saved_reward_scores_the_same(tmp_path: Path) -> None:
    jury = a_jury()
    save_reward(jury, tmp_path, "clap", "mert")
    again = read_tunejury(tmp_path, {"clap": CLAP}.__getitem__, {"mert": MERT}.__getitem__)
    assert torch.equal(again.score(WAVES, 8000, PROMPTS), jury.score(WAVES, 8000, PROMPTS))
    assert again.facts == jury.facts and again.features.blocks == jury.features.blocks
    save_reward(again, tmp_path / "again", "clap", "mert")
    assert (tmp_path / "again" / "config.json").read_text() == (tmp_path / "config.json").read_text()


def test_a_reward_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    save_reward(a_jury(), tmp_path, "clap", "mert")
    with pytest.raises(ModelError, match="takes 22 features, its encoders give 25"):
        read_tunejury(tmp_path, lambda _: CLAP, lambda _: SpectrumEmbedder("mert", 7, 1))
    config = json.loads((tmp_path / "config.json").read_text())
    del config["head"]["hidden"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="does not describe a reward"):
        read_tunejury(tmp_path, *ENCODERS)
    config["kind"], config["head"]["hidden"] = "codec", [16, 8]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="is of kind 'codec', not a reward"):
        read_tunejury(tmp_path, *ENCODERS)


def noisy_votes(count: int, seed: int) -> list[Vote]:
    """Clips 0..39 of rising quality: the later the better, with a few wrong votes."""
    generator = torch.Generator().manual_seed(seed)
    votes = []
    for n in range(count):
        a, b = torch.randperm(40, generator=generator)[:2].tolist()
        wins = torch.rand((), generator=generator).item() < 1 / (1 + 2.0 ** ((b - a) / 3))
        votes.append(Vote(f"{seed}-{n}", "", f"{a}", f"{b}", "a" if wins else "b", "", "", "test", "l"))
    return votes


def quality_clip(id: str) -> tuple[torch.Tensor, int]:
    """The later the number, the less noise in the tone."""
    number = int(id)
    time = torch.arange(3000) / 8000
    noise = torch.randn(3000, generator=torch.Generator().manual_seed(number))
    return 0.3 * torch.sin(2 * torch.pi * 440 * time) + 0.3 * 2 ** (-number / 4) * noise, 8000


def test_from_votes_to_a_reward_that_ranks_clips(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "features", RewardFeatures(CLAP, MERT))
    store.extract([str(n) for n in range(40)], quality_clip)
    settings = replace(SYNTHETIC_REWARD, blocks=store.features.blocks, hidden=(32, 16), batch_size=64, max_epochs=20)
    fitted = fit_reward(noisy_votes(1500, 0), noisy_votes(300, 1), noisy_votes(500, 2), store, settings)
    assert fitted.metrics.accuracy > 0.8 and fitted.metrics.votes == 500
    assert fitted.reward.facts["train_scores"]["mean"] == pytest.approx(0, abs=1e-4)
    scores = fitted.reward.score([quality_clip(str(n))[0] for n in (0, 12, 24)], 8000, [""] * 3)
    assert scores[0] < scores[1] < scores[2]
    save_reward(fitted.reward, tmp_path / "reward", "clap", "mert")
    again = read_tunejury(tmp_path / "reward", *ENCODERS)
    assert again.facts["best_epoch"] == fitted.history.best_epoch


def test_votes_on_unusable_clips_are_left_out(tmp_path: Path) -> None:
    def load(id: str) -> tuple[torch.Tensor, int]:
        return (torch.zeros(100), 8000) if id == "3" else quality_clip(id)

    store = FeatureStore(tmp_path, RewardFeatures(CLAP, MERT))
    store.extract(["1", "2", "3"], load)
    votes = [
        Vote("1", "p", "1", "2", "tie", "", "", "", ""),
        Vote("2", "p", "1", "3", "a", "", "", "", ""),
        Vote("3", "p", "2", "1", "b", "", "", "", ""),
    ]
    assert comparisons(votes, store).target.tolist() == [0.5, 0.0]
    with pytest.raises(VoteError, match="none of 1 votes"):
        comparisons(votes[1:2], store)
