"""Every command with --device computes on the GPU, with the results that it has on the CPU."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import plaudit
from plaudit import loading
from plaudit.audio import write_wav
from plaudit.cli.main import app
from plaudit.devices import ACCELERATOR_BATCH, device_of
from plaudit.errors import ModelError, RunError
from plaudit.evaluate.embeddings import load_references
from plaudit.pipeline.results import REFERENCE
from plaudit.pipeline.steps import run_recipe
from plaudit.recipe import load_recipe
from plaudit.reporting import Silent
from plaudit.reward.base import Recording, View
from plaudit.reward.scoring import Clip, score_clips
from plaudit.storage import read_json
from plaudit.synthetic.corpus import SyntheticCorpus
from plaudit.training.distributed import accelerator_for, process_device
from tests.pretend_gpu import GPU, PretendGPU

CLIPS = 4


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of clips, their prompts and votes on pairs of them."""
    folder = tmp_path_factory.mktemp("music")
    corpus = SyntheticCorpus(CLIPS, 3.0, 5)
    prompts, votes = ["file,prompt"], ["prompt,a,b,winner,system_a,system_b"]
    for number, clip in enumerate(corpus.clips):
        write_wav(folder / f"{number}.wav", corpus.render(clip), corpus.rate)
        prompts.append(f'{number}.wav,"{clip.caption}"')
        votes.append(f'"{clip.caption}",{number}.wav,{(number + 1) % CLIPS}.wav,{"ab"[number % 2]},x{number % 2},y')
    (folder / "prompts.csv").write_text("\n".join(prompts) + "\n")
    (folder / "votes.csv").write_text("\n".join(votes) + "\n")
    return folder


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, torch.device]]]:
    """The models that were loaded, and their devices."""
    models: list[tuple[str, torch.device]] = []
    original = loading.placed

    def noted(model: Any, device: torch.device) -> Any:
        result = original(model, device)
        models.append((type(result).__name__, device_of(result)))
        return result

    monkeypatch.setattr(loading, "placed", noted)
    yield models


def on_gpu(placed: list[tuple[str, torch.device]], *names: str) -> None:
    """Assert that models of these classes were loaded, and all of them to the GPU."""
    assert set(names) <= {name for name, _ in placed}
    plain = {"SyntheticTextEncoder"}  # of two modules, each with a device
    assert {device for name, device in placed if name not in plain} == {GPU}
    placed.clear()


def test_scores_and_ranks(music: Path, placed: list[tuple[str, torch.device]]) -> None:
    expected = plaudit.score(music, prompt="piano", cache=False, device="cpu")
    best = plaudit.rank(music, prompt="piano", cache=False, device="cpu").best
    placed.clear()
    with PretendGPU():
        scores = plaudit.score(music, prompt="piano", cache=False)
        on_gpu(placed, "TuneJury")
        ranked = plaudit.rank(music, prompt="piano", cache=False).best
        on_gpu(placed, "TuneJury")
    assert [score.reward for score in scores] == pytest.approx([score.reward for score in expected], abs=1e-5)
    assert [entry.scored.clip.file for entry in ranked] == [entry.scored.clip.file for entry in best]


def test_evaluations(music: Path, placed: list[tuple[str, torch.device]]) -> None:
    chosen = {"prompts": music / "prompts.csv", "cache": False, "embeddings": ("synthetic", "statistics"),
              "reference": music}  # fmt: skip
    expected = plaudit.evaluate(music, device="cpu", **chosen).values
    placed.clear()
    with PretendGPU():
        values = plaudit.evaluate(music, **chosen).values
    on_gpu(placed, "TuneJury", "SyntheticCLAP", "StatisticsEmbedder")
    there, here = values.table.to_pylist(), expected.table.to_pylist()
    assert len(there) > 3 * CLIPS
    for one, other in zip(there, here, strict=True):
        assert one["metric"] == other["metric"]
        assert one["value"] == pytest.approx(other["value"], abs=1e-4)


def test_generation_with_the_best_of_several(tmp_path: Path, placed: list[tuple[str, torch.device]]) -> None:
    settings = {"best_of": 2, "steps": 2, "piece": {"seconds": 3.0}, "precision": "no"}
    (expected,) = plaudit.generate("slow piano", device="cpu", **settings)
    placed.clear()
    with PretendGPU():
        (clip,) = plaudit.generate("slow piano", **settings)
    on_gpu(placed, "TuneJury", "SyntheticCodec")
    np.testing.assert_allclose(clip.waveform, expected.waveform, atol=1e-4)


def test_rewards_are_trained_evaluated_and_probed(
    music: Path, tmp_path: Path, placed: list[tuple[str, torch.device]]
) -> None:
    run, votes, audio = CliRunner(), str(music / "votes.csv"), str(music)
    with PretendGPU():
        evaluated = run.invoke(
            app, ["reward", "evaluate", "synthetic", "--votes", votes, "--audio", audio, "-o", str(tmp_path / "e")],
            catch_exceptions=False,
        )  # fmt: skip
        on_gpu(placed, "TuneJury")
        probed = run.invoke(app, ["reward", "probe", "synthetic-clap", audio, "--prompt", "piano", "--json"])
        on_gpu(placed, "CLAPCosine")
    assert evaluated.exit_code == 0 and probed.exit_code == 0
    assert len(json.loads(probed.stdout)["rows"]) > 3


def test_an_unknown_device_is_refused_before_anything_is_read(music: Path) -> None:
    for command in (plaudit.score, plaudit.rank):
        with pytest.raises(ModelError, match="no device 'cuda' here; use auto or one of cpu"):
            command(music, device="cuda")
    with pytest.raises(ModelError, match="no device 'cuda' here"):
        plaudit.evaluate(music, prompts=music / "prompts.csv", device="cuda")
    with pytest.raises(ModelError, match="no device 'cuda' here"):
        plaudit.run("smoke", device="cuda")


class Counting:
    """A reward on the GPU that notes the sizes of its batches."""

    views, identity, device = (View(8000),), "counting", GPU

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def score(self, waves: list[torch.Tensor], rate: int, prompts: list[str]) -> torch.Tensor:
        raise AssertionError("recordings can be scored")

    def score_recordings(self, recordings: list[Recording], prompts: list[str]) -> torch.Tensor:
        self.sizes.append(len(recordings))
        return torch.tensor([float(recording.wave.abs().max()) for recording in recordings])


def test_scoring_on_a_gpu_collects_more_clips(tmp_path: Path) -> None:
    for number in range(ACCELERATOR_BATCH + 6):
        write_wav(tmp_path / f"{number}.wav", np.sin(np.arange(800, dtype=np.float32)) / 2, 8000)
    reward = Counting()
    rows = score_clips([Clip(file) for file in sorted(tmp_path.glob("*.wav"))], reward)
    assert reward.sizes == [ACCELERATOR_BATCH, 6] and all(row.error is None for row in rows)


def test_a_process_takes_the_device_by_name_or_by_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    assert process_device("auto") == torch.device("cpu") == accelerator_for("no").device
    with PretendGPU():
        assert process_device("auto") == torch.device("cuda") and process_device("cpu") == torch.device("cpu")
        assert accelerator_for("no").device == torch.device("cuda")
        assert accelerator_for("no", torch.device("cpu")).device == torch.device("cpu")
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("LOCAL_RANK", "0")
        assert process_device("auto") == GPU and process_device("cpu") == torch.device("cpu")
        with pytest.raises(RunError, match="several processes can't share --device cuda:0"):
            process_device("cuda:0")
    assert process_device("auto") == torch.device("cpu")


def test_one_process_can_have_accelerators_of_two_precisions() -> None:
    assert accelerator_for("bf16").mixed_precision == "bf16"
    assert accelerator_for("no").mixed_precision == "no"


STEPS = ["corpus.size=100", "corpus.seconds=3",
         "votes.pairs=30", "votes.validation_pairs=10", "reward.max_epochs=2", "precision=no",
         "evaluate.reference_clips=4"]  # fmt: skip


@pytest.mark.slow
def test_the_steps_of_a_run_put_their_models_on_the_gpu(
    tmp_path: Path, placed: list[tuple[str, torch.device]]
) -> None:
    recipe = load_recipe("smoke", STEPS)
    with PretendGPU() as gpu:
        for step in ("labels", "reference"):
            run_recipe(recipe, tmp_path / "gpu", Silent(), step)
    on_gpu(placed, "SyntheticCodec", "SyntheticTextEncoder", "SyntheticCLAP", "StatisticsEmbedder", "TuneJury")
    assert gpu.pinned > 3
    for step in ("labels", "reference"):
        run_recipe(recipe, tmp_path / "cpu", Silent(), step)
    there, here = (read_json(tmp_path / place / "labels" / "rewards.json") for place in ("gpu", "cpu"))
    assert there["rewards"] == pytest.approx(here["rewards"], abs=1e-4)
    references = [load_references(tmp_path / place / "reference" / REFERENCE)[0] for place in ("gpu", "cpu")]
    np.testing.assert_allclose(*(reference.embeddings for reference in references), atol=1e-5)
    # The same steps are done on either device, and nothing is made again.
    with PretendGPU():
        run_recipe(recipe, tmp_path / "cpu", Silent(), "reference")
