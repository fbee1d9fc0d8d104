"""Passages longer than the model reads, scored in overlapping chunks whose scores are put together.

Works with any model: what a piece of text costs in tokens is learnt from the run's own ``preprocess``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Literal, TypeAlias

from zoo.errors import ZooError
from zoo.registry.stages import Pipeline
from zoo.types import Pair

LongDoc: TypeAlias = Literal["truncate", "max", "mean"]

PIECE = re.compile(r"\s*\S{1,24}(?:\s+\S{1,24}(?=\s|$)){0,7}\s*|\s+")
"""Up to eight words, or 24 characters of a script without blanks: small enough to fill a chunk well."""

WORD = re.compile(r"\s*\S{1,24}\s*|\s+")
"""The same, a word at a time."""

OVERLAP = 1 / 8
"""Share of a chunk that the next one repeats, so that an answer on a border is whole in one of the two."""

AGGREGATES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "max": max,
    "mean": lambda scores: sum(scores) / len(scores),
}


class Chunker:
    """Cuts a passage so that each chunk fits beside the query."""

    def __init__(self, pipeline: Pipeline, max_length: int) -> None:
        self._pipeline, self._max_length = pipeline, max_length
        measured = functools.partial(self._measured, PIECE)
        self._pieces = lru_cache(maxsize=1024)(measured)  # a passage is often a candidate of several queries
        self._cost = lru_cache(maxsize=1024)(self._query_cost)

    def chunks(self, pair: Pair) -> list[Pair]:
        """The pair itself where it fits, else the same query with one chunk after another."""
        pieces, costs = self._pieces(pair.passage)
        cost = self._cost(pair.query, pair.instruction)
        room = self._max_length - cost
        if sum(costs) <= room or len(pieces) < 2:
            return [pair]
        if room < 1:
            raise _no_room(cost)
        return [pair._replace(passage="".join(pieces[first:last])) for first, last in spans(costs, room)]

    def beginning(self, pair: Pair) -> Pair:
        """The pair with as much of its passage's beginning, up to a word's end, as fits beside the query."""
        if not pair.passage:
            return pair
        cost = self._cost(pair.query, pair.instruction)
        if cost >= self._max_length:
            raise _no_room(cost)
        return pair._replace(passage=self.head(pair.passage, self._max_length - cost))

    def head(self, text: str, tokens: int) -> str:
        """The beginning of ``text``, up to a word's end, that has at most ``tokens`` tokens."""
        whole, left = "", tokens
        for pattern in (PIECE, WORD):
            pieces, costs = self._measured(pattern, text[len(whole) :])
            end = _reach([0, *accumulate(costs)], 0, left)
            whole, left = whole + "".join(pieces[:end]), left - sum(costs[:end])
            if end == len(pieces):
                break
        return whole

    def _measured(self, pattern: re.Pattern[str], passage: str) -> tuple[list[str], list[int]]:
        """Pieces that together are the passage, and an upper bound of each one's tokens."""
        pieces = pattern.findall(passage)
        if not pieces:
            return [passage], [0]
        lengths = [row.length for row in self._pipeline.preprocess([Pair("", text) for text in ("", *pieces)]).rows]
        return pieces, [length - lengths[0] for length in lengths[1:]]

    def _query_cost(self, query: str, instruction: str) -> int:
        return self._pipeline.preprocess([Pair(query, "", instruction)]).rows[0].length


def _no_room(cost: int) -> ZooError:
    return ZooError(f"a query of {cost} tokens leaves no room for a passage: lower `query_max_length`")


def spans(costs: Sequence[int], room: int) -> Iterator[tuple[int, int]]:
    """Ranges of pieces of at most ``room`` tokens each (a single piece may be more), each repeating the end of the one before."""
    total = [0, *accumulate(costs)]
    first = last = 0
    while last < len(costs):
        last = max(_reach(total, first, room), last + 1)
        yield first, last
        begun, first = first, last
        while first - 1 > begun and total[last] - total[first - 1] <= room * OVERLAP:
            first -= 1


def _reach(total: Sequence[int], first: int, room: int) -> int:
    last = first
    while last + 1 < len(total) and total[last + 1] - total[first] <= room:
        last += 1
    return last


def aggregate(scores: Sequence[float], how: LongDoc) -> float:
    """One score for a passage from its chunks'."""
    return scores[0] if len(scores) == 1 else AGGREGATES[how](scores)
