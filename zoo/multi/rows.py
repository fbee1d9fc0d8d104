"""A row of a table and the pairs in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from zoo.types import Pair

QUERY, PASSAGE, INSTRUCTION = "query", "passage", "instruction"
QUERIES = (QUERY,)
PASSAGES = (PASSAGE, "passages", "text", "document", "documents")
"""Columns that hold the passage, or a list of passages, if the user names none: the first that is there."""

ADDED = ("logit", "score", "rank", "truncated")
"""The columns of a result that the input does not have."""


class Row(NamedTuple):
    """One row of an input: ``number`` counts lines or rows from 1. ``columns`` are kept in the result, once for each of ``pairs``.

    ``query`` and ``passage`` are the columns that get each pair's own texts.
    """

    number: int
    columns: Mapping[str, Any]
    query: str
    passage: str
    pairs: Sequence[Pair]


@dataclass(frozen=True)
class Columns:
    """Which columns hold query and passage; empty means the usual names."""

    query: str = ""
    passage: str = ""

    def row(self, number: int, columns: Mapping[str, Any]) -> Row:
        """The row of these columns. Raises ValueError if it has no query or no passage, or if they are not texts.

        A column ``instruction`` is for models that read one.
        """
        query = self._found(columns, self.query, QUERIES, "query")
        passage = self._found(columns, self.passage, PASSAGES, "passage")
        text, passages = columns[query], columns[passage]
        if not isinstance(text, str):
            raise ValueError(f"has {_kind(text)} in the column '{query}', not a text")
        texts = passages if isinstance(passages, (list, tuple)) else [passages]
        for each in texts:
            if not isinstance(each, str):
                raise ValueError(f"has {_kind(each)} in the column '{passage}', not a text or a list of texts")
        instruction = columns.get(INSTRUCTION) or ""
        if not isinstance(instruction, str):
            raise ValueError(f"has {_kind(instruction)} in the column '{INSTRUCTION}', not a text")
        return Row(number, columns, query, passage, [Pair(text, each, instruction) for each in texts])

    def read(self, names: Sequence[str]) -> list[str]:
        """Those of a table's columns that make its pairs."""
        wanted = {*((self.query,) if self.query else QUERIES), *((self.passage,) if self.passage else PASSAGES)}
        return [name for name in names if name in wanted or name == INSTRUCTION]

    def in_header(self, names: Sequence[str]) -> bool:
        """Whether these first cells of a table are names of columns, query and passage among them."""
        wanted = [(self.query,) if self.query else QUERIES, (self.passage,) if self.passage else PASSAGES]
        return all(any(name in names for name in choices) for choices in wanted)

    @staticmethod
    def _found(columns: Mapping[str, Any], given: str, usual: Sequence[str], what: str) -> str:
        for name in (given,) if given else usual:
            if name in columns:
                return name
        sought = f"'{given}'" if given else " or ".join(f"'{name}'" for name in usual)
        raise ValueError(
            f"has no column {sought} for the {what}; it has {', '.join(map(str, columns)) or 'none'}. `columns` says which one it is"
        )


def pairs_row(number: int, pairs: Sequence[Pair]) -> Row:
    """The row of a line that names no columns."""
    return Row(number, {QUERY: "", PASSAGE: ""}, QUERY, PASSAGE, pairs)


def kept_names(names: Sequence[str]) -> dict[str, str]:
    """What each input column is called in the result: its own name, or ``input_<name>`` if the result adds a column of that name."""
    taken = {*names, *ADDED}
    kept: dict[str, str] = {}
    for name in names:
        other = name
        while other in ADDED or (other != name and other in taken):
            other = f"input_{other}"
        taken.add(other)
        kept[name] = other
    return kept


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a value of the type {type(value).__name__}"
