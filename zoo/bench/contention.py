"""How long the threads of this process wanted a processor and did not have one, because other programs had it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

TASKS = Path("/proc/self/task")


def processor_seconds() -> tuple[float, float] | None:
    """Seconds that all threads so far have computed, and have waited for a processor, as Linux counts them; None elsewhere.

    Source: sched-stats in the kernel's documentation, the first two fields of ``schedstat``, in nanoseconds.
    """
    computed = waited = 0
    try:
        tasks = list(TASKS.iterdir())
    except OSError:
        return None
    found = False
    for task in tasks:
        with suppress(OSError, ValueError):  # a thread that has ended meanwhile
            fields = (task / "schedstat").read_text().split()
            computed, waited, found = computed + int(fields[0]), waited + int(fields[1]), True
    return (computed / 1e9, waited / 1e9) if found else None


def waiting_share(before: tuple[float, float] | None, after: tuple[float, float] | None) -> float | None:
    """Of the time in which threads wanted a processor between two readings, the share in which they had none."""
    if before is None or after is None:
        return None
    computed, waited = (max(late - early, 0.0) for early, late in zip(before, after, strict=True))
    return waited / (computed + waited) if computed + waited else 0.0
