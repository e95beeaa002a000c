"""What a recipe needs that does not come with the package, whether it is here, and how to get it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from plaudit import hub
from plaudit.corpus.ledger import LEDGER
from plaudit.errors import PlauditError
from plaudit.models.registry import RELEASES
from plaudit.recipe import Recipe
from plaudit.reward.kinds import installed_rewards
from plaudit.stages.pairs import pairs_file
from plaudit.stages.settings import TrainSettings


@dataclass(frozen=True)
class Need:
    """One thing. otherwise: what to do where it is not here."""

    what: str
    name: str
    here: bool
    otherwise: str


def needs_of(recipe: Recipe) -> list[Need]:
    """Data and models of a recipe; those that come with the package are left out."""
    return [*_data(recipe), *_models(recipe)]


def _data(recipe: Recipe) -> list[Need]:
    corpus, found = recipe.corpus, []
    if corpus.kind == "shards":
        assert corpus.folder is not None  # validated with the recipe
        here = (corpus.folder / LEDGER).is_file()
        found.append(Need("shard set", str(corpus.folder), here, "plaudit prepare makes one; set corpus.folder to it"))
    elif corpus.kind == "folder":
        for what, path in (("audio", corpus.folder), ("captions", corpus.table), ("scores", corpus.score_table)):
            if path is not None:
                inside = corpus.folder is not None and (corpus.folder / path).is_file()
                found.append(Need(what, str(path), path.exists() or inside, "set corpus.* to yours"))
    if recipe.stages.pairs is not None and recipe.stages.pairs.read_from is not None:
        found.append(_pairs(recipe.stages.pairs.read_from))
    return found


def _pairs(place: Path) -> Need:
    try:
        return Need("pairs", str(pairs_file(place)), True, "")
    except PlauditError as error:
        return Need("pairs", str(place), False, str(error))


def _models(recipe: Recipe) -> list[Need]:
    models = recipe.models
    shelves = (
        ("codec", models.codec, hub.CODECS),
        ("text encoder", models.text_encoder, hub.TEXT_ENCODERS),
        ("CLAP", models.clap, hub.CLAPS),
        ("second listener", models.audio_embedder, hub.AUDIO_EMBEDDERS),
    )
    found = [Need(what, name, hub.digest(shelf, name) != "none", _fetching(name))
             for what, name, shelf in shelves if name not in shelf.named]  # fmt: skip
    if recipe.reward.kind != "train" and recipe.reward.name not in {*hub.REWARDS, *installed_rewards()}:
        name = recipe.reward.name
        found.append(Need("reward", name, hub.reward_digest(name) != "none", _fetching(name)))
    start = recipe.backbone.start_from
    if start is not None and start not in hub.MODELS:
        found.append(Need("model to start from", start, hub.start_digest(start) != "none", _fetching(start)))
    if recipe.post.separate.passes:
        found.append(Need("package", "demucs", find_spec("demucs") is not None, "pip install 'plaudit[separate]'"))
    if any(settings.lora is not None for settings in _passes(recipe)):
        found.append(Need("package", "peft", find_spec("peft") is not None, "pip install 'plaudit[finetune]'"))
    return found


def _passes(recipe: Recipe) -> list[TrainSettings]:
    """The settings of every training pass."""
    stages = recipe.stages
    with_one = [stage.train for stage in (stages.sft, stages.expert_iteration, stages.crpo, stages.nft) if stage]
    experts = stages.expert_iteration
    return [*with_one, *([experts.polish] if experts is not None and experts.polish is not None else [])]


def _fetching(name: str) -> str:
    return f"plaudit models fetch {name}" if name in RELEASES else "give the path of a folder that is here"
