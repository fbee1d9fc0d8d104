"""Bytes of a file, unpacked if it is compressed."""

from __future__ import annotations

import gzip
import importlib
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from zoo.errors import InputError, NotInstalledError
from zoo.multi.inputs import InputFile

READ_AT_ONCE = 1 << 20


@contextmanager
def opened(file: InputFile) -> Iterator[IO[bytes]]:
    """The file's content. Faults of reading inside the block are raised as InputErrors."""
    try:
        with _open(file) as handle:
            yield handle
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(file.path, None, f"the gzip data is cut off or damaged ({error})") from error
    except OSError as error:
        if file.packing == "zst" and error.errno is None:
            raise InputError(file.path, None, f"the zstd data is cut off or damaged ({error})") from error
        raise InputError(file.path, None, f"cannot be read: {error.strerror or error}") from error


def import_arrow(module: str, needed_for: str) -> Any:
    """A module of pyarrow. Raises NotInstalledError."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise NotInstalledError(
            f"{needed_for} needs the package 'pyarrow', which is not installed: pip install 'zoo-runner[table]'"
        ) from error


def _open(file: InputFile) -> IO[bytes]:
    if file.packing == "gz":
        return cast("IO[bytes]", io.BufferedReader(gzip.open(file.path, "rb"), READ_AT_ONCE))
    if file.packing == "zst":
        arrow = import_arrow("pyarrow", f"{file.path}: reading a .zst file")
        return cast(
            "IO[bytes]", io.BufferedReader(arrow.input_stream(str(file.path), compression="zstd"), READ_AT_ONCE)
        )
    return file.path.open("rb", buffering=READ_AT_ONCE)
