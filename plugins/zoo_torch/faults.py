"""What torch raises, and what it means."""

from __future__ import annotations

import torch

OUT_OF_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory", "not enough memory")
"""What errors say that are not torch.OutOfMemoryError and mean it: of cuBLAS's workspace, of the CPU's allocator."""


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in OUT_OF_MEMORY)


def first_line(error: BaseException) -> str:
    """An error in one line: torch appends C++ stacks and advice."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
