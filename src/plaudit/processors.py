"""How many processors this process may use: its affinity, and the quota of its control group.

Everything that picks a number of threads or workers asks here. PyTorch and os.cpu_count() know nothing of a quota, and
more threads than it allows are stopped in turns.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

THREADS = "OMP_NUM_THREADS"
"""The variable by which a user sets the number of threads; it is followed."""


def processors(root: Path = Path("/")) -> int:
    """Processors that this process may use, at least 1. root: where /proc and /sys are."""
    quota = cpu_quota(root)
    return _affinity() if quota is None else max(1, min(_affinity(), math.ceil(quota)))


def limit_threads() -> None:
    """Make PyTorch, before it is imported, start no more threads than a quota allows, if the user set no number."""
    if THREADS not in os.environ and processors() < _affinity():
        os.environ[THREADS] = str(processors())


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The smallest quota of this process's control groups and those above them, in processors; None without one."""
    quotas = [quota for group in _groups(root) if (quota := _quota(group)) is not None]
    return min(quotas, default=None)


def _groups(root: Path) -> Iterator[Path]:
    """Folders of the control groups that limit this process's time, of version 2 and of version 1.

    In a container the paths in /proc may be those of the host, which are not mounted: then only the mount's root is.
    """
    mount = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:
            mounts = [mount, mount / "unified"]
        elif "cpu" in controllers.split(","):
            mounts = [mount / controllers, mount / "cpu"]
        else:
            continue
        inner = Path(group.lstrip("/"))
        for base in mounts:
            yield from (base / part for part in (inner, *inner.parents))


def _quota(group: Path) -> float | None:
    """Of one control group, in processors; None where it has none or its files can't be read."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        limit = float(quota) / float(period)  # "max" and -1 are no limit
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return limit if limit > 0 else None
