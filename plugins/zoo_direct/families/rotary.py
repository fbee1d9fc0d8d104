"""Rotary positions: what config.json says of them, and the angles in the graph."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from zoo_direct.config import Config, UnsupportedError
from zoo_direct.form import Form
from zoo_direct.onnx_bytes import FLOAT


def read_theta(config: Config, default: float) -> float:
    """The base of the frequencies, from ``rope_theta`` or, in files of transformers 5, from ``rope_parameters``."""
    config.only("rope_scaling", None)
    theta = config.number("rope_theta", default)
    nested = config.mapping("rope_parameters")
    return theta if nested is None else read_nested_theta(nested, theta)


def read_nested_theta(nested: Config, default: float) -> float:
    """From an object of transformers 5: ``{"rope_type": "default", "rope_theta": ...}``."""
    nested.choice("rope_type", ["default"], "default")
    theta = nested.number("rope_theta", default)
    nested.close(inert=())
    return theta


def even(size: int) -> int:
    """The size of a head, whose halves turn as pairs. Raises UnsupportedError if it is odd."""
    if size % 2:
        raise UnsupportedError(f"config.json gives heads of the odd size {size}, which have no rotary positions")
    return size


def frequencies(theta: float, size: int) -> list[float]:
    """``theta^(-2i/size)`` for each pair, rounded to float32 after every operation.

    transformers computes them so; at position 8,000 the last bit of a frequency is worth 5e-4 of a turn.
    """
    return [_float32(1.0 / _float32(theta ** _float32(2 * pair / size))) for pair in range(size // 2)]


def angles(form: Form, turns: Sequence[float], begin: str = "") -> tuple[str, str]:
    """Cos and sin of every token's angles, (token, size / 2), computed once in float32.

    Tokens count from 0, or from ``begin`` (a vector of one integer).
    """
    graph = form.graph

    def positions() -> str:
        length = graph.size(graph.input("input_ids"), 1)
        first = form.add("Squeeze", begin) if begin else graph.integer(0)
        last = form.add("Squeeze", form.add("Add", begin, length) if begin else length)
        numbers = form.add("Cast", form.add("Range", first, last, graph.integer(1)), to=FLOAT)
        return form.add("Unsqueeze", numbers, graph.integers(1))

    def product() -> str:
        return form.add("Mul", form.once("positions", positions), graph.numbers(turns, [1, len(turns)]))

    key = tuple(turns)
    angle = form.once(("angle", key), product)
    return form.once(("cos", key), lambda: form.add("Cos", angle)), form.once(
        ("sin", key), lambda: form.add("Sin", angle)
    )


def _float32(value: float) -> float:
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded
