"""How many pairs are read and sorted together."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from zoo.types import Pair, ShapeRule

FIRST_WINDOW, LARGEST_WINDOW = 16, 4096
"""Pairs. The first window is small, so that the device starts at once and a slow one shows results early."""

PAIRS_A_PARALLEL_BATCH = 4
"""A window holds so many pairs for each batch that runs at the same time, so that no thread is idle at its end."""

SORTED_BATCHES = 8
"""If the rows of a batch are given, a window holds at least so many batches: in fewer there is nothing to sort."""

GROWTH = 1.5
"""A window is at most so much larger than the one before it: it is tokenised while that one is computed."""

WINDOW_SECONDS = 2.0
"""Work in a window, if the device is fast enough: results come about this often."""

REPEATABLE_WINDOW = 1024
"""Pairs that windows grow to if a run must be batched alike each time, whatever the device's speed."""

WINDOW_CHARACTERS, CHARACTERS_AHEAD = 4_000_000, 16_000_000
"""Characters in a window of several batches, and in all windows that have not been given out."""


class WindowSize:
    """Pairs in the next window: whole batches, growing from small ones to ``WINDOW_SECONDS`` of work.

    A session of fixed length gains nothing from sorting, so its window is one batch. ``repeatable`` windows do not depend on the
    device's speed: the same pairs make the same windows in every run. ``sizes`` are windows that were cut before.
    """

    def __init__(
        self, rule: ShapeRule, rows: int | None, *, repeatable: bool = False, sizes: Iterable[int] = ()
    ) -> None:
        self._sizes = iter(sizes)
        self._repeatable = repeatable
        self._unit = rule.rows or rows or 1
        self._fixed = rule.length is not None
        first = max(FIRST_WINDOW, PAIRS_A_PARALLEL_BATCH * rule.parallel_batches)
        self._least = self._unit * SORTED_BATCHES if self._unit > 1 else first
        self._last = max(first, self._unit) / GROWTH
        self._started: float | None = None
        self._scored = 0

    @property
    def unit(self) -> int:
        """Pairs a batch if that is given, else 1."""
        return self._unit

    def next(self) -> int:
        if size := next(self._sizes, 0):
            return size
        if self._fixed:
            return self._unit
        work = REPEATABLE_WINDOW if self._repeatable else self._rate() * WINDOW_SECONDS
        wanted = min(max(work, self._least), max(LARGEST_WINDOW, self._least))
        self._last = min(wanted, self._last * GROWTH)
        # Rounded down, or the second window would be twice the first, and a fast device would wait for it.
        return max(round(self._last) // self._unit, 1) * self._unit

    def start(self) -> None:
        """The device got its first batch."""
        if self._started is None:
            self._started = time.monotonic()

    def scored(self, pairs: int) -> None:
        """So many more pairs have been scored."""
        self._scored += pairs

    def _rate(self) -> float:
        if self._started is None or not self._scored:
            return 0.0
        return self._scored / max(time.monotonic() - self._started, 1e-6)


def take(source: Iterator[Pair], size: WindowSize) -> tuple[list[Pair], int]:
    """The next window of ``source`` and its characters: cut short if passages are long, but at a whole batch."""
    pairs: list[Pair] = []
    characters, wanted = 0, size.next()
    for pair in source:
        pairs.append(pair)
        characters += len(pair.query) + len(pair.passage)
        if len(pairs) >= wanted or (characters >= WINDOW_CHARACTERS and len(pairs) % size.unit == 0):
            break
    return pairs, characters
