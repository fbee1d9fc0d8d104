"""Grammar of messages."""

from __future__ import annotations

import signal

KILLED = -int(getattr(signal, "SIGKILL", 9))
"""The exit code of a process that the system ended."""
NAMES = {int(each): each.name for each in signal.Signals}
"""Names of signals; most real-time signals have none."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 query``, ``2 queries``, ``1,000 pairs``; ``plural`` is the noun with an s if it is not given."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def ending(code: int) -> str:
    """How a child process ended, by its exit code."""
    if code >= 0:
        return f"ended with exit code {code}"
    memory = ", as the system does to processes that take too much memory" if code == KILLED else ""
    return f"was ended by {NAMES.get(-code, f'signal {-code}')}{memory}"
