"""Scores that somebody computed before, as Tecorigin's pages offer them for download, and how far a run is from them.

Its ``example_valid.py`` reads ``FOLDER/MODEL/MODEL_bsN_onnx.npy`` (one logit a pair, by ONNX Runtime, N rows a batch) and prints the error
figure of ``zoo.checks.bounds`` as ``eval_metric``.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.checks.bounds import output_error
from zoo.errors import ZooError

logger = logging.getLogger(__name__)


class ExpectedScores:
    """Collects a run's logits in the order of its input, as many as were expected, and tells their error at the end."""

    def __init__(self, path: Path, expected: NDArray[np.float64]) -> None:
        self._path, self._expected = path, expected
        self._logits: list[float] = []
        self._pairs = 0

    def add(self, logits: list[float]) -> None:
        self._pairs += len(logits)
        self._logits += logits[: max(len(self._expected) - len(self._logits), 0)]

    def report(self) -> None:
        """The error figure, if there is an expected score for each pair. A longer file is cut, as Tecorigin's program does."""
        if self._pairs > len(self._expected):
            logger.warning(
                "eval_metric is not computed: %s has %d scores, and the input has %d pairs",
                self._path, len(self._expected), self._pairs,
            )  # fmt: skip
            return
        error = output_error(self._logits, self._expected[: self._pairs])
        logger.info("eval_metric: %s, the error of %d scores against %s", error, self._pairs, self._path)


def read_expected(folder: Path, model: str, batch_size: int | None) -> ExpectedScores | None:
    """The scores in ``folder`` for ``model``; None if it has none. Raises ZooError for a file that is not one."""
    exact = folder / model / f"{model}_bs{batch_size}_onnx.npy"
    # Scores do not depend on the batch, so those of another one serve as well.
    path = exact if exact.is_file() else next(iter(sorted(exact.parent.glob(f"{model}_bs*_onnx.npy"))), None)
    if path is None:
        return None
    try:
        content = np.load(path, allow_pickle=False)
        return ExpectedScores(path, np.asarray(content, dtype=np.float64).reshape(-1))
    except (OSError, ValueError, EOFError) as error:
        raise ZooError(f"{path} cannot be read as a NumPy file of scores: {error}") from error
