"""What torch raises, and what it means."""

from __future__ import annotations

import torch

from zoo.api import ScoreError

OUT_OF_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory", "not enough memory")
"""What errors say that are not torch.OutOfMemoryError and mean it: of cuBLAS's workspace, of the CPU's allocator."""


class NotFiniteError(ScoreError):
    """A logit is NaN or infinite; ``row`` is its row in the batch."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row

    def __reduce__(self) -> tuple[type[NotFiniteError], tuple[str, int]]:
        return NotFiniteError, (str(self), self.row)


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in OUT_OF_MEMORY)


def first_line(error: BaseException) -> str:
    """An error in one line: torch appends C++ stacks and advice."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
