"""Rows of an input file, by its form. Every fault is an InputError with the file and the line or row."""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import chain
from typing import IO, Any, TypeAlias

import msgspec

from zoo.errors import InputError
from zoo.multi.inputs import Form, InputFile
from zoo.multi.rows import Columns, Row, pairs_row
from zoo.multi.unpack import import_arrow, opened
from zoo.pairs import FORMS, parse_line
from zoo.streams import LONGEST_LINE, numbered_lines
from zoo.strict_json import parse

Rows: TypeAlias = Generator[Row, None, None]

LONGEST_FIELD = LONGEST_LINE
"""Characters of a CSV field, which may have many lines. Python's own limit, 131,072, is less than a long document."""

ROWS_AT_ONCE = 256
"""Rows of a binary table that become Python objects together: few, for a passage may have a megabyte."""


def read_rows(file: InputFile, columns: Columns) -> Rows:
    """The rows of ``file``, one at a time. Close it to close the file. Raises InputError."""
    return READERS[file.form](file, columns)


def _demo(file: InputFile, columns: Columns) -> Rows:
    for number, text in _lines(file):
        yield _pairs(file, number, text)


def _jsonl(file: InputFile, columns: Columns) -> Rows:
    decode = msgspec.json.Decoder().decode
    for number, text in _lines(file):
        if not text.lstrip().startswith("{"):
            yield _pairs(file, number, text)
            continue
        try:
            value = decode(text)
            if any(text.count(f'"{key}"') > 1 for key in value):
                parse(text)
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:  # msgspec 0.18: no ValueErrors
            raise InputError(file.path, number, f"is not JSON: {error}. It reads: {text[:120]!r}") from error
        yield _row(file, columns, number, value)


def _tsv(file: InputFile, columns: Columns) -> Rows:
    """Cells are what stands between the tabs. Without a header line the columns are query and passage."""
    lines = _lines(file)
    first = next(lines, None)
    if first is None:
        return
    names = first[1].split("\t")
    if not columns.in_header(names):
        for number, text in chain([first], lines):
            yield _pairs(file, number, text, tabular=True)
        return
    _refuse_repeated(file, first[0], names)
    for number, text in lines:
        yield _row(file, columns, number, _cells(file, number, names, text.split("\t")))


def _csv(file: InputFile, columns: Columns) -> Rows:
    csv.field_size_limit(LONGEST_FIELD)
    with opened(file) as handle:
        reader = csv.reader(_decoded(file, handle), strict=True)
        names: list[str] | None = None
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise InputError(file.path, reader.line_num, f"is not CSV: {error}") from error
            if cells is None:
                return
            if not cells:  # an empty line
                continue
            if names is None:
                names = cells
                _refuse_repeated(file, reader.line_num, names)
                continue
            yield _row(file, columns, reader.line_num, _cells(file, reader.line_num, names, cells))


def _parquet(file: InputFile, columns: Columns) -> Rows:
    module = import_arrow("pyarrow.parquet", f"{file.path}: reading a Parquet file")
    yield from _batches(file, columns, lambda: _parquet_batches(module, file))


def _parquet_batches(module: Any, file: InputFile) -> Iterator[Any]:
    with module.ParquetFile(file.path) as table:
        yield from table.iter_batches(batch_size=ROWS_AT_ONCE)


def _arrow(file: InputFile, columns: Columns) -> Rows:
    arrow = import_arrow("pyarrow", f"{file.path}: reading an Arrow file")
    yield from _batches(file, columns, lambda: _arrow_batches(arrow, file))


def _arrow_batches(arrow: Any, file: InputFile) -> Iterator[Any]:
    """Batches of the file form (also called Feather), or of the stream form that ``datasets`` writes."""
    with arrow.memory_map(str(file.path)) as source:
        try:
            reader = arrow.ipc.open_file(source)
            batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
        except arrow.ArrowInvalid:
            source.seek(0)
            batches = iter(arrow.ipc.open_stream(source))
        for batch in batches:
            for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                yield batch.slice(start, ROWS_AT_ONCE)


def _batches(file: InputFile, columns: Columns, batches: Callable[[], Iterator[Any]]) -> Rows:
    arrow = import_arrow("pyarrow", str(file.path))
    number = 0
    try:
        if not file.path.stat().st_size:
            return
        for batch in batches():
            for values in _in_microseconds(arrow, batch).to_pylist():
                number += 1
                yield _row(file, columns, number, values, what="row")
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise InputError(file.path, None, f"cannot be read as {file.form} after row {number}: {error}") from error


def _in_microseconds(arrow: Any, batch: Any) -> Any:
    """The batch with times as Python has them: nanoseconds would be an error, or objects of pandas if that is installed."""

    def coarser(kind: Any) -> Any:
        if getattr(kind, "unit", "") != "ns":
            return kind
        if arrow.types.is_timestamp(kind):
            return arrow.timestamp("us", tz=kind.tz)
        return arrow.duration("us") if arrow.types.is_duration(kind) else arrow.time64("us")

    schema = arrow.schema([field.with_type(coarser(field.type)) for field in batch.schema])
    return batch if schema.equals(batch.schema) else arrow.Table.from_batches([batch]).cast(schema, safe=False)


def _lines(file: InputFile) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers."""
    with opened(file) as handle:
        for number, text in enumerate(_decoded(file, handle), start=1):
            if text.strip():
                yield number, text.rstrip("\r\n")


def _decoded(file: InputFile, handle: IO[bytes]) -> Iterator[str]:
    packed_size = file.path.stat().st_size if file.packing else None
    for number, raw in numbered_lines(handle, functools.partial(InputError, file.path), packed_size):
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            place = f"is not UTF-8 (byte {error.start + 1} of the line)"
            raise InputError(file.path, number, f"{place}. Convert the file, for example with iconv") from error


def _pairs(file: InputFile, number: int, text: str, *, tabular: bool = False) -> Row:
    try:
        return pairs_row(number, parse_line(text, tabular=tabular))
    except ValueError as error:
        header = " A first line that names columns is understood, too" if tabular else ""
        raise InputError(file.path, number, f"{error}. A line is {FORMS}.{header} It reads: {text[:120]!r}") from error


def _row(file: InputFile, columns: Columns, number: int, values: Mapping[str, Any], what: str = "line") -> Row:
    try:
        return columns.row(number, values)
    except ValueError as error:
        if what == "row":
            raise InputError(file.path, None, f"row {number} {error}") from error
        raise InputError(file.path, number, str(error)) from error


def _refuse_repeated(file: InputFile, number: int, names: list[str]) -> None:
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise InputError(file.path, number, f"names the column '{repeated}' twice. Rename one of the two")


def _cells(file: InputFile, number: int, names: list[str], cells: list[str]) -> dict[str, str]:
    if len(cells) != len(names):
        raise InputError(
            file.path, number, f"has {len(cells)} columns, and the first line names {len(names)} ({', '.join(names)})"
        )
    return dict(zip(names, cells, strict=True))


READERS: Mapping[Form, Callable[[InputFile, Columns], Rows]] = {
    "demo": _demo,
    "jsonl": _jsonl,
    "tsv": _tsv,
    "csv": _csv,
    "parquet": _parquet,
    "arrow": _arrow,
}
