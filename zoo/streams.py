"""Input of any size: lines within limits, and what is not a regular file (the standard input, a FIFO, process substitution).

The latter is kept aside, since input is read twice.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

from zoo.errors import InputError, ZooError
from zoo.files import reason

AT_ONCE = 1 << 20


def is_open(descriptor: int) -> bool:
    """Whether this process has the descriptor."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


LONGEST_LINE = 64 << 20
"""Bytes of a line of input: ten times the longest of published data sets, and no more memory than a model takes."""
UNPACKED_FREELY, UNPACKED_TIMES = 100 << 20, 200
"""A compressed file may unpack to so many bytes, or to so many times its size. Text shrinks to a third; 1,000 times is a bomb."""


def numbered_lines(
    handle: BinaryIO | IO[bytes], refuse: Callable[[int, str], Exception], packed_size: int | None = None
) -> Iterator[tuple[int, bytes]]:
    """The lines of a file of any size by their numbers, with their ends.

    Raises what ``refuse`` makes of a line's number and a problem: if a line is longer than ``LONGEST_LINE``, and if the content of a
    compressed file of ``packed_size`` bytes has no end that is worth waiting for.
    """
    left = None if packed_size is None else max(UNPACKED_FREELY, UNPACKED_TIMES * packed_size)
    for number, raw in enumerate(iter(functools.partial(handle.readline, LONGEST_LINE + 1), b""), start=1):
        if len(raw) > LONGEST_LINE:
            raise refuse(number, f"is longer than {LONGEST_LINE >> 20} MB, the most that a line may have")
        yield number, raw
        if left is not None:
            left -= len(raw)
            if left < 0:
                raise refuse(number, f"the compressed data unpacks to more than {UNPACKED_TIMES} times its size")


@contextmanager
def as_file(path: Path, *, longest_line: int = LONGEST_LINE) -> Iterator[Path]:
    """``path`` if it is a regular file, or a temporary file with what could be read from it. Raises InputError."""
    if path.is_file():
        yield path
        return
    if path.is_dir():
        raise InputError(path, None, "is a folder, not a file")
    if not path.exists():
        raise InputError(path, None, "no such file")
    try:
        stream = path.open("rb", buffering=0)
    except OSError as error:
        raise InputError(path, None, f"cannot be read: {reason(error)}") from error
    with stream, kept(stream, str(path), longest_line=longest_line) as file:
        yield file


@contextmanager
def kept(stream: BinaryIO, name: str, *, longest_line: int = LONGEST_LINE) -> Iterator[Path]:
    """A temporary file with all that ``stream`` gives. ``name`` is what messages call it. Raises InputError, ZooError.

    A line of more than ``longest_line`` bytes is refused, for a stream without line ends may have no end.
    """
    if stream.isatty():
        raise InputError(name, None, "is a terminal; input comes from a pipe or a file")
    try:
        descriptor, place = tempfile.mkstemp(prefix="zoo-input-")
    except OSError as error:
        raise _cannot_keep(name, error) from error
    try:
        with os.fdopen(descriptor, "wb") as target:
            _copy(stream, target, name, longest_line)
        yield Path(place)
    finally:
        with suppress(OSError):
            os.unlink(place)  # noqa: PTH108  # as mkstemp gave it


def _copy(stream: BinaryIO, target: BinaryIO, name: str, longest_line: int) -> None:
    line, length = 1, 0
    while True:
        try:
            block = stream.read(AT_ONCE)
        except OSError as error:
            raise InputError(name, None, f"cannot be read: {reason(error)}") from error
        if block is None:  # a stream that does not block and has nothing yet
            raise InputError(name, None, "has nothing to read yet and does not wait")
        last = block.rfind(b"\n")
        line += block.count(b"\n")
        length = length + len(block) if last < 0 else len(block) - last - 1
        if length > longest_line:
            raise InputError(name, line, f"is longer than {longest_line >> 20} MB, the most that a line may have")
        try:
            target.write(block)
            if not block:
                return target.flush()
        except OSError as error:
            raise _cannot_keep(name, error) from error


def _cannot_keep(name: str, error: OSError) -> ZooError:
    return ZooError(
        f"{name} is kept in {tempfile.gettempdir()} while it is used, and that cannot be written: {reason(error)}. "
        "Set TMPDIR to another folder, or read from a regular file"
    )
