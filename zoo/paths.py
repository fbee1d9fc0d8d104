"""Where the files that come with the project lie, and where a user's files go."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def bundled(name: str) -> Path:
    """The folder ``models`` or ``datas``: inside the package when installed, at the top level of a checkout."""
    installed = PACKAGE / "_bundled" / name
    return installed if installed.is_dir() else PACKAGE.parent / name


def zoo_home() -> Path:
    """Checkpoints and artifacts: ``$ZOO_HOME``, else the platform's cache folder for this user."""
    override = os.environ.get("ZOO_HOME")
    if override:
        return Path(override).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("zoo-runner")
