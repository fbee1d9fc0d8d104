"""Lengths of a model's axes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Widths:
    """``inner``: of the feed-forward's middle. ``eps``: of the normalisations."""

    heads: int
    hidden: int
    inner: int
    eps: float

    @property
    def size(self) -> int:
        """Of one head."""
        return self.hidden // self.heads
