"""What a figure depends on: printed by every benchmark above its figures."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.cpus import usable_threads

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "avx_vnni", "asimddp", "bf16")


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """CPU, its flags that matter here, threads, load, and the versions of ``packages``."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    fields = dict(line.partition("\t: ")[::2] for line in lines if "\t: " in line)
    fields = {name.strip(): value for name, value in fields.items()}
    present = set(fields.get("flags", fields.get("Features", "")).split())
    return {
        "cpu": fields.get("model name", platform.processor() or platform.machine()),
        "flags": [flag for flag in FLAGS if flag in present],
        "threads": usable_threads(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {name: version for name in packages if (version := installed(name))},
    }


def installed(package: str) -> str | None:
    """The version of a distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def report(settings: Mapping[str, Any], result: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the settings, and as the last line one JSON object where that was asked for."""
    for name, value in settings.items():
        print(f"{name}: {value}")
    if as_json:
        print(json.dumps({**result, "settings": settings}, ensure_ascii=False))


def median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
