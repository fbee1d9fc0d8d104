"""Rank correlation."""

from __future__ import annotations

from typing import Any

import numpy as np


def spearman(first: Any, second: Any) -> float:
    """Rank correlation; equal values share their mean rank. 1 where there is nothing to rank."""
    ranks = [_ranks(np.asarray(values)) for values in (first, second)]
    if min(len(ranks[0]), *(rank.std() > 0 for rank in ranks)) < 1:
        return 1.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: Any) -> Any:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]
