"""float32 arithmetic in plain Python, for constants that a model computes in float32 before it rounds them to integers or powers."""

from __future__ import annotations

import math
import struct


def rounded(value: float) -> float:
    """The float32 next to ``value``."""
    (nearest,) = struct.unpack("<f", struct.pack("<f", value))
    return float(nearest)


def log(value: float) -> float:
    """The logarithm of a float32, rounded to one."""
    return rounded(math.log(rounded(value)))
