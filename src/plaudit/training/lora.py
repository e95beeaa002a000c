"""Low-rank adapters while a network is trained, through peft: added before, merged into the weights after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from plaudit.backbone.base import Backbone
from plaudit.backbone.compiling import blocks_of
from plaudit.errors import RecipeError, RunError
from plaudit.training.settings import LoraSettings

if TYPE_CHECKING:
    from peft import PeftModel


def add_adapters(network: Backbone, settings: LoraSettings, seed: int) -> PeftModel:
    """Put adapters into `network`, in place, and freeze everything else; untrained adapters change nothing.

    The injection of the score is small, new to models without one, and trained entirely (ours).

    RunError where peft is not installed, RecipeError where no layer has one of the target names.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise RunError("adapters need peft; pip install 'plaudit[finetune]'") from None
    with torch.random.fork_rng(devices=[]):  # peft draws from the global generator
        torch.manual_seed(seed)
        adapters = get_peft_model(
            network,  # type: ignore[arg-type]  # any module will do
            LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=adapted_layers(network, settings)),
        )
    network.score.requires_grad_(True)
    return adapters  # type: ignore[return-value]


def adapted_layers(network: nn.Module, settings: LoraSettings) -> list[str]:
    """The names of the linear layers in the network's blocks whose last part is among `settings.targets`."""
    inside = {id(module) for block in blocks_of(network) for module in block.modules()}
    linear = [name for name, module in network.named_modules() if id(module) in inside and type(module) is nn.Linear]
    for target in settings.targets:
        if not any(_last(name) == target for name in linear):
            names = ", ".join(sorted({_last(name) for name in linear}))
            raise RecipeError(f"lora.targets: no linear layer of the blocks is called {target!r}; there are {names}")
    return [name for name in linear if _last(name) in settings.targets]


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


@torch.no_grad()
def without_adapters(network: Backbone) -> Backbone:
    """A plain network that computes what `network` does with its adapters; `network` is left unchanged."""
    state = {name.replace(".base_layer.", "."): v for name, v in network.state_dict().items() if ".lora_" not in name}
    for name, module in network.named_modules():
        if hasattr(module, "get_delta_weight"):
            weight = f"{name}.weight"
            state[weight] = state[weight] + module.get_delta_weight("default")
    with torch.device("meta"):
        plain = type(network)(network.config)
    plain.load_state_dict(state, assign=True)
    return plain.eval()


def merge_adapters(adapters: PeftModel, network: nn.Module, folder: Path) -> None:
    """Save the adapters in `folder`, as peft writes them, and merge them into `network`, a plain module again."""
    adapters.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)  # a form to be filled in
    adapters.merge_and_unload()
    network.requires_grad_(True)
    for leftover in ("peft_config", "peft_type"):
        network.__dict__.pop(leftover, None)
