"""Numbers as people write them in files and options: ASCII digits alone, where Python's own ``int`` takes ``1_0`` and ``１２８`` too."""

from __future__ import annotations

import re

WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def whole_number(text: str) -> int | None:
    """``text`` as an integer of at most 18 digits, in ASCII alone; None if it is not one."""
    return int(text) if WHOLE.fullmatch(text) else None


def decimal_number(text: str) -> float | None:
    """``text`` as a number, in ASCII alone and without underscores; None if it is not one."""
    return float(text) if DECIMAL.fullmatch(text) else None
