"""The CPUs of this machine: what their instruction set offers, and how many threads this process may really use."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
SELF_CGROUP = Path("/proc/self/cgroup")
CPUINFO = Path("/proc/cpuinfo")
INT8_DOT_PRODUCT = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"})
"""x86 names it VNNI or AMX, Arm the dot product of advanced SIMD."""
BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def cpu_field(name: str, cpuinfo: Path = CPUINFO) -> str | None:
    """The first processor's entry ``name``, or None if the system does not list it."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return None
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), None)


def cpu_flags(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """What the instruction set of the first processor offers, in the system's words; empty if it does not say."""
    return frozenset((cpu_field("flags", cpuinfo) or cpu_field("Features", cpuinfo) or "").split())


def usable_threads(cgroup_root: Path = CGROUP_ROOT, self_cgroup: Path = SELF_CGROUP) -> int:
    """The smaller of the CPUs this process is bound to and its cgroup's CPU quota, rounded up; at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota(cgroup_root, self_cgroup)
    return max(1, affinity if quota is None else min(affinity, math.ceil(quota)))


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
