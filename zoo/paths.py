"""Where the files that come with the project lie, and where a user's files go."""

from __future__ import annotations

import atexit
import functools
import logging
import os
from pathlib import Path

from zoo.types import CacheFolder

logger = logging.getLogger(__name__)

RECEIVED = CacheFolder(name="ray", holds="models that a cluster sent to this machine")

PACKAGE = Path(__file__).resolve().parent


def bundled(name: str) -> Path:
    """The folder ``models`` or ``datas``: inside the package when installed, at the top level of a checkout."""
    installed = PACKAGE / "_bundled" / name
    return installed if installed.is_dir() else PACKAGE.parent / name


def zoo_home() -> Path:
    """Checkpoints and artifacts: ``$ZOO_HOME``, else the platform's cache folder for this user.

    A user without a home folder gets one for the life of this process.
    """
    override = os.environ.get("ZOO_HOME")
    if override:
        return Path(os.path.expanduser(override))  # noqa: PTH111  # Path.expanduser raises if there is no such user
    import platformdirs

    try:
        folder = platformdirs.user_cache_path("zoo-runner")
    except RuntimeError:  # newer versions than 4 raise what older ones give as '~/.cache'
        return temporary_home("this user has no home folder")
    return folder if folder.is_absolute() else temporary_home("this user has no home folder")


@functools.cache
def temporary_home(reason: str) -> Path:
    """A folder for the life of this process; ``reason``, why there is no other, is logged once."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="zoo-home-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    logger.warning("%s: what is made is kept until the end of this run. Set ZOO_HOME to keep it", reason)
    return folder
