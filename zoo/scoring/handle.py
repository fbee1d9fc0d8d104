"""The pairs of one caller in a ``ScoringQueue``, and what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoo.errors import TooLongError
from zoo.types import Encodings, Pair, Scores


@dataclass(eq=False)
class Handle:
    """The pairs of one call. ``result`` waits for their scores; ``cancel`` drops those that are not computed yet.

    Times are those of ``time.monotonic``, in seconds. Counts grow while the pairs are worked on and are whole when the result is there.
    """

    pairs: Sequence[Pair]
    deadline: float | None
    truncate: bool
    _drop: Callable[[Handle, BaseException], None] = field(repr=False)
    tokens: int = 0
    passages_truncated: int = 0
    queries_truncated: int = 0
    truncated: int = 0
    """Pairs of which one text at least was cut."""
    unknown: int = 0
    """Tokens that the model's vocabulary does not know."""
    started: int = 0
    """Pairs that the device has been given."""
    submitted: float = field(default_factory=time.monotonic)
    tokenising: float = 0.0
    """Seconds spent on tokenising these pairs."""
    first_started: float | None = None
    """When the device was given the first of them."""
    finished: float | None = None
    """When the result or the error was there."""
    _scores: Any = field(default=None, repr=False)
    _missing: int = 0
    _future: Future[Scores] = field(default_factory=Future, repr=False)

    def __post_init__(self) -> None:
        self._scores = np.full(len(self.pairs), np.nan, dtype=np.float32)
        self._missing = len(self.pairs)
        if not self.pairs:
            self._end(lambda: self._future.set_result(self._scores))

    def result(self, timeout: float | None = None) -> Scores:
        """float32 logits of shape (n,), in the order of the pairs. Raises what went wrong with them, TimeoutError after ``timeout`` s."""
        return self._future.result(timeout)

    def done(self) -> bool:
        return self._future.done()

    def cancel(self) -> None:
        """Drop the pairs that the device does not have yet. ``result`` then raises CancelledError."""
        self._drop(self, CancelledError())

    def add_done_callback(self, callback: Callable[[Handle], None]) -> None:
        """Call ``callback`` with this handle when the result is there, or the error; at once if it is there already."""
        self._future.add_done_callback(lambda _: callback(self))

    def fail(self, error: BaseException) -> None:
        """End it with ``error``, unless it has ended."""
        self._end(lambda: self._future.set_exception(error))

    def count(self, start: int, encodings: Encodings) -> None:
        """Take in how the pairs from ``start`` on were tokenised. Raises TooLongError if they must not be truncated and were."""
        self.tokens += sum(row.length for row in encodings.rows)
        self.passages_truncated += sum(row.passage_truncated for row in encodings.rows)
        self.queries_truncated += sum(row.query_truncated for row in encodings.rows)
        self.unknown += sum(row.unknown for row in encodings.rows)
        cut = [place for place, row in enumerate(encodings.rows) if row.passage_truncated or row.query_truncated]
        self.truncated += len(cut)
        if cut and not self.truncate:
            raise TooLongError(start + cut[0], encodings.rows[cut[0]].length)

    def take(self, index: int, score: float) -> None:
        """The score of one pair."""
        self._scores[index] = score
        self._missing -= 1
        if not self._missing:
            self._end(lambda: self._future.set_result(self._scores))

    def _end(self, settle: Callable[[], None]) -> None:
        if self.finished is None:
            self.finished = time.monotonic()
        with suppress(InvalidStateError):  # it has ended otherwise: cancelled, late, or failed
            settle()
