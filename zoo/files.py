"""Files that are written aside and take their name when they are complete."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from zoo.errors import ZooError

logger = logging.getLogger(__name__)


@contextmanager
def atomic_write(path: Path) -> Iterator[TextIO]:
    """A text file to write ``path``'s content to. It is called ``path`` only after the block ends well.

    A block that fails leaves what it has written in ``<name>.partial``, for nothing earned is thrown away.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        handle = partial.open("w", encoding="utf-8")
    except OSError as error:
        raise ZooError(f"cannot write {path}: {error.strerror}") from error
    try:
        with handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
    except BaseException:
        if partial.stat().st_size:
            logger.warning("what was written before the fault is kept in %s", partial)
        else:
            partial.unlink()
        raise
    partial.replace(path)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path for the block to write a new file at, which is called ``path`` after the block ends well, and is removed if it fails."""
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
    except OSError as error:
        raise ZooError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def size_of(folder: Path) -> int:
    """Bytes in a folder and below; files that vanish meanwhile do not count."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total
