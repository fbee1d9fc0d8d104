"""8-bit floats: torch's ``float8_e4m3fn``, safetensors' ``F8_E4M3`` (Micikevicius et al., FP8 formats for deep learning, 2022)."""

from __future__ import annotations

import math


def _value(byte: int) -> float:
    """A sign, four bits of exponent around 7, three of fraction. Without infinities: only all ones are no number."""
    exponent, fraction = byte >> 3 & 15, byte & 7
    if (exponent, fraction) == (15, 7):
        return math.nan
    size = math.ldexp(fraction, -9) if exponent == 0 else math.ldexp(8 + fraction, exponent - 10)
    return -size if byte & 128 else size


E4M3 = tuple(_value(byte) for byte in range(256))
"""What each byte stands for; every value is a float32 as it is."""
