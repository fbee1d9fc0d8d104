"""How many tokens go into a batch: as many as keep the device busy, and no more than its memory holds."""

from __future__ import annotations

from dataclasses import dataclass

from zoo_torch.model import Cost

WORK = 0.15e12
"""Floating-point operations of a batch for each multiprocessor of a card. 132 of them make 20 TFLOP: 32,768 tokens of 24 layers of 1,024,
which an H100 computes in 50 ms. Batches of 16,384 tokens ran at 0.97 of that speed, of 8,192 at 0.85, where the host could not follow."""

MOST_TOKENS, LEAST_TOKENS = 131_072, 1_024
"""Bounds for models so small, or so large, that the work alone would give a useless number."""

MEMORY_SHARE = 0.7
"""Share of the free memory that activations may take by our estimate; the rest is for fragments and what libraries hold."""

CARD_ROWS = 4_096
"""Rows of a batch at most: a card is busy with tokens, however short the rows they come in, and each row costs the host a little."""

CPU_ROWS = 32
"""The same on a CPU, where more rows gain nothing."""

CPU_TOKENS = 512
"""Tokens of a batch on a CPU, where one pair of that length keeps its cores busy and longer batches are padded more."""


@dataclass(frozen=True)
class Budget:
    """``wanted``: tokens of the batches that are asked for, in ``rows`` rows at most.

    ``limit``: tokens of the batches that are computed at once, whoever asked for more.
    """

    wanted: int
    limit: int
    rows: int


def for_card(cost: Cost, free: int, multiprocessors: int, asked: int | None) -> Budget:
    """For a card with ``free`` bytes of memory once the weights are there. ``asked`` is the user's own number."""
    limit = max(int(free * MEMORY_SHARE / cost.bytes), 1)
    work = int(WORK * multiprocessors / cost.operations)
    wanted = asked or min(max(_round(work), LEAST_TOKENS), MOST_TOKENS)
    return Budget(wanted=min(wanted, limit), limit=limit, rows=CARD_ROWS)


def for_cpu(asked: int | None) -> Budget:
    """For the CPU, whose memory the system manages: no limit but what was asked for."""
    wanted = asked or CPU_TOKENS
    return Budget(wanted=wanted, limit=max(wanted, MOST_TOKENS), rows=CPU_ROWS)


def _round(tokens: int) -> int:
    """Down to a multiple of 1,024, so that the same card and model give the same number."""
    return tokens // 1024 * 1024
