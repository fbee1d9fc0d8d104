"""A batch as it was handed in: computed whole, or in parts where the device's memory does not hold it."""

from __future__ import annotations

import logging
from concurrent.futures import Future, InvalidStateError

import numpy as np
from numpy.typing import NDArray

from zoo.api import Tensors, ZooError

logger = logging.getLogger("zoo.torch")

OUTPUT = "logits"
Rows = tuple[int, int]
"""The first row of a part, and the one behind its last."""


class Job:
    """Inputs of shape (rows, length), and the logits that have come in for their rows."""

    def __init__(self, inputs: Tensors) -> None:
        self.inputs = inputs
        self.future: Future[Tensors] = Future()
        self.lengths: NDArray[np.int64] = (inputs["attention_mask"] != 0).sum(axis=1)
        self._logits = np.empty((len(self.lengths), 1), dtype=np.float32)
        self._missing = len(self.lengths)

    @property
    def rows(self) -> Rows:
        return 0, len(self.lengths)

    def parts(self, rows: Rows, limit: int) -> list[Rows]:
        """``rows`` cut so that a part has at most ``limit`` slots (rows times its longest row); a row is never cut."""
        parts: list[Rows] = []
        first, longest = rows[0], 0
        for row in range(*rows):
            longest = max(longest, int(self.lengths[row]))
            if row > first and (row + 1 - first) * longest > limit:
                parts.append((first, row))
                first, longest = row, int(self.lengths[row])
        return [*parts, (first, rows[1])]

    def part(self, rows: Rows) -> Tensors:
        return {name: array[rows[0] : rows[1]] for name, array in self.inputs.items()}

    def take(self, rows: Rows, logits: NDArray[np.float32]) -> None:
        """Results of ``rows``, shape (rows,). The future is complete when the last ones have come."""
        self._logits[rows[0] : rows[1], 0] = logits
        self._missing -= rows[1] - rows[0]
        if not self._missing:
            try:
                self.future.set_result({OUTPUT: self._logits})
            except InvalidStateError:
                logger.debug("the last part of a batch came back after the batch had failed")

    def fail(self, error: ZooError) -> None:
        try:
            self.future.set_exception(error)
        except InvalidStateError:
            logger.debug("a part of a batch failed after the batch had: %s", error)
