"""Arithmetic that several rooms share."""

from __future__ import annotations

import math


def sigmoid(logit: float) -> float:
    """1 / (1 + e^-logit) without overflow at either end."""
    small = math.exp(-abs(logit))
    return 1 / (1 + small) if logit >= 0 else small / (1 + small)
