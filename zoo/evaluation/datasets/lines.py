"""Lines of data files, plain or gzip: numbered, hashed as they are read, and checked one by one.

Every fault is an InputError with the file, the line and what to do about it.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, TypeVar, cast

import msgspec

from zoo.errors import InputError

T = TypeVar("T")
BOM = b"\xef\xbb\xbf"
BUFFER = 1 << 20


class Line(NamedTuple):
    """One line as it stands in the file; ``offset`` counts bytes of the uncompressed text."""

    number: int
    offset: int
    raw: bytes


class Lines:
    """The lines of a file. After an iteration has reached the end, ``sha256`` is that of the file's (uncompressed) bytes."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(path, None, "is a folder, not a file" if path.is_dir() else "no such file")
        self.path = path
        self.packed = path.suffix == ".gz"
        self.sha256 = ""

    def __iter__(self) -> Iterator[Line]:
        digest, offset, number = hashlib.sha256(), 0, 0
        try:
            with self._open() as handle:
                for number, raw in enumerate(handle, start=1):
                    digest.update(raw)
                    if raw.strip():
                        yield Line(number, offset, raw)
                    offset += len(raw)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(
                self.path, number + 1, f"the gzip data is cut off or damaged ({error}). Download the file again"
            ) from error
        except OSError as error:
            raise InputError(self.path, None, f"cannot be read: {error.strerror}") from error
        self.sha256 = digest.hexdigest()

    def _open(self) -> IO[bytes]:
        return cast("IO[bytes]", gzip.open(self.path, "rb")) if self.packed else self.path.open("rb", buffering=BUFFER)

    def checked(self, line: Line) -> bytes:
        """The line without a byte order mark. Raises InputError where it is not UTF-8."""
        raw = line.raw.removeprefix(BOM) if line.number == 1 else line.raw
        if not raw.isascii():
            self._decode(raw, line.number)
        return raw

    def text(self, line: Line) -> str:
        """The line as text, without its end. Raises InputError where it is not UTF-8."""
        raw = line.raw.removeprefix(BOM) if line.number == 1 else line.raw
        return self._decode(raw, line.number).rstrip("\r\n")

    def _decode(self, raw: bytes, number: int) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                self.path,
                number,
                f"is not UTF-8 (byte {error.start + 1} of the line). Convert the file, for example with iconv",
            ) from error


def json_lines(lines: Lines, form: type[T], example: str) -> Iterator[tuple[Line, T]]:
    """Each line as a ``form``. Raises InputError at the first that is none, and where there is no line at all."""
    decode = msgspec.json.Decoder(form).decode
    count = 0
    for count, line in enumerate(lines, start=1):  # noqa: B007  # read after the loop
        yield line, decode_line(lines, line, decode, example)
    if not count:
        raise InputError(lines.path, None, f"is empty. A line reads {example}")


def decode_line(lines: Lines, line: Line, decode: Callable[[bytes], T], example: str) -> T:
    """One line's value. Raises InputError saying what is wrong with it and what a right one looks like."""
    raw = lines.checked(line)
    try:
        return decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        kind = "is not what it should be" if isinstance(error, msgspec.ValidationError) else "is not JSON"
        shown = lines.text(line).strip()[:120]
        raise InputError(
            lines.path, line.number, f"{kind}: {error}. A line reads {example}. This one reads: {shown!r}"
        ) from error


def columns(lines: Lines, names: str, separator: str | None) -> Iterator[tuple[Line, list[str]]]:
    """Each line split into as many columns as ``names`` has words; ``separator`` None is any white space."""
    wanted = len(names.split())
    count = 0
    for count, line in enumerate(lines, start=1):  # noqa: B007  # read after the loop
        text = lines.text(line)
        found = [column.strip() for column in text.split(separator)]
        if len(found) != wanted or not all(found):
            kind = "tab-separated" if separator == "\t" else "blank-separated"
            raise InputError(
                lines.path,
                line.number,
                f"has {sum(map(bool, found))} {kind} columns, not {wanted} ({names}). It reads: {text[:120]!r}",
            )
        yield line, found
    if not count:
        raise InputError(lines.path, None, f"is empty. A line has the columns {names}")


def whole_number(lines: Lines, line: Line, text: str, name: str) -> int:
    """``text`` as an integer. Raises InputError."""
    try:
        return int(text)
    except ValueError as error:
        raise InputError(lines.path, line.number, f"the {name} {text!r} is no whole number") from error
