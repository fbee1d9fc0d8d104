"""Arithmetic that several rooms share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def sigmoid(logit: float) -> float:
    """1 / (1 + e^-logit) without overflow at either end."""
    small = math.exp(-abs(logit))
    return 1 / (1 + small) if logit >= 0 else small / (1 + small)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of the values do not exceed (nearest rank); 0 if there are no values."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[max(math.ceil(len(ordered) * share) - 1, 0)]


def spearman(first: Any, second: Any) -> float:
    """Rank correlation; equal values share their mean rank. 1 if there is nothing to rank."""
    import numpy as np

    ranks = [_ranks(np.asarray(values)) for values in (first, second)]
    if min(len(ranks[0]), *(rank.std() > 0 for rank in ranks)) < 1:
        return 1.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: Any) -> Any:
    import numpy as np

    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]
