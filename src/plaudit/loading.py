"""Models by name: `plaudit.load` for text-to-music models, and the frozen models that stand around them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch

from plaudit.backbone.config import BackboneConfig
from plaudit.backbone.fluxaudio import FluxAudio
from plaudit.code_digest import outside_digest
from plaudit.errors import ModelError, PlauditError
from plaudit.generate.model import TextToMusic, read_model_config
from plaudit.models.releases import FETCHED_ONLY, RELEASES
from plaudit.pipeline.run_folder import DONE
from plaudit.reward.base import (
    EncoderLoaders,
    installed_rewards,
    is_in_module,
    load_from_module,
    load_installed,
    module_digest,
    read_reward,
)
from plaudit.reward.tunejury import TuneJury
from plaudit.storage import (
    SHIPPED_WEIGHTS,
    STEP,
    content_digest,
    file_digest,
    fill_module,
    is_model_folder,
    load_tensors,
    read_json,
    user_model,
)
from plaudit.synthetic.clap import load_synthetic_clap
from plaudit.synthetic.codec import load_synthetic_codec
from plaudit.synthetic.statistics import load_statistics
from plaudit.synthetic.text import load_synthetic_text_encoder
from plaudit.types import Reward


@dataclass(frozen=True)
class Registry:
    """Frozen models of one interface.

    named: those with a name. weights: the folders of shipped weights that each of these is made of. kinds: for each
    kind that a folder's config.json can have, what reads the folder, as "module:function", because importing
    transformers takes seconds that most commands need not spend. parts: what a model of the interface must have.
    """

    named: dict[str, Callable[[], Any]]
    weights: dict[str, tuple[str, ...]]
    kinds: dict[str, str]
    parts: tuple[str, ...]


CODECS = Registry(
    {"synthetic": load_synthetic_codec},
    {"synthetic": ("codec",)},
    {"mel-codec": "plaudit.codec.mel_codec:load_mel_codec"},
    ("name", "sample_rate", "hop", "latent_dim", "encode", "decode"),
)
TEXT_ENCODERS = Registry(
    {"synthetic": load_synthetic_text_encoder},
    {"synthetic": ("text", "clap")},
    {"t5-clap": "plaudit.encoders.t5_clap:load_t5_clap"},
    ("name", "length", "token_dim", "pooled_dim", "encode"),
)
CLAPS = Registry(
    {"synthetic": load_synthetic_clap},
    {"synthetic": ("clap",)},
    {"laion-clap": "plaudit.encoders.published:load_clap"},
    ("name", "sample_rate", "dim", "audio", "text"),
)
AUDIO_EMBEDDERS = Registry(
    {"statistics": load_statistics},
    {"statistics": ("statistics",)},
    {"mert": "plaudit.encoders.published:load_mert"},
    ("name", "sample_rate", "dim", "audio"),
)
AUDIO_ENCODERS = Registry(
    {**CLAPS.named, **AUDIO_EMBEDDERS.named},
    {**CLAPS.weights, **AUDIO_EMBEDDERS.weights},
    {**CLAPS.kinds, **AUDIO_EMBEDDERS.kinds},
    AUDIO_EMBEDDERS.parts,
)
"""All that hear: distances between sets of clips take either kind."""

ENCODERS = "plaudit.encoders"
"""The entry point group of installed codecs and encoders: name -> callable without arguments that returns one."""

SHIPPED_LICENCES = {"synthetic": "Apache-2.0", "statistics": "Apache-2.0"}
"""Models that come with the package, and their licence."""

MODELS = {"synthetic": SHIPPED_WEIGHTS / "model", "synthetic-base": SHIPPED_WEIGHTS / "base"}
REWARDS = {"synthetic": SHIPPED_WEIGHTS / "reward", "synthetic-clap": SHIPPED_WEIGHTS / "clap-reward"}


def load(name: str, device: str = "auto") -> TextToMusic:
    """A ready text-to-music model from a known name or a model folder; its network is on `device`.

    On a CUDA device codec and text encoder are there too; otherwise they stay on the CPU. Raises ModelError where there
    is no such model or device, or its parts don't fit.
    """
    folder, where = model_folder(name, MODELS), resolve_device(device)
    config = read_model_config(folder)
    parts = build(CODECS, config.codec), build(TEXT_ENCODERS, config.text_encoder)
    for part in parts:
        if isinstance(part, torch.nn.Module) and where.type == "cuda":
            part.to(where)
    return TextToMusic(load_backbone(folder, config.backbone).to(where), *parts, config)


def resolve_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA where there is one, then Apple's MPS, then the CPU."""
    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(name.split(":")[0], False):
        here = ", ".join(kind for kind, found in available.items() if found)
        raise ModelError(f"no device {name!r} here; use auto or one of {here}")
    return torch.device(name)


def load_backbone(folder: Path, config: BackboneConfig) -> FluxAudio:
    """The network of a model folder, in evaluation mode."""
    with torch.device("meta"):
        backbone = FluxAudio(config)
    fill_module(backbone, load_tensors(folder / "model.safetensors"), folder)
    return backbone.eval()


def load_reward(name: str) -> Reward:
    """A reward from a known name, a reward folder of any kind, an installed package, or Python code (MODULE:CLASS).

    plaudit.reward.base says how a package or a module brings one.
    """
    if is_in_module(name) and not Path(name).exists():
        return load_from_module(name)
    installed = installed_rewards()
    if name in installed and name not in REWARDS:
        return load_installed(installed[name])
    folder = REWARDS[name] if name in REWARDS else find_folder(name, [*REWARDS, *installed])
    sources = EncoderLoaders(lambda n: build(CLAPS, n), lambda n: build(AUDIO_EMBEDDERS, n), load_reward)
    with _damage_in(folder):
        return read_reward(folder, sources)


def load_tunejury(name: str) -> TuneJury:
    """A reward of kind tunejury, for what needs its stored features or its gradient; ModelError where it is another."""
    reward = load_reward(name)
    if not isinstance(reward, TuneJury):
        raise ModelError(f"{name} is no TuneJury reward; take one of kind tunejury")
    return reward


def model_folder(name: str, known: dict[str, Path]) -> Path:
    """The folder of a known name, of a folder's path, or of a model fetched or imported under that name."""
    return known[name] if name in known else find_folder(name, known)


def build(shelf: Registry, name: str) -> Any:
    """The frozen model called `name` on a shelf, or in a folder: its path, or the name it was imported under.

    What is neither may come from an installed package, by an entry point of the group ENCODERS. ModelError where there
    is none, or it is of another kind.
    """
    if name in shelf.named:
        return shelf.named[name]()
    installed = {point.name: point for point in entry_points(group=ENCODERS)}
    if name in installed:
        return _installed_encoder(installed[name], shelf)
    folder = find_folder(name, [*shelf.named, *installed])
    config = read_json(folder / "config.json")
    kind = config.get("kind") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind not in shelf.kinds:
        wanted = ", ".join(sorted(shelf.kinds)) or "one of the known names"
        raise ModelError(f"{folder} is of kind {kind!r}; wanted here is {wanted}")
    with _damage_in(folder):
        return resolve_name(shelf.kinds[kind])(folder)


@contextmanager
def _damage_in(folder: Path) -> Iterator[None]:
    """Whatever a damaged or foreign model folder makes its reader raise, as a ModelError that names the folder."""
    try:
        yield
    except (PlauditError, OSError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ModelError(f"{folder} cannot be loaded ({reason}); its config.json does not fit its weights") from error


def is_published(shelf: Registry, name: str) -> bool:
    """Whether the frozen model called `name` is a folder of a kind that holds published weights."""
    if name in shelf.named or name in {point.name for point in entry_points(group=ENCODERS)}:
        return False
    config = read_json(find_folder(name, shelf.named) / "config.json")
    return isinstance(config, dict) and config.get("kind") in shelf.kinds


def _installed_encoder(point: EntryPoint, shelf: Registry) -> Any:
    """An installed package's encoder, called by the entry point's name; ModelError where it fails or lacks a part."""
    try:
        made = point.load()()
    except Exception as error:  # whatever a foreign package raises is for the user to take there
        raise ModelError(f"installed encoder {point.name!r} ({point.value}) fails: {error!r}; mend it") from error
    if missing := [part for part in shelf.parts if not hasattr(made, part)]:
        raise ModelError(f"installed encoder {point.name!r} ({point.value}) has no {', '.join(missing)}")
    return made


def find_folder(name: str, known: Collection[str]) -> Path:
    """The folder at the path `name`, or called so among the user's models; ModelError where neither exists."""
    folder = Path(name) if is_model_folder(Path(name)) else user_model(name)
    if folder is not None:
        return folder
    raise ModelError(_not_found(name, known))


def _not_found(name: str, known: Collection[str]) -> str:
    """What to do about a model that is not here."""
    if name in RELEASES and RELEASES[name].kind == FETCHED_ONLY:
        return f"{name} is a release of files, of which no model is made; plaudit models list names the others"
    if name in RELEASES:
        return f"model {name!r} is not here yet; fetch it with: plaudit models fetch {name}"
    if os.path.isfile(Path(name) / "recipe.yaml"):
        stages = sorted(path.parent.name for path in Path(name).glob("*/model.safetensors"))
        return f"{name} is a run, not a model; name one of its models: {', '.join(f'{name}/{s}' for s in stages)}"
    if os.path.isdir(name):
        return f"{name} has no config.json, so it is not a model folder; check the path"
    near = get_close_matches(name, [*known, *RELEASES], 1)
    hint = f"did you mean {near[0]!r}? Else " if near else ""
    return (
        f"no model {name!r}: {hint}give a model folder or one of {', '.join(sorted(known))}; released models "
        f"(plaudit models list) come by plaudit models fetch NAME"
    )


def encoder_digest(shelf: Registry, name: str) -> str:
    """A hash of the weights and configuration of the frozen model called `name` and of those that it names in turn.

    What was made with other weights is known by it to be stale. "none" where there is no such model: whoever needs it
    will say so.
    """
    if name in shelf.weights:
        return weights_digest(*shelf.weights[name])
    for point in entry_points(group=ENCODERS, name=name):
        return _installed_digest(point)
    try:
        return folder_digest(find_folder(name, shelf.named))
    except ModelError:
        return "none"


def reward_digest(name: str) -> str:
    """The same of a reward: its head and its encoders."""
    if name in REWARDS:
        return weights_digest("reward", "clap", "statistics")
    if name in (installed := installed_rewards()):
        return _installed_digest(installed[name])
    if is_in_module(name) and not os.path.exists(name):
        return module_digest(name)
    try:
        folder = find_folder(name, REWARDS)
        encoders = read_json(folder / "config.json")["encoders"]
        heard = (encoder_digest(CLAPS, encoders["clap"]), encoder_digest(AUDIO_EMBEDDERS, encoders["audio"]))
    except (ModelError, KeyError, TypeError):
        return "none"
    return " ".join((folder_digest(folder), *heard))


def start_digest(name: str | None) -> str:
    """The same of a text-to-music model that training begins with."""
    try:
        return "none" if name is None else model_digest(model_folder(name, MODELS))
    except ModelError:
        return "none"


def _installed_digest(point: EntryPoint) -> str:
    """Changes with an installed package's version, and with its source."""
    package = "" if point.dist is None else f"{point.dist.name} {point.dist.version}"
    return f"{point.value} of {package} {outside_digest(point.value)}"


def folder_digest(folder: Path) -> str:
    """A hash of a model folder's weights, configuration and tokenizer, and of the CLAP that a text encoder names."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in (STEP, DONE)]
    parts = [content_digest(path) for path in files]
    config = read_json(folder / "config.json")
    if isinstance(config, dict) and isinstance(config.get("clap"), str):
        parts.append(encoder_digest(CLAPS, config["clap"]))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def model_digest(folder: Path) -> str:
    """A hash of a text-to-music model: weights, configuration, and the codec and text encoder that this names."""
    config = read_model_config(folder)
    files = [folder / name for name in ("model.safetensors", "config.json")]
    parts = [content_digest(path) for path in files if path.exists()]
    parts += [encoder_digest(CODECS, config.codec), encoder_digest(TEXT_ENCODERS, config.text_encoder)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def weights_digest(*names: str) -> str:
    """A hash of the shipped weights of these names."""
    paths = [SHIPPED_WEIGHTS / name / "model.safetensors" for name in names]
    found = [file_digest(path) if path.exists() else "none" for path in paths]
    return hashlib.sha256(" ".join(found).encode()).hexdigest()[:16]
