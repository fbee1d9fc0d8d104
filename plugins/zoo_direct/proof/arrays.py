"""The arithmetic of a transformer in numpy, on rows laid end to end: (token, width), in float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zoo_direct.weights import Weights, read

Array: TypeAlias = NDArray[Any]
BLOCK = 1 << 14
"""Numbers that a function of each number takes at once: they stay in the processor's cache, which is three times as fast."""


@dataclass(frozen=True)
class Rows:
    """Rows without their padding, one after the other. ``borders`` has one entry more than there are rows."""

    ids: NDArray[np.int64]
    types: NDArray[np.int64]
    borders: NDArray[np.int64]

    @classmethod
    def of(cls, batches: Sequence[Mapping[str, NDArray[Any]]]) -> Rows:
        ids, types = [], []
        for batch in batches:
            kinds = batch.get("token_type_ids", np.zeros_like(batch["input_ids"]))
            for row, shown in enumerate(np.asarray(batch["attention_mask"]).astype(bool)):
                ids.append(np.asarray(batch["input_ids"])[row, shown])
                types.append(np.asarray(kinds)[row, shown])
        borders = np.cumsum([0, *(len(row) for row in ids)])
        return cls(np.concatenate(ids).astype(np.int64), np.concatenate(types).astype(np.int64), borders)

    def __iter__(self) -> Iterator[slice]:
        """The place of each row."""
        return (slice(begin, end) for begin, end in zip(self.borders, self.borders[1:], strict=False))

    @property
    def positions(self) -> NDArray[np.int64]:
        """The number of each token in its row, from 0."""
        return np.concatenate([np.arange(row.stop - row.start) for row in self])

    @property
    def first(self) -> NDArray[np.int64]:
        return self.borders[:-1]

    @property
    def last(self) -> NDArray[np.int64]:
        return self.borders[1:] - 1


class Arrays:
    """A checkpoint's weights as float32, mapped from their files."""

    def __init__(self, folder: Path) -> None:
        self._weights = Weights(folder)

    def __contains__(self, name: str) -> bool:
        return name in self._weights

    def __getitem__(self, name: str) -> Array:
        return self.at(name)

    def at(self, name: str, index: Any = ...) -> Array:
        """Some rows of a tensor; the others are not read."""
        return read(self._weights.find(name), index)

    def linear(self, x: Array, name: str) -> Array:
        """``x W^T``, with the bias if there is one.

        As ``(W x^T)^T``: for few tokens OpenBLAS needs half the time, because it copies nothing as large as the matrix.
        """
        y: Array = np.ascontiguousarray((self[f"{name}.weight"] @ x.T).T)
        if f"{name}.bias" in self:
            y += self[f"{name}.bias"]
        return y

    def layer_norm(self, x: Array, name: str, epsilon: float) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        y: Array = centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(epsilon))
        y = y * self[f"{name}.weight"]
        if f"{name}.bias" in self:
            y += self[f"{name}.bias"]
        return y


def attention(q: Array, k: Array, v: Array, rows: Rows, heads: int, bias: Any = None) -> Array:
    """softmax(q k^T / sqrt(size) + bias) v for each head and row; (token, heads * size).

    ``bias`` gives what is added for a row of some length: anything that can be added to (head, query, key).
    """
    mixed = np.empty_like(q)
    for row in rows:
        queries, keys, values = (split(x[row], heads) for x in (q, k, v))
        scores = queries @ keys.transpose(0, 2, 1) / np.float32(math.sqrt(queries.shape[-1]))
        if bias is not None:
            scores = scores + bias(row.stop - row.start)
        mixed[row] = joined(softmax(scores) @ values)
    return mixed


def rotated(x: Array, positions: NDArray[np.int64], theta: float, heads: int) -> Array:
    """Rotary positions: with z = first half + i * second half of a head, z * exp(i * position * theta^(-2 pair / size))."""
    size = x.shape[-1] // heads
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    return turned(x, positions, 1 / np.float32(theta) ** exponents, heads)


def turned(x: Array, positions: NDArray[np.int64], frequencies: Array, heads: int) -> Array:
    """The same with given frequencies, (size / 2,)."""
    angles = positions.astype(np.float32)[:, None] * frequencies
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    first, second = np.split(x.reshape(len(x), heads, -1), 2, axis=-1)
    pairs = np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    result: Array = pairs.reshape(x.shape)
    return result


def split(x: Array, heads: int) -> Array:
    """(token, heads * size) as (head, token, size)."""
    by_head: Array = x.reshape(len(x), heads, -1).transpose(1, 0, 2)
    return by_head


def joined(x: Array) -> Array:
    """(head, token, size) as (token, heads * size)."""
    by_token: Array = x.transpose(1, 0, 2).reshape(x.shape[1], -1)
    return by_token


def softmax(scores: Array) -> Array:
    exponents = np.exp(scores - scores.max(-1, keepdims=True))
    shares: Array = exponents / exponents.sum(-1, keepdims=True)
    return shares


def activate(name: str, x: Array) -> Array:
    """The activation that transformers calls by this name."""
    flat = np.ascontiguousarray(x).reshape(-1)
    result = np.empty_like(flat)
    function = FUNCTIONS[name]
    with np.errstate(over="ignore"):  # exp of a large number is infinite, and 1 over it the 0 that is meant
        for begin in range(0, len(flat), BLOCK):
            result[begin : begin + BLOCK] = function(flat[begin : begin + BLOCK])
    return result.reshape(x.shape)


def _gelu(x: Array) -> Array:
    """``x * Phi(x)``, with the error function of Abramowitz and Stegun, 7.1.26: off by 1.5e-7 at most."""
    size = np.abs(x) * np.float32(math.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * size)
    sum_ = np.float32(1.061405429) * t
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        sum_ += np.float32(coefficient)
        sum_ *= t
    tail = np.float32(0.5) * sum_ * np.exp(-size * size)  # 1 - Phi(|x|)
    result: Array = x * np.where(x < 0, tail, 1 - tail)
    return result


def _gelu_tanh(x: Array) -> Array:
    """``x * (1 + tanh(z)) / 2``, which is x * sigmoid(2 z)."""
    result: Array = x / (1 + np.exp(-np.float32(2 * math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3)))
    return result


def _silu(x: Array) -> Array:
    result: Array = x / (1 + np.exp(-x))
    return result


FUNCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu": _gelu, "gelu_python": _gelu, "gelu_new": _gelu_tanh, "gelu_fast": _gelu_tanh, "gelu_pytorch_tanh": _gelu_tanh,
    "gelu_python_tanh": _gelu_tanh, "relu": lambda x: np.maximum(x, 0), "silu": _silu, "swish": _silu, "tanh": np.tanh,
}  # fmt: skip
