"""Lines of data files, plain or gzip: numbered, hashed as they are read, and checked one by one.

Every fault is an InputError with the file, the line and what to do about it. The faults of a file are collected while it is read and
raised together at its end.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Generic, NamedTuple, TypeVar, cast

import msgspec

from zoo.errors import Faults, InputError
from zoo.files import reason
from zoo.streams import numbered_lines
from zoo.strict_json import RepeatedKeyError, parse

T = TypeVar("T")
BOM = b"\xef\xbb\xbf"
BUFFER = 1 << 20
BLANKS = " \t\r\n\v\f"
"""What separates the columns of TREC's files: ASCII's white space."""


class Line(NamedTuple):
    """One line as it stands in the file; ``offset`` counts bytes of the uncompressed text."""

    number: int
    offset: int
    raw: bytes


class Lines:
    """The lines of a file. After an iteration has reached the end, ``sha256`` is that of the file's (uncompressed) bytes.

    ``file`` is where the content lies if that is not ``path``, which messages name.
    """

    def __init__(self, path: Path, file: Path | None = None) -> None:
        self._file = file or path
        if not self._file.is_file():
            raise InputError(path, None, "is a folder, not a file" if path.is_dir() else "no such file")
        self.path = path
        self.packed = path.suffix == ".gz"
        self.sha256 = ""
        self.faults = Faults()

    def __iter__(self) -> Iterator[Line]:
        digest, offset, number = hashlib.sha256(), 0, 0
        try:
            packed_size = self._file.stat().st_size if self.packed else None
            with self._open() as handle:
                for number, raw in numbered_lines(handle, self.fault, packed_size):
                    digest.update(raw)
                    if raw.strip():
                        yield Line(number, offset, raw)
                    offset += len(raw)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self.fault(
                number + 1, f"the gzip data is cut off or damaged ({error}). Download the file again"
            ) from error
        except OSError as error:
            raise self.fault(None, f"cannot be read: {reason(error)}") from error
        self.sha256 = digest.hexdigest()

    def fault(self, line: Line | int | None, problem: str) -> InputError:
        """The error that says ``problem`` of a line."""
        return InputError(self.path, line.number if isinstance(line, Line) else line, problem)

    def _open(self) -> IO[bytes]:
        return (
            cast("IO[bytes]", gzip.open(self._file, "rb")) if self.packed else self._file.open("rb", buffering=BUFFER)
        )

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
            raise self.fault(
                number, f"is not UTF-8 (byte {error.start + 1} of the line). Convert the file, for example with iconv"
            ) from error


class Form(Generic[T]):
    """What a JSON line of a file must be, and an example of a right one."""

    def __init__(self, kind: type[T], example: str) -> None:
        self.example = example
        self._decode = msgspec.json.Decoder(kind).decode
        self._keys = [f'"{field.encode_name}"'.encode() for field in msgspec.structs.fields(cast("Any", kind))]

    def read(self, lines: Lines, line: Line, *, every_key: bool = True) -> T:
        """One line's value. Raises InputError saying what is wrong with it, with the example.

        ``every_key`` False does not look for a key that is there twice, which takes as long as reading the line.
        """
        raw = lines.checked(line)
        try:
            value = self._decode(raw)
            if every_key and any(raw.count(key) > 1 for key in self._keys):
                parse(raw)
            return value
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:  # msgspec 0.18: no ValueErrors
            kind = "is not what it should be" if isinstance(error, msgspec.ValidationError) else "is not JSON"
            problem = str(error) if isinstance(error, RepeatedKeyError) else f"{kind}: {error}"
            shown = lines.text(line).strip()[:120]
            raise lines.fault(line, f"{problem}. A line reads {self.example}. This one reads: {shown!r}") from error


def json_lines(lines: Lines, form: Form[T]) -> Iterator[tuple[Line, T]]:
    """Each line as a ``form``. At the end raises InputError with every fault, the consumer's own in ``lines.faults`` too."""
    return _each(lines, functools.partial(form.read, lines), f"reads {form.example}")


def columns(lines: Lines, names: str, separator: str | None) -> Iterator[tuple[Line, list[str]]]:
    """Each line split into as many columns as ``names`` has words; ``separator`` None is any ASCII white space.

    At the end raises InputError with every fault, the consumer's own in ``lines.faults`` too.
    """
    return _each(lines, lambda line: _split(lines, line, names, separator), f"has the columns {names}")


def _each(lines: Lines, read: Callable[[Line], T], right: str) -> Iterator[tuple[Line, T]]:
    """What ``read`` makes of each line, without those it refuses; ``right`` says what a right line does."""
    count = 0
    for count, line in enumerate(lines, start=1):  # noqa: B007  # read after the loop
        try:
            value = read(line)
        except InputError as fault:
            lines.faults.add(fault)
        else:
            yield line, value
    if not count:
        raise lines.fault(None, f"is empty. A line {right}")
    lines.faults.refuse()


def _split(lines: Lines, line: Line, names: str, separator: str | None) -> list[str]:
    text = lines.text(line)
    if separator is None:
        found = [column.decode("utf-8") for column in lines.checked(line).split()]  # of bytes: at ASCII's blanks alone
    else:
        found = [column.strip(BLANKS) for column in text.split(separator)]
    wanted = len(names.split())
    if len(found) != wanted or not all(found):
        kind = "tab-separated" if separator == "\t" else "blank-separated"
        raise lines.fault(
            line, f"has {sum(map(bool, found))} {kind} columns, not {wanted} ({names}). It reads: {text[:120]!r}"
        )
    return found
