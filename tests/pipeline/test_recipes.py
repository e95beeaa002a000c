"""Larger recipes at small size: shard sets, data-free rounds, pairs from files, NFT, LoRA, repeated stages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plaudit import loading
from plaudit.audio import write_wav
from plaudit.cli.console import ConsoleReporter
from plaudit.corpus.layouts import FolderCorpus
from plaudit.corpus.shards import encode_corpus
from plaudit.errors import CorpusError, RecipeError, RunError
from plaudit.evaluate.embeddings import load_references
from plaudit.pipeline.run_folder import Run
from plaudit.pipeline.runner import Outlook, outlook
from plaudit.pipeline.steps import located, run_recipe, steps
from plaudit.recipe import SHIPPED_RECIPES, Recipe, load_recipe
from plaudit.storage import load_tensors, read_json
from plaudit.synthetic.corpus import SyntheticCorpus

# In float32: one process has one Accelerator, and the tests of the loop have theirs in float32.
SMALL = [
    "precision=no",
    "corpus.kind=shards", "corpus.seconds=3", "reward.kind=table", "stages.cross_load=null", "sampling.steps=2",
    "sampling_batch=8", "evaluate.prompts=2", "evaluate.reference_clips=4", "evaluate.sweep_prompts=2",
    "evaluate.sweep_scores=[0,1]", "evaluate.audio_players=2",
    "stages.sft.train={steps: 4, learning_rate: 1e-3, batch: 4}",
]  # fmt: skip
DATA_FREE = [
    "stages.expert_iteration={candidates: 4, keep: 2, rounds: 2, include_corpus: false, fine_tune: null,"
    " train: {steps: 3, learning_rate: 1e-3, batch: 2}}",
    "stages.pairs={captions: 2, candidates: 4, pairs: 3, per_caption: 2, criterion: reward}",
    "stages.crpo=null",
    "stages.nft.train={steps: 3, learning_rate: 1e-3, batch: 4}",
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard set with rewards, of a folder of audio."""
    folder = tmp_path_factory.mktemp("prepared")
    corpus = SyntheticCorpus(24, 3.0, 5)
    lines = ["file,caption,reward"]
    for number, clip in enumerate(corpus.clips):
        write_wav(folder / "music" / f"{number}.wav", corpus.render(clip), corpus.rate)
        lines.append(f'{number}.wav,"{clip.caption}",{number / 24}')
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    source = FolderCorpus(folder / "music", folder / "captions.csv", reward_column="reward", validation=0.0, test=0.3)
    codec, text = loading.CODECS.load("synthetic"), loading.TEXT_ENCODERS.load("synthetic")
    shards = encode_corpus(source, codec, text, folder / "shards", 3.0)
    assert len(shards.rows("test")) >= 3 and len(shards.rows("train")) >= 8
    return folder / "shards"


def recipe(prepared: Path, *changes: str) -> Recipe:
    return load_recipe("smoke", [f"corpus.folder={prepared}", *SMALL, *changes])


@pytest.fixture(scope="module")
def data_free(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two data-free rounds, pairs and NFT."""
    folder = tmp_path_factory.mktemp("data_free") / "run"
    run_recipe(recipe(prepared, *DATA_FREE), folder, ConsoleReporter(), only="nft")
    return folder


def approve_all(lost: Sequence[Outlook]) -> bool:
    """Approves every replacement."""
    return True


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_round_starts_from_the_model_of_the_round_before(data_free: Path) -> None:
    rounds = [data_free / "expert_iteration" / f"round-{n}" for n in (1, 2)]
    sampled_by = [read_json(place / "candidates" / "00000.json")["model"]["stage"] for place in rounds]
    assert sampled_by == ["sft", "mixed"]
    seeds = [[read_json(path)["seed"] for path in sorted((r / "candidates").glob("0*.json"))] for r in rounds]
    assert seeds == [[1000, 1001, 1002, 1003], [1004, 1005, 1006, 1007]]
    assert not (rounds[0] / "fine_tune").exists()
    folders = (rounds[1] / "mixed", rounds[0] / "mixed", data_free / "expert_iteration")
    last, first, whole = (load_tensors(place / "model.safetensors") for place in folders)
    assert all((whole[name] == value).all() for name, value in last.items())
    assert any((first[name] != value).any() for name, value in last.items())


def test_include_corpus_changes_what_is_trained_on(data_free: Path, prepared: Path) -> None:
    with_corpus = recipe(
        prepared, *DATA_FREE, "stages.expert_iteration.include_corpus=true", "stages.expert_iteration.rounds=1"
    )
    folder = data_free.parent / "with"
    run_recipe(with_corpus, folder, ConsoleReporter(), only="expert_iteration")
    first, second = (run / "expert_iteration" / "round-1" for run in (data_free, folder))
    assert read_json(first / "kept.json") == read_json(second / "kept.json")
    without, other = (load_tensors(place / "mixed" / "model.safetensors") for place in (first, second))
    assert any((without[name] != value).any() for name, value in other.items())


def test_candidates_have_a_guidance_of_their_own(data_free: Path, prepared: Path) -> None:
    changes = ["stages.expert_iteration.guidance.weight=1", "stages.expert_iteration.rounds=1"]
    folder = data_free.parent / "unguided"
    run_recipe(recipe(prepared, *DATA_FREE, *changes), folder, ConsoleReporter(), only="expert_iteration")
    weights, clips = [], []
    for run in (data_free, folder):
        first = run / "expert_iteration" / "round-1" / "candidates" / "00000.json"
        weights.append(read_json(first)["sampling"]["guidance"]["weight"])
        clips.append(first.with_suffix(".wav").read_bytes())
    assert weights == [load_recipe(str(data_free / "recipe.yaml")).sampling.guidance.weight, 1.0]
    assert weights[0] != 1.0 and clips[0] != clips[1]


def test_the_best_candidate_of_each_prompt_is_kept(prepared: Path, tmp_path: Path) -> None:
    changes = ["stages.expert_iteration.candidates_per_prompt=2", "stages.expert_iteration.rounds=1"]
    run_recipe(recipe(prepared, *DATA_FREE, *changes), tmp_path, ConsoleReporter(), only="expert_iteration")
    folder = tmp_path / "expert_iteration" / "round-1"
    prompts = [read_json(path)["prompt"] for path in sorted((folder / "candidates").glob("0*.json"))]
    assert prompts[0] == prompts[1] != prompts[2] == prompts[3]
    kept = [int(row["clip"].removesuffix(".wav")) for row in read_json(folder / "kept.json")]
    assert sorted(number // 2 for number in kept) == [0, 1]


def test_pairs_are_saved_with_candidates_scores_and_margins(data_free: Path) -> None:
    pairs, candidates = (
        lines_of(data_free / "pairs" / "pairs.jsonl"),
        lines_of(data_free / "pairs" / "candidates.jsonl"),
    )
    assert len(candidates) == 8 and len(pairs) == 3
    by_clip = {candidate["clip"]: candidate for candidate in candidates}
    for pair in pairs:
        winner, loser = by_clip[pair["winner"]], by_clip[pair["loser"]]
        assert winner["caption"] == loser["caption"] == pair["caption"]
        assert pair["margin"] == pytest.approx(winner["reward"] - loser["reward"]) and pair["margin"] >= 0
        assert (data_free / "pairs" / pair["winner"]).is_file()
        assert pair["score"] == winner["score"] == 1.5
    assert [pair["margin"] for pair in pairs] == sorted((pair["margin"] for pair in pairs), reverse=True)
    facts = read_json(data_free / "pairs" / "facts.json")
    assert (facts["captions"], facts["clips"], facts["usable_clips"], facts["pairs"]) == (2, 8, 8, 3)


def test_nft_changes_the_model_that_sampled_the_candidates(data_free: Path) -> None:
    before, after = (load_tensors(data_free / stage / "model.safetensors") for stage in ("expert_iteration", "nft"))
    assert before.keys() == after.keys()
    assert any((before[name] != value).any() for name, value in after.items())
    row = lines_of(data_free / "nft" / "metrics.jsonl")[-1]
    assert row["drift"] > 0 and row["positive_loss"] > 0


@pytest.fixture(scope="module")
def tuned(prepared: Path, data_free: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to the report that starts from a model, trains LoRA adapters, and reads pairs from a file."""
    pytest.importorskip("peft", reason="the finetune extra is not installed")
    given = tmp_path_factory.mktemp("given")
    pairs = lines_of(data_free / "pairs" / "pairs.jsonl")
    rows = [
        {"caption": p["caption"]} | {s: str(data_free / "pairs" / p[s]) for s in ("winner", "loser")} for p in pairs
    ]
    rows.append({"caption": "lost", "winner": "gone.wav", "loser": rows[0]["loser"].replace("clips", "nowhere")})
    (given / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = [
        "backbone={preset: synthetic}", f"backbone.start_from={data_free / 'sft'}", "stages.expert_iteration=null",
        "stages.sft.train.lora={rank: 2, alpha: 4}", "training_loop.sample_every=4",
        "training_loop.sample_prompts=[calm piano]",
        f"stages.pairs={{read_from: {given / 'mine.jsonl'}, per_caption: 2}}",
        "stages.crpo={train: {steps: 2, learning_rate: 1e-4, batch: 2}}",
    ]  # fmt: skip
    base = [change for change in SMALL if not change.startswith("stages.expert_iteration")]
    values = load_recipe("smoke").model_dump(mode="json")
    values["backbone"].pop("overrides")
    plain = given / "plain.yaml"
    plain.write_text(json.dumps(values | {"name": "tuned"}))
    folder = tmp_path_factory.mktemp("tuned") / "run"
    run_recipe(load_recipe(str(plain), [f"corpus.folder={prepared}", *base, *changes]), folder, ConsoleReporter())
    return folder


def test_adapters_on_an_existing_model_are_merged(tuned: Path, data_free: Path) -> None:
    before, after = (load_tensors(folder / "sft" / "model.safetensors") for folder in (data_free, tuned))
    assert before.keys() == after.keys()
    changed = {name for name, value in after.items() if (before[name] != value).any()}
    assert changed and all(name.endswith(".weight") or name.startswith("score.") for name in changed)
    assert not any("conv" in name or name.startswith(("audio_in", "final")) for name in changed)
    assert (tuned / "sft" / "adapters" / "adapter_model.safetensors").is_file()
    provenance = read_json(tuned / "sft" / "config.json")["provenance"]
    assert provenance["started_from"] == str(data_free / "sft")
    for name in ("latent_mean", "score_mean", "empty_tokens"):
        assert (before[name] == after[name]).all()
    assert (tuned / "sft" / "samples" / "00000004" / "00.wav").is_file()


def test_pairs_from_a_file_are_used_and_unusable_audio_is_left_out(tuned: Path) -> None:
    facts = read_json(tuned / "pairs" / "facts.json")
    assert (facts["pairs"], facts["margin_mean"]) == (4, None)
    quarantined = lines_of(tuned / "pairs" / "shards" / "quarantine.jsonl")
    assert len(quarantined) == 2 and facts["usable_clips"] == facts["clips"] - 2
    assert not (tuned / "pairs" / "candidates.jsonl").exists()
    results = read_json(tuned / "report" / "report.json")
    assert [stage["key"] for stage in results["stages"]] == ["unscored", "sft", "crpo", "finished"]


def test_the_reference_of_a_shard_set_is_its_decoded_test_split(tuned: Path) -> None:
    assert load_references(tuned / "reference" / "reference.safetensors")[0].clips == 4


def test_pairs_without_candidates_need_binary_advantages(prepared: Path, data_free: Path, tuned: Path) -> None:
    given = data_free.parent / "binary"
    shutil.copytree(data_free / "pairs", given)
    (given / "candidates.jsonl").unlink()
    changes = [*DATA_FREE[:1], DATA_FREE[2], DATA_FREE[3], f"stages.pairs={{read_from: {given}}}"]
    with pytest.raises(RunError, match=r"this would replace pairs \(.*\); nft \(pairs is made again\)"):
        run_recipe(recipe(prepared, *changes), data_free, ConsoleReporter(), only="nft")
    with pytest.raises(CorpusError, match="advantage=binary"):
        run_recipe(recipe(prepared, *changes), data_free, ConsoleReporter(), only="nft", approve=approve_all)
    changes.append("stages.nft.advantage=binary")
    run_recipe(recipe(prepared, *changes), data_free, ConsoleReporter(), only="nft", approve=approve_all)
    assert lines_of(data_free / "nft" / "metrics.jsonl")
    assert read_json(data_free / "pairs" / "facts.json")["margin_mean"] > 0  # the file states them
    changes[3] = f"stages.pairs={{read_from: {data_free / 'pairs'}}}"
    with pytest.raises(RunError, match="copy it to another folder"):
        run_recipe(recipe(prepared, *changes), data_free, ConsoleReporter(), only="nft")


def test_a_changed_pairs_file_or_its_audio_makes_the_step_stale(prepared: Path, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"

    def external_of(step: str) -> dict[str, Any]:
        chain = steps(recipe(prepared, *DATA_FREE, f"stages.pairs={{read_from: {file}}}"))
        return {n: d if isinstance(d, str) else d() for s in chain if s.name == step for n, d in s.external.items()}

    assert external_of("pairs")["stages.pairs.read_from"] == "none"
    file.write_text('{"caption": "x", "winner": "a.wav", "loser": "b.wav"}\n')
    before = external_of("pairs")["stages.pairs.read_from"]
    file.write_text('{"caption": "x", "winner": "b.wav", "loser": "a.wav"}\n')
    after = external_of("pairs")["stages.pairs.read_from"]
    assert after not in ("none", before)
    write_wav(tmp_path / "a.wav", np.zeros(100, np.float32), 16000)
    assert external_of("pairs")["stages.pairs.read_from"] != after


def test_a_shard_set_must_be_complete_and_of_the_recipes_models(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"encoded with latent frames 46, the recipe has 62"):
        run_recipe(recipe(prepared, *DATA_FREE, "corpus.seconds=4"), tmp_path / "long", ConsoleReporter(), only="sft")
    with pytest.raises(CorpusError, match="is not a shard set"):
        run_recipe(recipe(tmp_path, *DATA_FREE), tmp_path / "none", ConsoleReporter(), only="sft")


def test_sft_without_updates_leaves_weights_and_injection_unchanged(
    prepared: Path, data_free: Path, tmp_path: Path
) -> None:
    values = recipe(prepared, *DATA_FREE).model_dump(mode="json")
    values["backbone"] = {"start_from": str(data_free / "nft")}
    values["stages"][0] = {"kind": "sft", "train": {"steps": 0, "learning_rate": 1.0}}
    (tmp_path / "r.yaml").write_text(json.dumps(values))
    run_recipe(load_recipe(str(tmp_path / "r.yaml")), tmp_path / "run", ConsoleReporter(), only="sft")
    before, after = (
        load_tensors(folder / "model.safetensors") for folder in (data_free / "nft", tmp_path / "run" / "sft")
    )
    assert before.keys() == after.keys() and all((before[name] == value).all() for name, value in after.items())
    values["backbone"]["injection"] = "film"
    (tmp_path / "r.yaml").write_text(json.dumps(values))
    run_recipe(
        load_recipe(str(tmp_path / "r.yaml")), tmp_path / "run", ConsoleReporter(), only="sft", approve=approve_all
    )
    assert read_json(tmp_path / "run" / "sft" / "config.json")["backbone"]["injection"] == "film"


def test_a_model_of_another_codec_is_refused_as_start(prepared: Path, data_free: Path, tmp_path: Path) -> None:
    values = recipe(prepared, *DATA_FREE).model_dump(mode="json")
    config = read_json(data_free / "sft" / "config.json") | {"codec": "codec-44k"}
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps(config))
    values["backbone"] = {"start_from": str(other)}
    (tmp_path / "r.yaml").write_text(json.dumps(values))
    with pytest.raises(RecipeError, match=r"was trained with codec 'codec-44k'; set models.codec=codec-44k"):
        run_recipe(load_recipe(str(tmp_path / "r.yaml")), tmp_path / "run", ConsoleReporter(), only="sft")


TRAIN = "train: {steps: 2, learning_rate: 1e-3, batch: 2}"
NO_UPDATES = "train: {steps: 0, learning_rate: 1, batch: 2}"
REPEATED = [
    "stages=[{kind: sft},"
    f" {{kind: expert_iteration, candidates: 4, keep: 2, {TRAIN}}},"
    f" {{kind: expert_iteration, candidates: 4, keep: 2, {TRAIN}}},"
    " {kind: pairs, captions: 2, candidates: 2, pairs: 2},"
    f" {{kind: nft, {TRAIN}}}, {{kind: crpo, {NO_UPDATES}}},"
    f" {{kind: distill, steps: 1, trajectories: 5, {TRAIN}}},"
    f" {{kind: sft, start_from: expert_iteration, {NO_UPDATES}}}]",
    *(change for change in SMALL if not change.startswith("stages.cross_load")),
]
FIRST, SECOND = "expert_iteration", "expert_iteration-2"
TRAINED = ["sft", FIRST, SECOND, "nft", "crpo", "distill", "sft-2"]


def repeated(prepared: Path, *changes: str) -> Recipe:
    """SFT and expert iteration twice each, and NFT before CRPO."""
    return load_recipe("smoke", [f"corpus.folder={prepared}", *REPEATED, *changes])


@pytest.fixture(scope="module")
def repeated_run(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repeated") / "run"
    for step in ("distill", "sft-2"):
        run_recipe(repeated(prepared), folder, ConsoleReporter(), only=step)
    return folder


def test_steps_of_stages_that_are_repeated_or_in_another_order(repeated_run: Path, prepared: Path) -> None:
    names = [step.name for step in steps(repeated(prepared))]
    assert [name for name in names if name in (*TRAINED, "pairs")] == [*TRAINED[:3], "pairs", *TRAINED[3:]]
    assert {f"{kind}-{stage}" for kind in ("clips", "values") for stage in TRAINED} <= {*names}
    assert [name for name in names if name.startswith("sweep-")] == ["sweep-sft", "sweep-sft-2"]
    for stage in TRAINED:
        assert read_json(repeated_run / stage / "config.json")["provenance"]["stage"] == stage


def test_a_stage_starts_from_the_model_before_it_or_the_one_it_names(repeated_run: Path) -> None:
    clips = [f"{FIRST}/round-1/candidates", f"{SECOND}/round-1/candidates", "pairs/clips"]
    sampled_by = [read_json(repeated_run / folder / "00000.json")["model"]["stage"] for folder in clips]
    assert sampled_by == ["sft", FIRST, SECOND]
    weights = {stage: load_tensors(repeated_run / stage / "model.safetensors") for stage in TRAINED}

    def equal(one: str, other: str) -> bool:
        return all((weights[one][name] == value).all() for name, value in weights[other].items())

    assert not any(equal(before, after) for before, after in pairwise(["sft", FIRST, SECOND, "nft"]))
    assert equal("crpo", "nft") and equal("sft-2", FIRST)


def test_a_distilled_model_is_sampled_in_its_steps_without_score_and_guidance(
    repeated_run: Path, prepared: Path
) -> None:
    folder, chosen = repeated_run / "distill", repeated(prepared)
    config = read_json(folder / "config.json")
    assert (config["backbone"]["kind"], config["backbone"]["fixed_score"]) == ("meanaudio", chosen.sampling.score)
    for sampling in (config["sampling"], chosen.sampling_of("distill").model_dump(mode="json")):
        assert (sampling["steps"], sampling["score"], sampling["guidance"]["weight"]) == (1, None, 1.0)
    assert not (folder / "trajectories").exists()
    run_recipe(chosen, repeated_run, ConsoleReporter(), only="clips-distill")
    assert read_json(repeated_run / "clips-distill" / "0000.json")["sampling"]["steps"] == 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (["sampling.steps=3", "stages.distill.steps=2"], "2 steps do not divide the teacher's 3"),
        (["stages.distill.target=meanflow", "sampling.guidance.schedule=linear"], "takes constant guidance"),
        (["sampling.trajectory={at: 0.2}"], "distills one model"),
        (["stages.distill.train.lora={}"], "trains the whole network"),
    ],
)
def test_settings_that_cannot_be_distilled_are_one_line(prepared: Path, changes: list[str], why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        repeated(prepared, *changes)


@pytest.mark.parametrize(
    ("change", "replaced"),
    [
        (f"stages.{SECOND}=null", ["pairs", "nft", "crpo", "distill"]),
        (f"stages.{SECOND}.keep=3", [SECOND, "pairs", "nft", "crpo", "distill"]),
        (f"stages.{SECOND}.start_from=sft", [SECOND, "pairs", "nft", "crpo", "distill"]),
        ("stages.nft.start_from=sft", ["nft", "crpo", "distill"]),
        ("stages.crpo.beta=7", ["crpo", "distill"]),
        ("stages.distill.steps=2", ["distill"]),
        ("sampling.guidance.weight=2", [FIRST, SECOND, "pairs", "nft", "crpo", "distill", "sft-2"]),
        ("stages.sft-2.start_from=nft", ["sft-2"]),
    ],
)
def test_a_change_of_one_repeat_keeps_the_stages_before_it(
    repeated_run: Path, prepared: Path, change: str, replaced: list[str]
) -> None:
    chain = [
        step
        for step in steps(located(repeated(prepared, change)))
        if step.name in ("shards", "labels", "pairs", *TRAINED)
    ]
    outlooks = outlook(chain, Run(repeated_run))
    assert [one.step for one in outlooks if one.state != "done"] == replaced
    assert {one.state for one in outlooks} == {"done", "replaced"}


@pytest.mark.slow
def test_a_run_without_the_second_repeat_reuses_the_first(repeated_run: Path, prepared: Path, tmp_path: Path) -> None:
    changed, new = repeated(prepared, f"stages.{SECOND}=null"), tmp_path / "new"
    run_recipe(changed, new, ConsoleReporter(), source=repeated_run)
    for stage, shared in (("sft", True), (FIRST, True), ("sft-2", True), ("nft", False), ("crpo", False)):
        model = f"{stage}/model.safetensors"
        assert (new / model).samefile(repeated_run / model) == shared
    assert not (new / SECOND).exists()
    assert read_json(new / "pairs" / "clips" / "00000.json")["model"]["stage"] == FIRST
    results = read_json(new / "report" / "report.json")
    kept = [stage for stage in TRAINED if stage != SECOND]
    assert [stage["key"] for stage in results["stages"]] == ["unscored", *kept, "finished"]


UNSCORED = [
    "backbone.injection=none", "sampling.score=null", "evaluate.sweep_scores=[]", "stages.pairs=null",
    "stages.crpo=null", "training_loop.validate_every=3", "training_loop.validation_clips=4",
]  # fmt: skip


def test_expert_iteration_ranks_clips_of_a_prompt_file_by_the_reward_of_an_empty_prompt(
    prepared: Path, tmp_path: Path
) -> None:
    """TuneJury's study of the step, small: the reward alone ranks, given no prompt, and nothing has a score."""
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("prompt\ncalm piano\nfast drums\n")
    (tmp_path / "reward.py").write_text(
        "class Length:\n"
        "    def score(self, waves, rate, prompts):\n"
        "        assert set(prompts) == {''}, prompts\n"
        "        return [float(wave.abs().sum()) for wave in waves]\n"
    )
    study = (
        "stages.expert_iteration={candidates: 6, keep: 2, criterion: reward, reward_prompt: empty, score: null,"
        f" prompt_file: {prompts}, include_corpus: false,"
        " train: {steps: 3, learning_rate: 1e-3, batch: 2, weights: ema, ema: {decay: 0.5}}, fine_tune: null}"
    )
    reward = f"reward.name={tmp_path / 'reward.py'}:Length"
    without_validation = [change for change in UNSCORED if "validat" not in change]
    chosen = recipe(prepared, *without_validation, reward, study)
    run_recipe(chosen, tmp_path / "run", ConsoleReporter(), only="expert_iteration")
    folder = tmp_path / "run" / "expert_iteration" / "round-1"
    made = [read_json(path) for path in sorted((folder / "candidates").glob("0*.json"))]
    assert [one["prompt"] for one in made] == ["calm piano", "fast drums"] * 3
    assert len({one["seed"] for one in made}) == 6
    scores = read_json(folder / "candidates" / "scores.json")["reward"]
    kept = [one["clip"] for one in read_json(folder / "kept.json")]
    assert kept == [f"{place:05d}.wav" for place in np.argsort(scores)[::-1][:2]]
    prompts.write_text("prompt\ncalm piano\n")
    again = steps(located(chosen))
    states = outlook(again, Run(tmp_path / "run"), None)
    (stale,) = [one for one in states if one.state == "replaced"][:1]
    assert stale.step == "expert_iteration" and "stages.expert_iteration.prompt_file" in " ".join(stale.reasons)


def test_the_papers_stages_have_the_published_numbers() -> None:
    nft = (SHIPPED_RECIPES / "nft.yaml").read_text().split("--set stages.nft='")[1].split("'")[0].replace("\n#", "")
    stages: dict[str, Any] = {stage.name: stage for stage in load_recipe("paper").stages}
    stages["nft"] = load_recipe("paper", ["stages.crpo=null", f"stages.nft={nft}"]).stage("nft")
    passes = [stages["sft"].train, stages["expert_iteration"].train, stages["expert_iteration"].fine_tune]
    passes += [stages["crpo"].train, stages["nft"].train]
    assert {one.weights for one in passes} == {"raw"} and {one.adam_eps for one in passes} == {1e-6}
    assert {one.score_dropout for one in passes} == {one.text_dropout for one in passes} == {0.1}
    assert {one.weight_decay for one in passes} == {1e-6} and {one.max_grad_norm for one in passes} == {1.0}
    assert [one.steps for one in passes] == [200_000, 30_000, 5_000, 5_000, 5_000]
    assert [one.learning_rate for one in passes] == [1e-4, 1e-5, 1e-6, 1e-6, 1e-6]
    assert [(one.batch, one.accumulate) for one in passes] == [(32, 2), (32, 2), (32, 2), (8, 1), (16, 2)]
    assert [one.warmup for one in passes] == [1000, 0, 0, 100, 100]
    assert (stages["crpo"].beta, stages["crpo"].lambda_fm) == (2000, 1)
    chosen = stages["nft"]
    assert (chosen.beta, chosen.advantage, chosen.max_advantage, chosen.temperature) == (0.2, "binary", 1.0, 0.1)
    assert (chosen.divide_by_beta, chosen.adaptive_weights, chosen.kl) == (False, False, 0.0)
    expert = stages["expert_iteration"]
    assert (expert.candidates, expert.keep, expert.oversample, expert.criterion) == (630, 64, 5, "blend")


def test_the_study_without_data_has_its_published_numbers() -> None:
    chosen = load_recipe("data-free-expert")
    expert: Any = chosen.stage("expert_iteration")
    assert (expert.candidates, expert.keep, expert.criterion, expert.reward_prompt) == (900, 90, "reward", "empty")
    assert expert.score is chosen.sampling.score is None and chosen.backbone.injection == "none"
    assert expert.fine_tune is None and not expert.include_corpus and expert.prompt_file is not None
    train = expert.train
    assert (train.steps, train.batch, train.weights, train.ema.decay) == (5000, 16, "ema", 0.999)
    assert chosen.backbone.start_from == "fluxaudio-s" and chosen.sampling.prefix == "high quality instrumental music, "


@pytest.mark.slow
def test_a_run_without_conditioning_scores_reaches_its_report(tmp_path: Path) -> None:
    small = [change for change in SMALL if not change.startswith(("corpus.kind", "reward.kind", "evaluate.sweep_sc"))]
    chosen = load_recipe("smoke", [*small, *UNSCORED,
                                   "stages.expert_iteration={candidates: 4, keep: 2, score: null,"
                                   " train: {steps: 3, learning_rate: 1e-3, batch: 2}}"])  # fmt: skip
    folder = run_recipe(chosen, tmp_path / "run", ConsoleReporter())
    assert (tmp_path / "run" / "report" / "index.html").is_file()
    assert read_json(tmp_path / "run" / "sft" / "config.json")["backbone"]["injection"] == "none"
    assert not list((tmp_path / "run").glob("sweep-*")) and folder


def test_a_pass_leaves_its_raw_weights_or_their_average(prepared: Path, tmp_path: Path) -> None:
    """An average that forgets everything at every update is the raw weights."""
    plain, left = "steps: 4, learning_rate: 1e-3, batch: 4", {}
    for name, weights in (("average", ""), ("raw", ", weights: raw"), ("last", ", ema: {decay: 0.0}")):
        chosen = recipe(prepared, *DATA_FREE, f"stages.sft.train={{{plain}{weights}}}")
        run_recipe(chosen, tmp_path / name, ConsoleReporter(), only="sft")
        left[name] = load_tensors(tmp_path / name / "sft" / "model.safetensors")
    assert all((left["raw"][name] == value).all() for name, value in left["last"].items())
    assert any((left["raw"][name] != value).any() for name, value in left["average"].items())


@pytest.mark.slow
def test_the_chain_starts_from_a_base_model_trained_from_random_weights(tmp_path: Path) -> None:
    small = [
        *("corpus.size=160", "corpus.seconds=3", "sampling.steps=2", "sampling_batch=8"),
        *("evaluate.prompts=2", "evaluate.reference_clips=4", "evaluate.audio_players=2"),
    ]
    train = "train={steps: 4, learning_rate: 1e-3, batch: 4}"
    run_recipe(load_recipe("synthetic-base", [*small, f"stages.sft.{train}"]), tmp_path / "base", ConsoleReporter())
    base = tmp_path / "base" / "sft"
    config = read_json(base / "config.json")
    assert config["backbone"]["injection"] == "none" and config["sampling"]["score"] is None
    chain = [*small, f"backbone.start_from={base}", f"evaluate.baseline.model={base}", f"stages.sft.{train}"]
    chain += ["reward={kind: load, name: synthetic}", "evaluate.sweep_scores=[]"]
    left_out = ("control", "expert_iteration", "cross_load", "pairs", "crpo")
    chain += [f"stages.{name}=null" for name in left_out]
    run_recipe(load_recipe("synthetic", chain), tmp_path / "chain", ConsoleReporter())
    assert read_json(tmp_path / "chain" / "sft" / "config.json")["backbone"]["injection"] != "none"
    stages = [stage["key"] for stage in read_json(tmp_path / "chain" / "report" / "report.json")["stages"]]
    assert stages == ["baseline", "unscored", "sft", "finished"]
