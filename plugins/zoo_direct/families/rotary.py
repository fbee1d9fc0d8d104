"""Rotary positions: what config.json says of them, and the angles in the graph."""

from __future__ import annotations

import math
from collections.abc import Sequence

from zoo_direct import float32
from zoo_direct.config import Config, UnsupportedError
from zoo_direct.form import Form, Linear
from zoo_direct.onnx_bytes import FLOAT

LARGEST_HEAD = 4096
"""Far more than any model has; each pair's frequency is a constant of the graph."""


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
    """The size of a head, whose halves turn as pairs. Raises UnsupportedError if it is odd, or cannot be meant."""
    if size % 2 or size > LARGEST_HEAD:
        raise UnsupportedError(
            f"config.json gives heads of the size {size}; rotary positions want an even one up to {LARGEST_HEAD}"
        )
    return size


def frequencies(theta: float, size: int) -> list[float]:
    """``theta^(-2i/size)`` for each pair, rounded to float32 after every operation.

    transformers computes them so; at position 8,000 the last bit of a frequency is worth 5e-4 of a turn.
    """
    return [
        float32.rounded(1.0 / float32.rounded(theta ** float32.rounded(2 * pair / size))) for pair in range(size // 2)
    ]


def ntk_frequencies(theta: float, size: int, factor: float, mixed: float | None) -> list[float]:
    """Frequencies for texts ``factor`` times as long (https://kexue.fm/archives/9706), in float32 as above.

    Without ``mixed`` equation 6 of that page, with it equations 10 to 13.
    """
    r = float32.rounded
    if mixed is None:
        share = r(factor ** (2 / size))
        return [r(turn / share) for turn in frequencies(theta * factor, size)]
    slope = r(float32.log(factor) / r((size / 2) ** mixed))
    shares = [r(math.exp(r(slope * r((pair + 1) ** mixed)))) for pair in range(size // 2)]
    return [r(turn / share) for turn, share in zip(frequencies(theta, size), shares, strict=True)]


def turned(form: Form, x: str, parts: Sequence[Linear], heads: int, turn: tuple[str, str]) -> tuple[str, str, str]:
    """Queries, keys and values of ``x``, (batch, token, width), the first two at their positions; ``turn`` is from ``angles``."""
    size = parts[0].out // heads
    queries, keys, values = (form.linear(x, part) for part in parts)
    return form.rotate(queries, *turn, heads, size), form.rotate(keys, *turn, heads, size), values


def first_attention(form: Form, x: str, parts: Sequence[Linear], heads: int, turn: tuple[str, str], hidden: str) -> str:
    """The first token's mix of all tokens, (batch, 1, width). It is at position 0, which does not turn."""
    query, key, value = parts
    size = query.out // heads
    q = form.heads_first(form.linear(form.first_token(x), query), heads, size)
    k = form.heads_first(form.rotate(form.linear(x, key), *turn, heads, size), heads, size)
    v = form.heads_first(form.linear(x, value), heads, size)
    return form.mix(form.product(q, k, size**-0.5), v, query.out, hidden)


def angles(form: Form, turns: Sequence[float], begin: str = "") -> tuple[str, str]:
    """Cos and sin of every token's angles, (token, size / 2), computed once in float32.

    Tokens count from 0, or from ``begin``, an integer without axes.
    """
    graph = form.graph

    def positions() -> str:
        end = form.add("Add", begin, form.length()) if begin else form.length()
        numbers = form.add("Cast", form.numbers_up_to(end, begin), to=FLOAT)
        return form.add("Unsqueeze", numbers, graph.integers(1))

    def product() -> str:
        return form.add("Mul", form.once("positions", positions), graph.numbers(turns, [1, len(turns)]))

    key = tuple(turns)
    angle = form.once(("angle", key), product)
    return form.once(("cos", key), lambda: form.add("Cos", angle)), form.once(
        ("sin", key), lambda: form.add("Sin", angle)
    )
