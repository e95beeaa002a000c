"""The number of processors that a process may use, from made control groups and the true affinity."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plaudit import processors as module
from plaudit.processors import cpu_quota, limit_threads, processors

V2 = "0::/app.slice/job\n"
V1 = "9:name=systemd:/x\n4:cpu,cpuacct:/docker/1f\n3:cpuset:/\n0::/\n"


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{n}": t for n, t in files.items()}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def v1(folder: str, quota: int, period: int = 100_000) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": f"{period}\n"}


@pytest.mark.parametrize(
    "groups, files, quota",
    [
        (V2, {"app.slice/job/cpu.max": "250000 100000\n"}, 2.5),
        (V2, {"app.slice/job/cpu.max": "max 100000\n"}, None),
        (V2, {"app.slice/job/cpu.max": "max 100000\n", "app.slice/cpu.max": "150000 50000\n"}, 3.0),  # of the parent
        (V2, {"app.slice/job/cpu.max": "400000 100000\n", "app.slice/cpu.max": "100000 100000\n"}, 1.0),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),  # in a container with its own namespace
        (V2, {"cpu.max": "200000 100000\n"}, 2.0),  # the path is the host's
        (V2, {"unified/app.slice/job/cpu.max": "200000 100000\n"}, 2.0),  # beside version 1
        (V1, v1("cpu,cpuacct/docker/1f", 300_000), 3.0),
        (V1, v1("cpu/docker/1f", 150_000, 50_000), 3.0),
        (V1, v1("cpu,cpuacct", 200_000), 2.0),
        (V1, v1("cpu,cpuacct/docker/1f", -1), None),
        (V1, v1("cpuset", 100_000), None),  # of another controller
        (V2, {"app.slice/job/cpu.max": "\n"}, None),
        (V2, {"app.slice/job/cpu.max": "100000 0\n"}, None),
        ("garbage\n\n::\n", {}, None),
    ],
)
def test_the_quota_of_control_groups(tmp_path: Path, groups: str, files: dict[str, str], quota: float | None) -> None:
    assert cpu_quota(machine(tmp_path, groups, files)) == quota


def test_a_system_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None


def test_processors_are_the_least_of_affinity_and_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = machine(tmp_path, V2, {"app.slice/job/cpu.max": "250000 100000\n"})
    for given, expected in (({0, 1, 2, 3}, 3), ({5}, 1), ({0, 2}, 2)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, given=given: given, raising=False)
        assert processors(root) == expected
        assert processors(tmp_path / "nothing") == len(given)
    (root / "sys/fs/cgroup/app.slice/job/cpu.max").write_text("10000 100000\n")
    assert processors(root) == 1  # a tenth of one


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinities")
def test_the_affinity_is_that_of_the_process(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert processors(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, before)


def test_a_quota_limits_threads_that_the_user_did_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def after(set_by_user: str | None, given: int) -> str | None:
        if set_by_user is None:
            monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        else:
            monkeypatch.setenv("OMP_NUM_THREADS", set_by_user)
        monkeypatch.setattr(module, "processors", lambda: given)
        limit_threads()
        return os.environ.get("OMP_NUM_THREADS")

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    assert after(None, 2) == "2"
    assert after("7", 2) == "7"
    assert after(None, 4) is None  # without a quota PyTorch's own choice stands
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
