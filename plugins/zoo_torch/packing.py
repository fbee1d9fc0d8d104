"""Padded batches to packed ones: the real tokens of all rows, end to end, with the borders between rows. numpy alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zoo.api import Tensors, ZooError

Integers: TypeAlias = NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class HostBatch:
    """What goes to the card for one batch: int32 arrays by name, and what the host knows of their shape."""

    arrays: Mapping[str, Integers]
    rows: int
    tokens: int
    """Real tokens when packed, slots when padded: what is computed."""
    longest: int


def pack(inputs: Tensors) -> HostBatch:
    """The rows of ``inputs`` end to end, in their order.

    ``inputs``: int64 arrays of shape (rows, length) by name, with ``attention_mask`` 1 for tokens that count. The result has, by the same
    names, int32 arrays of shape (tokens,); ``places``, each token's place in its row; and ``borders``, shape (rows + 1,), so that row i is
    ``borders[i]:borders[i + 1]``. Raises ZooError for a row without tokens.
    """
    shown = inputs["attention_mask"] != 0
    lengths = shown.sum(axis=1, dtype=np.int32)
    if not lengths.all():
        raise ZooError(f"row {int(np.argmin(lengths))} of a batch has no tokens")
    borders = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=borders[1:])
    arrays = {name: array[shown].astype(np.int32) for name, array in inputs.items() if name != "attention_mask"}
    places = np.arange(borders[-1], dtype=np.int32) - np.repeat(borders[:-1], lengths)
    return HostBatch(
        arrays={**arrays, "places": places, "borders": borders},
        rows=len(lengths),
        tokens=int(borders[-1]),
        longest=int(lengths.max()),
    )


def padded_slots(batch: HostBatch) -> Integers:
    """Where each token of a packed batch lies in a (rows, longest) rectangle, counted row by row; shape (tokens,)."""
    borders = batch.arrays["borders"]
    starts = np.arange(batch.rows, dtype=np.int32) * batch.longest
    slots: Integers = batch.arrays["places"] + np.repeat(starts, np.diff(borders))
    return slots


def roberta_positions(batch: HostBatch, padding: int) -> Integers:
    """Positions as RoBERTa counts them: from ``padding + 1`` in each row; a padding token inside a text has ``padding`` and is not counted.

    Source: transformers, ``create_position_ids_from_input_ids``.
    """
    ids, places = batch.arrays["input_ids"], batch.arrays["places"]
    counted = ids != padding
    if counted.all():  # nearly always: users do not write <pad>
        return np.asarray(places + (padding + 1), dtype=np.int32)
    borders = batch.arrays["borders"]
    running = np.cumsum(counted, dtype=np.int32)
    before = np.concatenate([np.zeros(1, np.int32), running])[borders[:-1]]
    return np.asarray((running - np.repeat(before, np.diff(borders))) * counted + padding, dtype=np.int32)


def check_below(name: str, values: NDArray[Any], limit: int) -> None:
    """Raises ZooError for a value that a table of ``limit`` rows does not have: on a card that look-up would end the process's context."""
    if len(values) and (int(values.max()) >= limit or int(values.min()) < 0):
        worst = int(values.max()) if int(values.max()) >= limit else int(values.min())
        raise ZooError(f"a batch has {name} {worst}; the model knows 0 to {limit - 1}")
