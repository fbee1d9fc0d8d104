"""Positions as distances: the buckets that distances fall into, and tensors that are laid out by distance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zoo_direct import float32
from zoo_direct.form import Form


@dataclass(frozen=True)
class Distances:
    """A row number for each distance: ``rows[distance + limit]``; distances past the limit have the row of the limit."""

    rows: Sequence[int]

    @classmethod
    def of(cls, row: Callable[[int], int], limit: int) -> Distances:
        return cls([row(distance) for distance in range(-limit, limit + 1)])

    @property
    def limit(self) -> int:
        return len(self.rows) // 2

    def of_tensor(self, form: Form, distances: str) -> str:
        """The rows of a tensor of distances, in a tensor of its shape."""
        graph = form.graph
        within = form.add("Min", form.add("Max", distances, graph.integer(-self.limit)), graph.integer(self.limit))
        return form.add("Gather", graph.integers(*self.rows), form.add("Add", within, graph.integer(self.limit)))


def deberta_bucket(distance: int, buckets: int, furthest: int) -> int:
    """DeBERTa-v2's: exact up to half the number of buckets, on a logarithmic scale up to ``furthest`` behind."""
    middle = buckets // 2
    size = abs(distance)
    if size <= middle:
        return distance
    share = float32.rounded(float32.log(size / middle) / float32.log((furthest - 1) / middle))
    bucket = math.ceil(float32.rounded(share * (middle - 1))) + middle
    return bucket if distance > 0 else -bucket


def mpnet_bucket(distance: int, buckets: int, furthest: int) -> int:
    """MPNet's, as T5 has them: half for keys ahead of the query; of each half a half exact, the rest logarithmic up to ``furthest``."""
    half, size = buckets // 2, abs(distance)
    exact = half // 2
    if size >= exact:
        share = float32.rounded(float32.log(size / exact) / float32.rounded(math.log(furthest / exact)))
        size = min(exact + int(float32.rounded(share * (half - exact))), half - 1)
    return size + (half if distance > 0 else 0)


def by_distance(form: Form, products: str) -> str:
    """(batch, head, token, 2 * length) by distance as (batch, head, token, length) by token.

    Row r holds a number for each distance from -(length - 1) to length; column c of the result is the one for the distance c - r. Laid end
    to end, these are a fixed step apart: 2 * length - 1 from row to row, from length - 1 on. So the same numbers are cut into rows of
    another length.
    """
    graph, length = form.graph, form.length_vector()
    flat = form.add("Reshape", products, graph.integers(0, 0, -1))

    def cuts() -> str:
        return form.add("Sub", form.add("Mul", length, graph.integers(2)), graph.integers(1))

    step = form.once("step", cuts)  # 2 * length - 1
    begin = form.once("begin", lambda: form.add("Sub", length, graph.integers(1)))
    end = form.once("end", lambda: form.add("Add", begin, form.add("Mul", length, step)))
    shape = form.once("rows by distance", lambda: form.add("Concat", graph.integers(0, 0), length, step, axis=0))
    rows = form.add("Reshape", form.add("Slice", flat, begin, end, graph.integers(2)), shape)
    return form.add("Slice", rows, graph.integers(0), length, graph.integers(3))
