"""[query, passage] pairs as users write them: Python literals, JSON lines, or two tab-separated columns."""

from __future__ import annotations

import ast
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

from zoo.errors import InputError, ZooError
from zoo.types import Pair

FORMS = (
    """one of: [['query', 'passage']]  ["query", "passage"]  {"query": "...", "passage": "..."}  query<TAB>passage"""
)

KEYS = (("query", "passage"), ("text1", "text2"), ("sentence1", "sentence2"))
"""Names of the two texts of a JSON object: ours, then those of MRPC's files."""

READ_AT_ONCE = 1 << 20
"""Bytes. Python's own 8 KB take half as long again for lines of 26 KB."""


class Record(NamedTuple):
    """One input line: usually a pair, but the vendor's form allows several in a line."""

    line: int
    pairs: list[Pair]


class PairSource:
    """Pairs from a file, or from a stream that is kept on disk so that it can be read twice.

    Iterating parses; nothing is held in memory, so an input of any size can be checked first and scored afterwards.
    """

    def __init__(self, source: Path | BinaryIO) -> None:
        self._kept: IO[bytes] | None = None
        if isinstance(source, Path):
            self.name, self._path = str(source), source
            if not source.is_file():
                raise InputError(
                    source, None, "is a folder, not a file of pairs" if source.is_dir() else "no such file"
                )
        else:
            self.name = "<stdin>"
            self._kept = tempfile.NamedTemporaryFile(prefix="zoo-pairs-")  # noqa: SIM115  # until __exit__
            shutil.copyfileobj(source, self._kept)
            self._kept.flush()
            self._path = Path(self._kept.name)

    def __enter__(self) -> PairSource:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._kept is not None:
            self._kept.close()

    def __iter__(self) -> Iterator[Record]:
        tabular = self.name.endswith((".tsv", ".tab"))
        with self._open() as handle:
            for number, raw in enumerate(handle, start=1):
                text = self._decode(raw, number)
                if text.strip():
                    yield Record(number, self._parse(text, number, tabular))

    def check(self) -> int:
        """How many records the source holds. Raises InputError at the first malformed line, or where there is none at all."""
        records = sum(1 for _ in self)
        if not records:
            raise InputError(self.name, None, f"holds no pairs. A line is {FORMS}")
        return records

    def _open(self) -> IO[bytes]:
        try:
            return self._path.open("rb", buffering=READ_AT_ONCE)
        except OSError as error:
            raise InputError(self.name, None, f"cannot be read: {error.strerror}") from error

    def _decode(self, raw: bytes, number: int) -> str:
        try:
            return raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InputError(
                self.name,
                number,
                f"is not UTF-8 (byte {error.start + 1} of the line). Convert the file, for example with iconv",
            ) from error

    def _parse(self, text: str, number: int, tabular: bool) -> list[Pair]:
        try:
            value = None if tabular else _value(text.strip())
            if value is None:
                columns = text.split("\t")
                if len(columns) != 2:
                    raise ValueError(
                        f"has {len(columns)} tab-separated column(s), not 2"
                        if tabular or "\t" in text
                        else "is no pair"
                    )
                value = columns
            pairs = _pairs(value)
            if _names_characters(text):  # in UTF-8 there is no other way to write half of a surrogate pair
                _refuse_surrogates(pairs)
            return pairs
        except ValueError as error:
            raise InputError(self.name, number, f"{error}. A line is {FORMS}. It reads: {text[:120]!r}") from error


def _value(text: str) -> object | None:
    """The JSON value or Python literal ``text`` spells, or None where it starts like neither."""
    if text[0] not in "[{(":
        return None
    try:
        return json.loads(text)  # type: ignore[no-any-return]  # checked by _pairs
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)  # type: ignore[no-any-return]  # literals only: nothing is evaluated
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        if "\t" in text:
            return None  # a table whose query begins with a bracket
        raise ValueError(f"is neither a Python literal nor JSON ({_first_line(error)})") from error


def _pairs(value: object) -> list[Pair]:
    """The pairs of one line's value. Raises ValueError saying what is wrong."""
    if isinstance(value, dict):
        names = next((names for names in KEYS if all(name in value for name in names)), None)
        if names is None:
            lacking = [key for key in KEYS[0] if key not in value]
            raise ValueError(f"lacks the key {' and '.join(repr(key) for key in lacking)}")
        pair, instruction = _pair([value[name] for name in names]), value.get("instruction") or ""
        if not isinstance(instruction, str):
            raise ValueError(f"has a {type(instruction).__name__} where the text of an instruction belongs")
        return [pair._replace(instruction=instruction)]
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError("holds no pair")
        if all(isinstance(item, (list, tuple)) for item in value):
            return [_pair(item) for item in value]
        return [_pair(value)]
    raise ValueError("is no pair")


def _pair(item: list[object] | tuple[object, ...]) -> Pair:
    if len(item) != 2:
        raise ValueError(f"has a pair of {len(item)} elements, not 2")
    for text in item:
        if not isinstance(text, str):
            raise ValueError(f"has a {type(text).__name__} where a text belongs")
    query, passage = item
    return Pair(str(query), str(passage))


def _names_characters(text: str) -> bool:
    """Whether it has an escape like ``\\u4e2d``. Looking for one character goes at ten times the speed of looking for two."""
    place = text.find("\\")
    while place >= 0:
        if text[place + 1 : place + 2] in ("u", "U"):
            return True
        place = text.find("\\", place + 2)
    return False


def _refuse_surrogates(pairs: list[Pair]) -> None:
    for pair in pairs:
        for text in pair:
            try:
                text.encode("utf-8")  # some ten times faster than looking at each character
            except UnicodeEncodeError:
                raise ValueError("has half of a surrogate pair, which is no character") from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_pairs(path: str, stdin: BinaryIO) -> PairSource:
    """The pairs of the file at ``path``; ``-`` is the standard input."""
    if path == "-":
        if stdin.isatty():
            raise ZooError(
                f"--data-path - reads pairs from a pipe or a file, and the standard input is a terminal. A line is {FORMS}"
            )
        return PairSource(stdin)
    return PairSource(Path(path))
