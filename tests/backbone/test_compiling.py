from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from plaudit.backbone import INJECTIONS, FluxAudio, initialize
from plaudit.backbone.compiling import CACHE, blocks_of, compile_blocks, restore_blocks, use_cache_folder
from tests.backbone.tiny import inputs, tiny_config, tiny_model, wake

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")


@pytest.mark.slow
@pytest.mark.parametrize("injection", INJECTIONS.builtin)
@pytest.mark.parametrize("autocast", [False, True])
def test_the_whole_network_compiles_to_one_graph_that_computes_and_learns_the_same(
    injection: str, autocast: bool
) -> None:
    torch.compiler.reset()
    model = wake(tiny_model(injection))
    latents, text, t = inputs()
    score = None if injection == "none" else torch.tensor([0.5, torch.nan, -1.0])
    results = []
    for call in (model, torch.compile(model, fullgraph=True, dynamic=False, backend="aot_eager")):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = call(latents, text, t, score)
        output.float().square().mean().backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        results.append((output.detach().float(), gradients))
    (plain, gradients), (output, others) = results
    scale = 1e-2 if autocast else 1e-4
    torch.testing.assert_close(output, plain, rtol=scale, atol=scale)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        assert (others[name] - gradient).norm() <= 5 * scale * (gradient.norm() + 1e-3)


def test_blocks_of_one_kind_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    graphs: list[int] = []

    def counting(module: torch.fx.GraphModule, example: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(len(module.graph.nodes))
        return module

    compile_ = torch.compile

    def to_one_graph(function: Callable[..., object], dynamic: bool, mode: str) -> object:
        return compile_(function, dynamic=dynamic, fullgraph=True, backend=counting)

    monkeypatch.setattr(torch, "compile", to_one_graph)
    monkeypatch.setenv(CACHE, "anywhere")
    model = FluxAudio(replace(tiny_config(), depth=6, fused_depth=3)).eval()
    initialize(model, 0)
    latents, text, t = inputs()
    blocks = blocks_of(model)
    with torch.no_grad():
        plain = model(latents, text, t)
        compile_blocks(blocks)
        torch.testing.assert_close(model(latents, text, t), plain, atol=1e-5, rtol=1e-5)
        assert len(graphs) == 3  # joint, the last joint one, and audio alone
        model(latents, text, t)
        assert len(graphs) == 3
        restore_blocks(blocks)
        assert torch.equal(model(latents, text, t), plain)
    assert not any("forward" in block.__dict__ for block in blocks)


def test_the_cache_is_in_the_users_folder_unless_pytorchs_variable_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(CACHE, "elsewhere")
    use_cache_folder()
    assert os.environ[CACHE] == "elsewhere" and not list(tmp_path.iterdir())
    monkeypatch.setenv(CACHE, default_cache_dir())  # as PyTorch does
    use_cache_folder()
    assert os.environ[CACHE] == str(tmp_path / "plaudit" / "compiled")
    assert (tmp_path / "plaudit" / "compiled").is_dir()
    monkeypatch.delenv(CACHE)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # no folder can be made there
    use_cache_folder()
    assert CACHE not in os.environ


SECOND_PROCESS = """
import torch
from torch._dynamo.utils import counters
from plaudit.backbone.compiling import blocks_of, compile_blocks
from tests.backbone.tiny import inputs, tiny_model, wake
model = wake(tiny_model())
compile_blocks(blocks_of(model))
latents, text, t = inputs()
with torch.autocast("cpu", torch.bfloat16):
    model(latents, text, t).square().mean().backward()
found = counters["aot_autograd"]
print(found["autograd_cache_hit"], found["autograd_cache_miss"], found["autograd_cache_bypass"])
"""


@pytest.mark.slow
@needs_compiler
def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != CACHE}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    printed = []
    for _ in range(2):
        command = [sys.executable, "-c", SECOND_PROCESS]
        printed.append(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    first, second = ([int(number) for number in output.split()] for output in printed)
    assert first[0] == 0 and first[1] > 0
    assert second == [first[1], 0, 0]
    assert list((tmp_path / "plaudit" / "compiled").iterdir())
