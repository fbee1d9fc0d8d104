"""Grammar of messages."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 query``, ``2 queries``, ``1,000 pairs``; ``plural`` is the noun with an s if it is not given."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
