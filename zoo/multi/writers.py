"""Result files, by their form: rows in, a file that is complete when the writer is closed."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from zoo.errors import ZooError
from zoo.multi.rows import ADDED, PASSAGE, QUERY, kept_names
from zoo.multi.unpack import import_arrow

OutputForm: TypeAlias = Literal["jsonl", "csv", "parquet"]
OUTPUT_FORMS: tuple[OutputForm, ...] = ("jsonl", "csv", "parquet")

ROWS_AT_ONCE = 1024
"""Rows of a group of a Parquet file."""


class Writer(Protocol):
    """Takes the rows of one result file."""

    def write(self, columns: Mapping[str, Any], added: Sequence[Any]) -> None:
        """One row: the input's columns, then the values of ``ADDED``. Raises ZooError if the form cannot hold it."""
        ...

    def close(self) -> None:
        """Write what is still held."""
        ...


def open_writer(form: OutputForm, path: Path) -> Writer:
    """A writer of a new file ``path``. Raises ZooError or OSError."""
    kinds: dict[OutputForm, type[JsonLines | Csv | Parquet]] = {"jsonl": JsonLines, "csv": Csv, "parquet": Parquet}
    return kinds[form](path)


class JsonLines:
    """One object a line. Each row may have other columns than the one before."""

    def __init__(self, path: Path) -> None:
        self._handle = path.open("wb")
        self._encode = msgspec.json.Encoder().encode
        self._names: list[str] = []
        self._kept: dict[str, str] = {}

    def write(self, columns: Mapping[str, Any], added: Sequence[Any]) -> None:
        if [*columns] != self._names:
            self._names = [*columns]
            self._kept = kept_names(self._names)
        row = {self._kept[name]: value for name, value in columns.items()}
        row.update(zip(ADDED, added, strict=True))
        try:
            line = self._encode(row)
        except (TypeError, ValueError):
            for name, value in columns.items():
                _encoded(name, value)
            raise
        self._handle.write(line + b"\n")

    def close(self) -> None:
        self._handle.close()


class _SameColumns:
    """What the forms with one set of columns share: the first row says which these are."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: dict[str, str] | None = None

    def _checked(self, columns: Mapping[str, Any]) -> list[str] | None:
        """The names of the result's columns at the first row, else None. Raises ZooError for a row of other columns."""
        if self._kept is None:
            self._kept = kept_names([*columns])
            return [*self._kept.values(), *ADDED]
        if columns.keys() != self._kept.keys():
            other = sorted(columns.keys() ^ self._kept.keys())
            raise ZooError(
                f"not all rows have the same columns ({', '.join(other)} is missing in some). Choose the `format` jsonl"
            )
        return None

    def _values(self, columns: Mapping[str, Any]) -> list[Any]:
        assert self._kept is not None
        return [columns[name] for name in self._kept]


class Csv(_SameColumns):
    """Comma-separated values with a header line; lists and objects are JSON in a cell, nothing is an empty cell."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._handle = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._handle, lineterminator="\n")

    def write(self, columns: Mapping[str, Any], added: Sequence[Any]) -> None:
        header = self._checked(columns)
        if header:
            self._writer.writerow(header)
        self._writer.writerow(map(_cell, [*(self._kept or ()), *ADDED], [*self._values(columns), *added]))

    def close(self) -> None:
        if self._kept is None:
            self._writer.writerow([QUERY, PASSAGE, *ADDED])
        self._handle.close()


class Parquet(_SameColumns):
    """A Parquet file; the first rows say which types its columns have."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._arrow = import_arrow("pyarrow", "writing a Parquet file")
        self._parquet = import_arrow("pyarrow.parquet", "writing a Parquet file")
        self._file: Any = None
        self._schema: Any = None
        self._names: list[str] = []
        self._rows: list[list[Any]] = []

    def write(self, columns: Mapping[str, Any], added: Sequence[Any]) -> None:
        self._names = self._checked(columns) or self._names
        self._rows.append([*self._values(columns), *added])
        if len(self._rows) == ROWS_AT_ONCE:
            self._write_group()

    def close(self) -> None:
        try:
            if self._rows or self._file is None:
                self._write_group()
        finally:
            if self._file is not None:
                self._file.close()

    def _write_group(self) -> None:
        arrow = self._arrow
        names = self._names or [QUERY, PASSAGE, *ADDED]
        try:
            values = [arrow.array(column) for column in zip(*self._rows, strict=True)] if self._schema is None else None
            if values is not None:
                self._schema = self._typed(names, [array.type for array in values])
                self._file = self._parquet.ParquetWriter(self._path, self._schema)
            columns = zip(*self._rows, strict=True) if self._rows else [()] * len(names)
            arrays = [arrow.array(column, kind) for column, kind in zip(columns, self._schema.types, strict=True)]
            self._file.write_table(arrow.Table.from_arrays(arrays, schema=self._schema))
        except (arrow.ArrowException, OverflowError) as error:
            raise ZooError(
                f"a column cannot be written as Parquet, whose columns have one type ({error}). Choose the `format` jsonl"
            ) from error
        self._rows = []

    def _typed(self, names: Sequence[str], types: Sequence[Any]) -> Any:
        """The schema of ``names``: a column without values is text, and the added columns have their own types."""
        arrow = self._arrow
        added = dict(zip(ADDED, (arrow.float32(), arrow.float64(), arrow.int64(), arrow.bool_()), strict=True))
        seen = dict(zip(names, types, strict=False))
        return arrow.schema([
            (name, added.get(name) or (arrow.string() if arrow.types.is_null(seen.get(name, arrow.null())) else seen[name]))
            for name in names
        ])  # fmt: skip


def _cell(name: str, value: Any) -> Any:
    if value is None or (isinstance(value, (str, int, float)) and not isinstance(value, bool)):
        return value
    return _encoded(name, value).decode()


def _encoded(name: str, value: Any) -> bytes:
    """The value of a column as JSON. Raises ZooError."""
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError) as error:
        raise ZooError(
            f"a value of the column '{name}' cannot be written as JSON ({error}). Leave the column out"
        ) from error
