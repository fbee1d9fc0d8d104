"""Ray, imported when it is needed."""

from __future__ import annotations

import importlib
import os
from typing import Any

from zoo.errors import NotInstalledError


def import_ray(module: str = "ray") -> Any:
    """Ray or a module of it, which then reports its use to nobody unless the user has allowed that. Raises NotInstalledError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when a cluster is started
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise NotInstalledError(
            f"a cluster needs the package 'ray' ({error}): pip install 'zoo-runner[ray]'"
        ) from error
