"""benchmarks.gpu on the CPU at small size: what it measures, what it leaves out and why, and when it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_tables import tables
from plaudit.backbone.base import FORWARD_AND_BACKWARD
from plaudit.backbone.fluxaudio import FluxAudio

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
EAGER = [name for name in gpu.SECTIONS if name not in gpu.COMPILING]


def measured(path: Path, *arguments: str) -> dict[str, Any]:
    gpu.main(["--small", "--device", "cpu", "--json", str(path), *arguments])
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("gpu") / "results.json"
    return measured(path, "--sections", ",".join(EAGER), "--budget", "300")


def errors(results: dict[str, Any]) -> list[str]:
    return [row["error"] for facts in results["sections"].values() for row in facts["rows"] if "error" in row]


def test_every_eager_section_is_measured_but_graphs_which_need_a_gpu(results: dict[str, Any]) -> None:
    states = {name: facts["state"] for name, facts in results["sections"].items()}
    assert states == dict.fromkeys(EAGER, "done") | {"sampling_graphs": "skipped"}
    assert "CUDA" in results["sections"]["sampling_graphs"]["reason"]
    assert errors(results) == []


def test_shares_are_of_the_arithmetic_and_the_measured_peak(results: dict[str, Any]) -> None:
    sections = results["sections"]
    peak = sections["peak"]["rows"][0]["tflops"] * 1e12
    forward = FluxAudio(gpu.SMALL.backbone()).forward_flops(gpu.SMALL.frames)
    guided, unguided = sections["sampling"]["rows"][0], sections["sampling"]["rows"][-1]
    assert guided["guidance"] and not unguided["guidance"]
    for row, passes in ((guided, 2 * gpu.SMALL.steps), (unguided, gpu.SMALL.few_steps)):
        assert row["fraction_of_peak"] == pytest.approx(row["clips_per_s"] * passes * forward / peak)
    trained = sections["training"]["rows"][0]
    assert trained["fraction_of_peak"] == pytest.approx(trained["clips_per_s"] * FORWARD_AND_BACKWARD * forward / peak)
    assert trained["clips_per_s"] == pytest.approx(trained["batch"] / trained["update_seconds"])


def test_few_evaluations_without_guidance_sample_more_clips(results: dict[str, Any]) -> None:
    guided, unguided = (
        max(row["clips_per_s"] for row in results["sections"]["sampling"]["rows"] if row["guidance"] is guidance)
        for guidance in (True, False)
    )
    assert unguided > guided


def test_encoders_run_in_each_precision_and_differ_by_rounding(results: dict[str, Any]) -> None:
    rows = results["sections"]["encoders"]["rows"]
    networks = {"MERT-330M", "CLAP (HTSAT)", "mel VAE encode", "mel VAE decode", "BigVGAN decode", "T5 and CLAP text"}
    assert {(row["what"], row["precision"]) for row in rows} == {(n, p) for n in networks for p in gpu.PRECISIONS}
    assert all(row["relative_rms"] == 0 for row in rows if row["precision"] == "float32")
    assert all(0 < row["relative_rms"] < 0.1 for row in rows if row["precision"] == "bf16")
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_loader_feeds_training(results: dict[str, Any]) -> None:
    rows = results["sections"]["loader"]["rows"]
    assert [row["loader_threads"] for row in rows if row["what"] == "to the device"] == list(gpu.SMALL.loader_threads)
    assert rows[-1]["what"] == "training" and rows[-1]["clips_per_s"] > 0


def test_tables_hold_what_was_measured_and_say_what_was_not(results: dict[str, Any]) -> None:
    text = tables(results)
    for title in ("Sampling", "Training", "Parts of an update, ms", "Encoders and codec", "Loader"):
        assert f"**{title}**" in text
    row = results["sections"]["training"]["rows"][0]
    assert f"| eager | {row['batch']} |" in text and "| BigVGAN decode | bf16 | 1 |" in text
    assert "- sampling_graphs: skipped, CUDA graphs need a CUDA device" in text
    for table in text.split("\n\n"):
        lines = [line for line in table.splitlines() if line.startswith("|")]
        assert len({line.count(" | ") for line in lines}) <= 1


def test_tables_write_numbers_with_three_digits_and_leave_empty_columns_out() -> None:
    rows = [{"way": "eager", "batch": 64, "clips_per_s": 1234.5, "update_seconds": 0.012345, "fraction_of_peak": 0.314}]
    machine = {"device": "Some GPU", "cores": 4, "torch": "2"}
    sections = {
        "training": {"state": "done", "rows": rows},
        "peak": {"state": "failed", "reason": "RuntimeError: no", "rows": []},
        "encoders": {"state": "done", "rows": [{"what": "MERT-330M", "error": "OutOfMemoryError: 80 GiB"}]},
    }
    text = tables({"machine": machine, "small": False, "sections": sections})
    assert text.startswith("Some GPU, 4 cores, PyTorch 2.")
    assert "| way | batch | clips/s | seconds an update | fraction of peak |" in text
    assert "| eager | 64 | 1,234 | 0.0123 | 31% |" in text
    assert "- peak: failed, RuntimeError: no" in text
    assert "- encoders (what MERT-330M): OutOfMemoryError: 80 GiB" in text
    assert "Sampling" not in text


def test_the_tables_of_a_file_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured(tmp_path / "out.json", "--sections", "peak")
    capsys.readouterr()
    gpu.main(["--tables", str(tmp_path / "out.json")])
    assert "TFLOP/s" in capsys.readouterr().out


def test_a_section_that_fails_is_recorded_and_the_others_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(bench: gpu.Bench) -> None:
        bench.add(what="before", clips_per_s=1.0)
        bench.attempt(fails, what="too large")
        bench.add(what="after", clips_per_s=1.0)
        raise RuntimeError("gone\nfor good")

    def fails() -> gpu.Row:
        raise torch.OutOfMemoryError("80 GiB")

    monkeypatch.setitem(gpu.SECTIONS, "sampling", (out_of_memory, 0))
    sections = measured(tmp_path / "out.json", "--sections", "sampling,peak")["sections"]
    assert sections["sampling"]["state"] == "failed" and sections["sampling"]["reason"] == "RuntimeError: gone for good"
    rows = sections["sampling"]["rows"]
    assert [row["what"] for row in rows] == ["before", "too large", "after"] and "80 GiB" in rows[1]["error"]
    assert sections["peak"]["state"] == "done"


def test_nothing_is_begun_when_the_time_is_spent(tmp_path: Path) -> None:
    results = gpu.Results(tmp_path / "out.json", {})
    gpu.run(results, CPU, gpu.SMALL, time.monotonic() - 1, ["peak", "training"])
    sections = json.loads((tmp_path / "out.json").read_text())["sections"]
    assert [facts["state"] for facts in sections.values()] == ["skipped", "skipped"]


def test_a_section_that_hangs_is_ended_with_its_rows_on_disk(tmp_path: Path) -> None:
    program = f"""
import time
from pathlib import Path
from benchmarks import gpu
results = gpu.Results(Path({str(tmp_path / "out.json")!r}), {{}})
results.update("sampling", state="running")
results.add("sampling", {{"clips_per_s": 1.0}})
gpu.end_process_after(0.3, results)
time.sleep(600)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)
    section = json.loads((tmp_path / "out.json").read_text())["sections"]["sampling"]
    assert section == {"rows": [{"clips_per_s": 1.0}], "state": "stopped", "reason": "the time was spent"}


def test_unknown_sections_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main(["--json", str(tmp_path / "out.json"), "--sections", "sampling,trainning"])
    assert "unknown sections trainning" in capsys.readouterr().err


@pytest.mark.slow
def test_compiled_sections_run(tmp_path: Path) -> None:
    names = ["peak", "sampling_compiled", "training_compiled"]
    results = measured(tmp_path / "out.json", "--sections", ",".join(names), "--budget", "900")
    assert [results["sections"][name]["state"] for name in names] == ["done"] * 3
    assert errors(results) == []
    assert all(row["compile_seconds"] > 0 for row in results["sections"]["sampling_compiled"]["rows"])
