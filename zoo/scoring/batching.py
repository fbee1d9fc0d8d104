"""Encodings to padded batches: sorted by length, shaped as the session wants them.

Padding is the largest lossless cost of a CPU run: unsorted batches of 8 ran at 0.55 times the speed of pairs scored one
by one (24 pairs of 32 to 512 tokens, 568 M parameters, float32).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import PluginError
from zoo.types import BatchInfo, Encodings, ShapeRule, Tensors

DEFAULT_TOKENS = 4096
"""Slots of a batch if neither the user says how many rows nor the session how many slots."""

MASK = "attention_mask"


@dataclass(frozen=True, kw_only=True)
class Features:
    """What becomes of features that a session does not want, and of inputs that no feature gives."""

    optional: frozenset[str] = frozenset({"token_type_ids"})
    """These are dropped if the session does not want them; any other is an error."""
    supplies: Callable[[str], bool] = lambda name: False
    """Whether the architecture's own ``infer`` gives an input."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Padded inputs, and which encodings their rows are; rows past ``len(indices)`` only fill the shape."""

    indices: Sequence[int]
    inputs: Tensors
    info: BatchInfo
    slots: int
    """Tokens that the device computes: rows times padded length, shared leading tokens counted once."""

    @property
    def tokens(self) -> int:
        """Real tokens of the rows that count."""
        return self.info.tokens

    @functools.cached_property
    def key(self) -> str:
        """A name for the batch by the content of its inputs."""
        return digest(self.inputs)


def digest(inputs: Tensors) -> str:
    """A name for a padded batch: equal for equal inputs, whatever their order."""
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(inputs):
        array = inputs[name]
        state.update(f"{name} {array.dtype} {array.shape};".encode())
        state.update(array.tobytes())
    return state.hexdigest()


def batches(
    encodings: Encodings,
    rule: ShapeRule,
    rows: int | None,
    input_names: Sequence[str] | None,
    features: Features | None = None,
) -> Iterator[Batch]:
    """Batches of at most ``rows`` rows or, if that is None, of as many as the rule's token budget holds.

    The longest pairs come first, so that the largest batch is the first and memory never grows after it. ``input_names`` None
    takes every feature.
    """
    names = wanted_inputs(encodings, input_names, features or Features())
    for chosen in divided(encodings, rule, rows):
        length = padded_length(max(encodings.rows[index].length for index in chosen), rule)
        yield collate(encodings, chosen, rule, length, names)


def divided(encodings: Encodings, rule: ShapeRule, rows: int | None) -> Iterator[list[int]]:
    """Which encodings are computed together: their indices, batch by batch."""
    lengths = np.fromiter((row.length for row in encodings.rows), dtype=np.int64, count=len(encodings.rows))
    order = _order(encodings, lengths)
    start = 0
    while start < len(order):
        count = rule.rows or rows or _fitting(encodings, order, start, lengths, rule)
        yield order[start : start + count]
        start += count


def _order(encodings: Encodings, lengths: NDArray[np.int64]) -> list[int]:
    """The longest rows first; rows of one group together, the group with the longest row first."""
    if encodings.groups is None:
        return np.argsort(-lengths, kind="stable").tolist()  # type: ignore[no-any-return]
    longest: dict[int, int] = {}
    for group, length in zip(encodings.groups, lengths.tolist(), strict=True):
        longest[group] = max(longest.get(group, 0), length)
    groups = encodings.groups
    return sorted(range(len(lengths)), key=lambda i: (-longest[groups[i]], groups[i], -lengths[i]))


def _fitting(
    encodings: Encodings, order: Sequence[int], start: int, lengths: NDArray[np.int64], rule: ShapeRule
) -> int:
    """How many rows from ``start`` on the token budget holds, shared tokens counted once a group."""
    budget = rule.tokens or DEFAULT_TOKENS
    count, longest, seen = 0, 0, set[int]()
    fixed = saved = 0
    for index in order[start : start + rule.auto_rows]:
        longest = max(longest, int(lengths[index]))
        if encodings.groups is not None and encodings.shared is not None:
            group, shared = encodings.groups[index], encodings.shared[index]
            saved += shared
            fixed += 0 if group in seen else shared
            seen.add(group)
        if count and padded_length(longest, rule) * (count + 1) - saved + fixed > budget:
            break
        count += 1
    return max(count, 1)


def padded_length(longest: int, rule: ShapeRule) -> int:
    """The length a batch with ``longest`` tokens is padded to."""
    if rule.length is not None:
        if longest > rule.length:
            raise PluginError(f"a pair of {longest} tokens does not fit the session's fixed length of {rule.length}")
        return rule.length
    if rule.length_multiple < 1:
        raise PluginError(f"a session's length_multiple is {rule.length_multiple}; it must be 1 or more")
    return -(-longest // rule.length_multiple) * rule.length_multiple


def wanted_inputs(encodings: Encodings, input_names: Sequence[str] | None, features: Features) -> list[str]:
    """The inputs to make. Raises PluginError for one that nobody gives, and for a feature that would be lost."""
    if not encodings.rows:
        return []
    made = list(encodings.rows[0].features)
    if input_names is None:
        return [*made, MASK]
    lost = [name for name in made if name not in input_names and name not in features.optional]
    if lost:
        raise PluginError(
            f"preprocess makes the feature '{lost[0]}', which the model file does not ask for (it asks for {', '.join(input_names)}). "
            "If the model can do without it, name it in the architecture's optional_features"
        )
    wanted = [name for name in input_names if not features.supplies(name)]
    missing = [name for name in wanted if name != MASK and name not in made]
    if missing:
        raise PluginError(
            f"the model file asks for the input '{missing[0]}', which preprocess does not make "
            f"(it makes {', '.join([MASK, *sorted(made)])})"
        )
    return wanted


def collate(encodings: Encodings, indices: Sequence[int], rule: ShapeRule, length: int, names: Sequence[str]) -> Batch:
    """Pad the encodings ``indices`` to ``length``; a fixed row count is filled by repeating the last row."""
    chosen = [encodings.rows[index] for index in indices]
    rows = [*chosen, *[chosen[-1]] * ((rule.rows or 0) - len(chosen))]
    left = encodings.padding_side == "left"
    inputs: dict[str, NDArray[Any]] = {}
    for name in names:
        array = np.full((len(rows), length), 0 if name == MASK else encodings.padding[name], dtype=np.int64)
        for target, row in zip(array, rows, strict=True):
            place = slice(length - row.length, length) if left else slice(0, row.length)
            target[place] = 1 if name == MASK else _integers(row.features[name], name)
        inputs[name] = array
    info = BatchInfo(
        rows=len(chosen),
        tokens=sum(row.length for row in chosen),
        padding_side=encodings.padding_side,
        groups=None if encodings.groups is None else tuple(encodings.groups[index] for index in indices),
        shared=None if encodings.shared is None else tuple(encodings.shared[index] for index in indices),
    )
    return Batch(indices=indices, inputs=inputs, info=info, slots=_slots(info, len(rows), length))


def _slots(info: BatchInfo, rows: int, length: int) -> int:
    if info.groups is None or info.shared is None:
        return rows * length
    once = dict(zip(info.groups, info.shared, strict=True))
    return rows * length - sum(info.shared) + sum(once.values())


def _integers(values: Sequence[int], name: str) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in "iu" and len(values):
        raise PluginError(
            f"preprocess gave values of type {array.dtype} for the feature '{name}'; token-level integers are needed"
        )
    return array
