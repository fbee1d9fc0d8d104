"""Facts about this machine that decide what runs here, gathered without importing anything heavy."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from zoo import __version__
from zoo.checkpoints.download import hub_cache, hub_endpoint
from zoo.checkpoints.sources import is_offline
from zoo.cpus import cgroup_quota, cpu_field, cpu_flags, usable_threads
from zoo.files import reason
from zoo.paths import zoo_home
from zoo.registry.catalogue import Catalogue
from zoo.types import Availability

HUB_TIMEOUT = 3.0
"""Seconds; a page about a machine is wanted at once, and a hub slower than this is news."""

REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)[^;]*(?:;(.*))?$")
EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")


def examine(catalogue: Catalogue, *, offline: bool) -> dict[str, dict[str, str]]:
    """Section -> fact -> value, in the order a reader wants them."""
    return {
        "versions": _versions(),
        "devices": {device.name: _availability(device.probe()) for device in catalogue.devices},
        "plugins": {record.name: record.error or "ok" for record in catalogue.plugins},
        "processor": _processor(),
        "folders": _folders(),
        "network": {"hub": _hub(offline)},
        "extras": _extras(),
    }


def _availability(available: Availability) -> str:
    if available.ok:
        return "available" + "".join(f", {key} {value}" for key, value in available.details.items())
    return f"not available: {available.reason}. {available.remedy}".rstrip()


def _versions() -> dict[str, str]:
    packages = sorted({name for name, extra in _requirements() if not extra})
    return {
        "zoo": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        **{name: _version(name) or "not installed" for name in packages},
    }


def _requirements() -> list[tuple[str, str]]:
    """(package, extra) for every requirement of this distribution; the extra is empty for the core's own."""
    try:
        lines = importlib.metadata.requires("zoo-runner") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = []
    for line in lines:
        match = REQUIREMENT.match(line)
        if match:
            extra = EXTRA.search(match[2] or "")
            if extra or "python_version" not in (match[2] or ""):
                found.append((match[1], extra[1] if extra else ""))
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> dict[str, str]:
    quota = cgroup_quota()
    return {
        "model": cpu_field("model name") or platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "threads a process may use": str(usable_threads()),
        "cgroup quota": "none" if quota is None else f"{quota:g} CPUs",
        "vector units": ", ".join(
            flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile") if flag in cpu_flags()
        )
        or "unknown",
    }


def _folders() -> dict[str, str]:
    places = {"ZOO_HOME": zoo_home(), "Hugging Face cache": hub_cache()}
    return {name: f"{path} ({_space(path)})" for name, path in places.items()}


def _space(path: Path) -> str:
    try:
        existing = next((place for place in (path, *path.parents) if place.exists()), Path("/"))
        free = shutil.disk_usage(existing).free / 1e9
        state = "exists" if path.exists() else "not made yet"
    except OSError as error:
        return f"NOT USABLE: {reason(error)}"
    writable = "" if os.access(existing, os.W_OK) else ", NOT WRITABLE"
    return f"{state}{writable}, {free:.0f} GB free"


def _hub(offline: bool) -> str:
    endpoint = hub_endpoint()
    if is_offline(offline):
        return f"{endpoint} not asked (offline)"
    try:
        request = urllib.request.Request(endpoint, method="HEAD", headers={"User-Agent": f"zoo/{__version__}"})  # noqa: S310  # http(s) of the user's own setting
        with urllib.request.urlopen(request, timeout=HUB_TIMEOUT):  # noqa: S310
            return f"{endpoint} answers"
    except urllib.error.HTTPError as error:
        return f"{endpoint} answers ({error.code})"
    except (OSError, ValueError) as error:
        return f"{endpoint} cannot be reached ({getattr(error, 'reason', error)}); `config_path` and HF_ENDPOINT are ways round it"


def _extras() -> dict[str, str]:
    """What each extra still lacks here."""
    needs: dict[str, list[str]] = {}
    for package, extra in _requirements():
        if extra:
            needs.setdefault(extra, []).append(package)
    report = {}
    for extra, packages in sorted(needs.items()):
        missing = [package for package in packages if _version(package) is None]
        report[extra] = f"lacks {', '.join(missing)} (pip install 'zoo-runner[{extra}]')" if missing else "complete"
    return report
