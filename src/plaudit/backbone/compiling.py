"""Compiling networks with torch.compile, block by block, with a cache that outlives the process and the machine's
restart.

Blocks of one kind have one code, so that a kind is compiled once, and with static shapes: each new shape, as of a last
batch that is smaller, is compiled anew.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import nn

from plaudit.errors import ModelError
from plaudit.places import cache_dir

Function = TypeVar("Function", bound=Callable[..., object])

CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""PyTorch's variable for the folder of compiled code, which a user may set. PyTorch's own default is in /tmp."""


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The repeated parts of a network, outermost first: members of its module lists that have submodules."""
    blocks: list[nn.Module] = []
    for child in network.children():
        if isinstance(child, nn.ModuleList):
            blocks += [member for member in child if any(True for _ in member.children())]
        else:
            blocks += blocks_of(child)
    return blocks


def compile_blocks(blocks: Iterable[nn.Module]) -> None:
    """Compile what blocks compute, in place; `restore_blocks` undoes it. Nothing is compiled before the first call."""
    for block in blocks:
        block.forward = compiled(block.forward)  # type: ignore[method-assign]


def restore_blocks(modules: Iterable[nn.Module]) -> None:
    """Give modules the `forward` of their class back."""
    for module in modules:
        module.__dict__.pop("forward", None)


def compiled(function: Function, mode: str = "default") -> Function:
    """`function` compiled for fixed shapes by its first call, or read from the cache of earlier processes."""
    use_cache_folder()
    return torch.compile(function, dynamic=False, mode=mode)  # type: ignore[return-value]


def use_cache_folder() -> None:
    """Keep compiled code in `plaudit/compiled` in the user's cache folder, unless TORCHINDUCTOR_CACHE_DIR is set or
    there can be no such folder."""
    chosen = os.environ.get(CACHE, "")
    # PyTorch sets the variable to its own default when it first looks for it.
    if chosen and not chosen.startswith(os.path.join(tempfile.gettempdir(), "torchinductor_")):
        return
    try:
        folder = cache_dir() / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
    except (ModelError, OSError):
        return  # PyTorch's default will do
    if os.access(folder, os.W_OK):
        os.environ[CACHE] = str(folder)
