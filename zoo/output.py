"""Files that are written aside and take their name when they are complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from zoo.errors import ZooError


@contextmanager
def written_aside(path: Path) -> Iterator[TextIO]:
    """A text file to write ``path``'s content to. It is called ``path`` only after the block ends well.

    A block that fails leaves what it has written in ``<name>.partial``, for nothing earned is thrown away.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        handle = partial.open("w", encoding="utf-8")
    except OSError as error:
        raise ZooError(f"cannot write {path}: {error.strerror}") from error
    with handle:
        yield handle
        handle.flush()
        os.fsync(handle.fileno())
    partial.replace(path)
