"""How many threads this process may really use: affinity and cgroup quotas, not the machine's size."""

from __future__ import annotations

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
SELF_CGROUP = Path("/proc/self/cgroup")


def usable_threads(cgroup_root: Path = CGROUP_ROOT, self_cgroup: Path = SELF_CGROUP) -> int:
    """The smaller of the CPUs this process is bound to and its cgroup's CPU quota, rounded up; at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota(cgroup_root, self_cgroup)
    return max(1, affinity if quota is None else min(affinity, math.ceil(quota)))


def bound_tokenizer(threads: int | None, environment: MutableMapping[str, str] = os.environ) -> None:
    """Have the tokenizers package use so many threads (None: what this process may use), unless the user has told it otherwise.

    Its thread pool reads the environment once, when it is first used, and takes the whole machine where nothing is said.
    """
    environment.setdefault("RAYON_NUM_THREADS", str(threads or usable_threads()))
    environment.setdefault("TOKENIZERS_PARALLELISM", "true")


def cgroup_quota(cgroup_root: Path = CGROUP_ROOT, self_cgroup: Path = SELF_CGROUP) -> float | None:
    """CPUs' worth of time the tightest enclosing cgroup (v2 or v1) grants, or None where nothing limits it."""
    quotas = [quota for folder in _cgroup_folders(cgroup_root, self_cgroup) if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def _cgroup_folders(root: Path, self_cgroup: Path) -> list[Path]:
    """The process's cgroup folders and all their parents; a limit set on a parent binds the children."""
    try:
        lines = self_cgroup.read_text().splitlines()
    except OSError:
        return [root]
    folders = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "cpu" if controllers else root
        relative = Path(path.lstrip("/"))
        folders += [base / relative, *(base / parent for parent in relative.parents)]
    return folders


def _quota(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()  # v2: "max 100000" or "150000 100000"
    except (OSError, ValueError):
        try:  # v1: -1 means no limit
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in ("max", "-1"):
        return None
    return float(quota) / float(period)
