"""Encodings to padded batches: sorted by length, shaped as the session wants them.

Padding is the largest lossless cost of a CPU run: unsorted batches of 8 ran at 0.55 times the speed of pairs scored one
by one (24 pairs of 32 to 512 tokens, 568 M parameters, float32).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.errors import PluginError
from zoo.types import Encodings, ShapeRule, Tensors

DEFAULT_TOKENS = 4096
"""Slots of a batch where neither the user says how many rows nor the session how many slots."""


AUTO_ROWS = 32
"""Rows of a batch at most where the user does not say how many: more of them gain nothing, however short they are."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Padded inputs, and which encodings their rows are; rows past ``len(indices)`` only fill the shape."""

    indices: Sequence[int]
    inputs: Tensors
    tokens: int
    """Real tokens of the rows that count."""
    slots: int
    """Rows times padded length: what the device computes."""


def batches(encodings: Encodings, rule: ShapeRule, rows: int | None, input_names: Sequence[str]) -> Iterator[Batch]:
    """Batches of at most ``rows`` rows, or where that is None of as many as the rule's token budget holds, 32 at most.

    The longest pairs come first, so that the largest batch is the first and memory never grows after it.
    """
    lengths = np.fromiter((row.length for row in encodings.rows), dtype=np.int64, count=len(encodings.rows))
    order = np.argsort(-lengths, kind="stable").tolist()
    start = 0
    while start < len(order):
        length = padded_length(int(lengths[order[start]]), rule)
        fitting = max((rule.tokens or DEFAULT_TOKENS) // length, 1)
        chosen = order[start : start + (rule.rows or rows or min(fitting, AUTO_ROWS))]
        yield collate(encodings, chosen, rule, length, input_names)
        start += len(chosen)


def padded_length(longest: int, rule: ShapeRule) -> int:
    """The length a batch with ``longest`` tokens is padded to."""
    if rule.length is not None:
        if longest > rule.length:
            raise PluginError(f"a pair of {longest} tokens does not fit the session's fixed length of {rule.length}")
        return rule.length
    return -(-longest // rule.length_multiple) * rule.length_multiple


def collate(
    encodings: Encodings, indices: Sequence[int], rule: ShapeRule, length: int, input_names: Sequence[str]
) -> Batch:
    """Pad the encodings ``indices`` on the right to ``length``; a fixed row count is filled by repeating the last row."""
    chosen = [encodings.rows[index] for index in indices]
    rows = [*chosen, *[chosen[-1]] * ((rule.rows or 0) - len(chosen))]
    inputs = {}
    for name in input_names:
        if name == "attention_mask":
            array = np.zeros((len(rows), length), dtype=np.int64)
            for target, row in zip(array, rows, strict=True):
                target[: row.length] = 1
        elif name in encodings.padding:
            array = np.full((len(rows), length), encodings.padding[name], dtype=np.int64)
            for target, row in zip(array, rows, strict=True):
                target[: row.length] = row.features[name]
        else:
            made = ", ".join(["attention_mask", *sorted(encodings.padding)])
            raise PluginError(
                f"the model file asks for the input '{name}', which preprocess does not make (it makes {made})"
            )
        inputs[name] = array
    return Batch(indices=indices, inputs=inputs, tokens=sum(row.length for row in chosen), slots=len(rows) * length)
