"""Rewards of every kind behind one interface, loaded by name: folders, sums, and other packages'."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import plaudit
from plaudit import code_digest, loading
from plaudit.cli.main import app
from plaudit.errors import AudioError, ModelError
from plaudit.reward.base import RecordingReward
from plaudit.reward.clap_cosine import CLAPCosine
from plaudit.reward.scoring import Clip, score_clips
from plaudit.reward.weighted_sum import combine_rewards, read_weighted_sum
from plaudit.types import Reward
from tests.reward.test_scorer import CLAP, PROMPTS, WAVES, a_jury
from tests.reward.test_scoring import Loudness, a_folder

PACKAGE = """
import torch

class Peak:
    def score(self, waves, rate, prompts):
        return torch.stack([wave.abs().max() for wave in waves])

def broken():
    raise RuntimeError("no weights here")

nothing = dict
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with three rewards, as an installer leaves it."""
    site = tmp_path / "site"
    (site / "peaky-1.0.dist-info").mkdir(parents=True)
    (site / "peaky_rewards.py").write_text(PACKAGE)
    (site / "peaky-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: peaky\nVersion: 1.0\n")
    (site / "peaky-1.0.dist-info" / "entry_points.txt").write_text(
        "[plaudit.rewards]\npeak = peaky_rewards:Peak\nbroken = peaky_rewards:broken\nnothing = peaky_rewards:nothing\n"
    )
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "peaky_rewards", raising=False)


def named(name: str) -> Reward:
    """What the tests' rewards are called."""
    rewards: dict[str, Reward] = {"jury": a_jury(), "cosine": CLAPCosine(CLAP), "loudness": Loudness()}
    return rewards[name]


def test_a_cosine_is_between_embeddings_of_audio_and_text() -> None:
    scores = CLAPCosine(CLAP).score(WAVES, 8000, PROMPTS)
    expected = [
        float(CLAP.audio(w[None])[0] @ CLAP.text([p])[0]) if p else 0.0 for w, p in zip(WAVES, PROMPTS, strict=True)
    ]
    assert scores.tolist() == pytest.approx(expected, abs=1e-6)
    with pytest.raises(AudioError, match="clip 0 is silent"):
        CLAPCosine(CLAP).score([torch.zeros(4000)], 8000, ["x"])


def test_a_cosine_is_read_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "cosine").mkdir()
    (tmp_path / "cosine" / "config.json").write_text('{"kind": "clap", "clap": "synthetic"}')
    assert isinstance(loading.load_reward(str(tmp_path / "cosine")), CLAPCosine)
    (tmp_path / "cosine" / "config.json").write_text('{"kind": "clap"}')
    with pytest.raises(ModelError, match="must name a CLAP"):
        loading.load_reward(str(tmp_path / "cosine"))


def test_every_shipped_reward_loads_and_can_be_batched() -> None:
    for name in loading.REWARDS.builtin:
        reward = plaudit.load_reward(name)
        assert isinstance(reward, RecordingReward) and len(reward.identity) == 64
    assert loading.load_reward("synthetic").identity == loading.load_reward("synthetic").identity  # type: ignore[attr-defined]


def test_a_sum_is_of_z_scores(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    clips = a_folder(tmp_path / "clips", 9)
    reward = combine_rewards(tmp_path / "sum", {"jury": 2.0, "cosine": -0.5}, clips, named)
    parts = {name: [row.score for row in score_clips(clips, named(name))] for name in ("jury", "cosine")}
    z = {name: torch.tensor(scores, dtype=torch.float64) for name, scores in parts.items()}
    z = {name: (s - s.mean()) / s.std() for name, s in z.items()}
    expected = (2.0 * z["jury"] - 0.5 * z["cosine"]).tolist()
    again = read_weighted_sum(tmp_path / "sum", named)
    for each in (reward, again):
        assert [row.score for row in score_clips(clips, each)] == pytest.approx(expected, abs=1e-4)
    assert again.identity == reward.identity != named("jury").identity  # type: ignore[attr-defined]
    assert sum(expected) == pytest.approx(0.0, abs=1e-9)


def test_an_ill_defined_sum_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    clips = a_folder(tmp_path / "clips", 4)
    with pytest.raises(ModelError, match="'loudness' cannot be a part"):
        combine_rewards(tmp_path / "sum", {"loudness": 1.0}, clips, named)
    with pytest.raises(ModelError, match="no spread on 4 clips"):
        combine_rewards(tmp_path / "sum", {"cosine": 1.0}, [Clip(each.file) for each in clips], named)
    with pytest.raises(ModelError, match="at least one part"):
        combine_rewards(tmp_path / "sum", {}, clips, named)
    with pytest.raises(ModelError, match="finite numbers"):
        combine_rewards(tmp_path / "sum", {"jury": float("nan")}, clips, named)
    assert not (tmp_path / "sum").exists()
    combine_rewards(tmp_path / "sum", {"jury": 1.0}, clips, named)
    with pytest.raises(ModelError, match=r"not the one that .* was measured with"):
        read_weighted_sum(tmp_path / "sum", lambda _: named("cosine"))
    (tmp_path / "sum" / "config.json").write_text(json.dumps({"kind": "sum", "parts": [{"reward": "jury"}]}))
    with pytest.raises(ModelError, match="does not describe a sum"):
        read_weighted_sum(tmp_path / "sum", named)


@pytest.mark.usefixtures("installed")
def test_an_installed_reward_loads_by_its_name(tmp_path: Path) -> None:
    reward = loading.load_reward("peak")
    assert reward.score(WAVES[:2], 8000, ["", ""]).tolist() == [wave.abs().max().item() for wave in WAVES[:2]]
    assert all(row.score is not None for row in score_clips(a_folder(tmp_path, 6), reward))
    with pytest.raises(ModelError, match=r"'broken' \(peaky_rewards:broken\) fails: .*no weights here"):
        loading.load_reward("broken")
    with pytest.raises(ModelError, match=r"'nothing' .* has no score; a reward needs score"):
        loading.load_reward("nothing")
    with pytest.raises(ModelError, match=r"no reward 'taste': .* broken, nothing, peak, synthetic, synthetic-clap"):
        loading.load_reward("taste")


def test_a_reward_in_code_of_the_working_folder_is_named_by_module_and_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_peak.py").write_text(PACKAGE)
    monkeypatch.delitem(sys.modules, "my_peak", raising=False)
    path = list(sys.path)
    reward = plaudit.load_reward("my_peak:Peak")
    assert reward.score(WAVES[:1], 8000, [""]).tolist() == [WAVES[0].abs().max().item()]
    assert sys.path == path
    for name, said in {
        "my_peak:broken": "'my_peak:broken' fails: .*no weights here",
        "my_peak:nothing": "has no score",
        "my_peak:Absent": "'my_peak:Absent' fails: AttributeError",
        "not_here:Peak": "No module named 'not_here'",
    }.items():
        with pytest.raises(ModelError, match=said):
            loading.load_reward(name)
    before = loading.REWARDS.identity("my_peak:Peak")
    (tmp_path / "my_peak.py").write_text(PACKAGE.replace(".abs().max()", ".max()"))
    for kept in (code_digest._digests, code_digest.read_module):  # a process reads code once
        kept.cache_clear()
    assert (
        before not in ("none", loading.REWARDS.identity("my_peak:Peak"))
        and loading.REWARDS.identity("not_here:Peak") == "none"
    )


def test_a_reward_in_a_python_file_is_named_by_path_and_class(tmp_path: Path) -> None:
    file = tmp_path / "rewards" / "loud peak.py"
    file.parent.mkdir()
    file.write_text(PACKAGE)
    reward = loading.load_reward(f"{file}:Peak")
    assert reward.score(WAVES[:1], 8000, [""]).tolist() == [WAVES[0].abs().max().item()]
    for name, message in {
        f"{file}:broken": r"fails at .*loud peak\.py, line 9: RuntimeError: no weights here",
        f"{file}:nothing": "has no score; a reward needs score",
        f"{file}:Pak": "defines no Pak; did you mean Peak",
        f"{tmp_path}/none.py:Peak": "there is no file .*none.py",
    }.items():
        with pytest.raises(ModelError, match=message):
            loading.load_reward(name)
    before = loading.REWARDS.identity(f"{file}:Peak")
    file.write_text(PACKAGE.replace(".abs().max()", ".max()"))
    assert before != loading.REWARDS.identity(f"{file}:Peak") and "none" not in before


def test_every_command_takes_a_reward_in_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "their_peak.py").write_text(PACKAGE)
    (tmp_path / "clips").mkdir()
    clips = [str(clip.file) for clip in a_folder(tmp_path / "clips", 2)]
    for command in (["score", *clips], ["rank", *clips], ["reward", "probe"]):
        named = ["their_peak:Peak", *clips] if "probe" in command else ["--reward", "their_peak:Peak"]
        arguments = [*command, *named]
        done = CliRunner().invoke(app, [*arguments, "--json"])
        assert done.exit_code == 0 and not done.exception, (command, done.exception)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int16])
def test_arrays_score_as_tensors_do(kind: type) -> None:
    scale = 32767 if kind is np.int16 else 1
    arrays = [(wave.numpy() / wave.abs().max().item() * 0.9 * scale).astype(kind) for wave in WAVES[:3]]
    tensors = [torch.from_numpy(a.astype(np.float32)) / (32768 if kind is np.int16 else 1) for a in arrays]
    for reward in (a_jury(), CLAPCosine(CLAP)):
        assert torch.equal(reward.score(arrays, 8000, PROMPTS[:3]), reward.score(tensors, 8000, PROMPTS[:3]))
    both = np.stack([arrays[0], arrays[0]])
    assert a_jury().score(both, 8000, PROMPTS[:2]).shape == (2,)
    with pytest.raises(AudioError, match="clip 1 is silent"):
        a_jury().score([arrays[0], np.zeros(9000, kind)], 8000, PROMPTS[:2])


def test_external_rewards_may_return_arrays_and_their_errors_are_one_line(tmp_path: Path) -> None:
    class Mine:
        def __init__(self, returned: object) -> None:
            self.returned = returned

        def score(self, waves: list[torch.Tensor], rate: int, prompts: list[str]) -> object:
            if isinstance(self.returned, Exception):
                raise self.returned
            return self.returned

    (tmp_path / "clips").mkdir()
    clips = a_folder(tmp_path / "clips", 1)[:1]
    for returned in ([0.5], np.array([0.5]), torch.tensor([0.5])):
        assert score_clips(clips, Mine(returned))[0].score == 0.5  # type: ignore[arg-type]
    for returned in (KeyError("weights"), ["good"], None):
        with pytest.raises(ModelError, match=r"Mine\.score fails: .*correct the reward's code"):
            score_clips(clips, Mine(returned))  # type: ignore[arg-type]
