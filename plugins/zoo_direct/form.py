"""The operators that a graph is made of, in the form a runtime wants. Here: standard ONNX operators, for any runtime.

Families describe a model with these methods and do not know which form they are writing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from zoo_direct.graph import Graph
from zoo_direct.onnx_bytes import FLOAT


@dataclass(frozen=True)
class Linear:
    """``x W^T + b``, as torch keeps it: W is (out, in).

    ``part`` (index, count) is one of several matrices of one size that the checkpoint keeps one below the other under ``name``.
    """

    name: str
    into: int
    out: int
    bias: bool = True
    part: tuple[int, int] = (0, 1)


class Form:
    """Standard operators of opset 18. Tensors are (batch, token, width) unless a method says otherwise.

    Opset 18 is what the export through torch writes, so every runtime that takes that file takes this one.
    """

    operator_sets = {"": 18}
    ir_version = 8
    cut_last_layer = True
    """Whether the last layer is computed for the one token alone that the classifier reads."""
    windows_in_blocks = True
    """Whether attention within a window is computed in blocks of tokens, or with all scores and a mask: more work, fewer operators."""
    hidden = -1e30
    """What is added to the attention scores of hidden keys, some of which are tens of thousands; the sum of two is finite."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.add, self.once = graph.add, graph.once

    # ---- weights

    def matrix(self, linear: Linear) -> str:
        """The weights of ``linear``, (out, in)."""
        index, count = linear.part
        shape, rows = (count * linear.out, linear.into), (index * linear.out, linear.out)
        return self.graph.weight(f"{linear.name}.weight", shape, rows=rows if count > 1 else ())

    def offset(self, linear: Linear) -> str:
        """The bias of ``linear``, (out,)."""
        index, count = linear.part
        rows = (index * linear.out, linear.out)
        return self.graph.weight(f"{linear.name}.bias", (count * linear.out,), rows=rows if count > 1 else ())

    def linear(self, x: str, linear: Linear) -> str:
        y = self.times(x, linear)
        return self.add("Add", y, self.offset(linear)) if linear.bias else y

    def times(self, x: str, linear: Linear) -> str:
        """``linear`` without its bias."""
        return self.add("MatMul", x, self.add("Transpose", self.matrix(linear), perm=[1, 0]))

    def dense(self, x: str, linear: Linear) -> str:
        """``linear`` of (batch, width)."""
        inputs = [x, self.matrix(linear), *([self.offset(linear)] if linear.bias else [])]
        return self.add("Gemm", *inputs, transB=1)

    def project_table(self, table: str, linear: Linear) -> str:
        """``linear`` of each row of a table, (row, width): constant, so a runtime computes it once, when it opens the file."""
        return self.dense(table, linear)

    def layer_norm(self, x: str, name: str, width: int, epsilon: float, *, bias: bool = True) -> str:
        gain = self.graph.weight(f"{name}.weight", (width,))
        # ONNX Runtime 1.17 joins this with the Add before it, and ends the process if there is no bias.
        offset = self.graph.weight(f"{name}.bias", (width,)) if bias else self.graph.numbers([0.0] * width, [width])
        return self.add("LayerNormalization", x, gain, offset, axis=-1, epsilon=epsilon)

    def rms_norm(self, x: str, gain: str, epsilon: float) -> str:
        """``x / sqrt(mean(x^2) + epsilon) * gain`` over the last axis."""
        mean = self.add("ReduceMean", self.add("Mul", x, x), self.graph.integers(-1))
        root = self.add("Sqrt", self.add("Add", mean, self.graph.number(epsilon)))
        return self.add("Mul", self.add("Div", x, root), gain)

    # ---- functions of each number

    def activation(self, kind: str, x: str) -> str:
        """One of the functions in ``config.ACTIVATIONS``."""
        if kind in ("gelu", "gelu_tanh"):
            return self.gelu(x, tanh=kind == "gelu_tanh")
        if kind == "silu":
            return self.silu(x)
        return self.add({"relu": "Relu", "tanh": "Tanh"}[kind], x)

    def gelu(self, x: str, *, tanh: bool) -> str:
        number = self.graph.number
        if tanh:
            cube = self.add("Mul", self.add("Mul", self.add("Mul", x, x), x), number(0.044715))
            inner = self.add("Mul", self.add("Add", x, cube), number(math.sqrt(2 / math.pi)))
            share = self.add("Tanh", inner)
        else:
            share = self.add("Erf", self.add("Div", x, number(math.sqrt(2))))
        return self.add("Mul", self.add("Mul", x, self.add("Add", share, number(1.0))), number(0.5))

    def silu(self, x: str) -> str:
        return self.add("Mul", x, self.add("Sigmoid", x))

    # ---- attention

    def product(self, a: str, b: str, scale: float = 1.0, *, axes: int = 4) -> str:
        """``scale * a b^T`` over the last two axes, of which each has ``axes``."""
        swapped = [*range(axes - 2), axes - 1, axes - 2]
        y = self.add("MatMul", a, self.add("Transpose", b, perm=swapped))
        return y if scale == 1.0 else self.add("Mul", y, self.graph.number(scale))

    def heads_first(self, x: str, heads: int, size: int) -> str:
        """(batch, token, heads * size) as (batch, head, token, size)."""
        return self.swap(self.add("Reshape", x, self.graph.integers(0, 0, heads, size)))

    def heads_joined(self, x: str, width: int) -> str:
        """(batch, head, token, size) as (batch, token, width)."""
        return self.add("Reshape", self.swap(x), self.graph.integers(0, 0, width))

    def swap(self, x: str) -> str:
        """(batch, token, head, size) as (batch, head, token, size), or back."""
        return self.add("Transpose", x, perm=[0, 2, 1, 3])

    def attention(self, x: str, parts: Sequence[Linear], heads: int) -> str:
        """Every token's mix of all tokens; ``parts`` give queries, keys and values."""
        queries, keys, values = (self.linear(x, part) for part in parts)
        return self.attend(queries, keys, values, heads, parts[0].out // heads)

    def attend(self, queries: str, keys: str, values: str, heads: int, size: int) -> str:
        """softmax(q k^T / sqrt(size)) v for each head, of (batch, token, heads * size); keys of padding are hidden."""
        q, k, v = (self.heads_first(x, heads, size) for x in (queries, keys, values))
        return self.mix(self.product(q, k, size**-0.5), v, heads * size)

    def mix(self, scores: str, values: str, width: int, hidden: str = "") -> str:
        """softmax(scores + hidden) values; scores are (batch, head, query, key), values (batch, head, key, size).

        ``hidden`` is added to the scores, by default what hides padding.
        """
        shares = self.add("Softmax", self.add("Add", scores, hidden or self.hidden_keys()), axis=-1)
        return self.heads_joined(self.add("MatMul", shares, values), width)

    def first_attention(self, x: str, parts: Sequence[Linear], heads: int) -> tuple[str, str]:
        """The first token, and its mix of all tokens, each (batch, 1, width).

        For a single query, q (x Wk^T)^T is (q Wk) x^T, and s (x Wv^T) is (s x) Wv^T: two small products instead of two that are as
        large as the queries' own. The keys' bias adds the same to every score, so it changes no share.
        """
        query, keys, values = parts
        width, size = query.out, query.out // heads
        graph, view = self.graph, (1, heads, size, query.into)
        shape = (width, query.into)
        by_head = [graph.weight(f"{part.name}.weight", shape, view=view) for part in (keys, values)]
        if keys.bias:
            graph.weights.take(f"{keys.name}.bias", (width,))
        first = self.first_token(x)
        q = self.add("Reshape", self.linear(first, query), graph.integers(0, heads, 1, size))
        q = self.add("Reshape", self.add("MatMul", q, by_head[0]), graph.integers(0, 1, heads, query.into))
        tokens = self.add("Unsqueeze", x, graph.integers(1))
        scores = self.product(q, tokens, size**-0.5)  # (batch, 1, head, token)
        shares = self.add("Softmax", self.add("Add", scores, self.hidden_keys()), axis=-1)
        mixed = self.add("Reshape", self.add("MatMul", shares, tokens), graph.integers(0, heads, 1, query.into))
        mixed = self.add("Reshape", self.product(mixed, by_head[1]), graph.integers(0, 1, width))
        return first, self.add("Add", mixed, self.offset(values)) if values.bias else mixed

    def first_token(self, x: str) -> str:
        """(batch, 1, width)"""
        return self.add("Gather", x, self.graph.integers(0), axis=1)

    def squeezed(self, x: str) -> str:
        """(batch, 1, width) as (batch, width)."""
        return self.add("Squeeze", x, self.graph.integers(1))

    def rotate(self, x: str, cos: str, sin: str, heads: int, size: int, at: str = "") -> str:
        """Rotary positions (Su et al., 2021) on (batch, token, heads * size): each head's first and second half turn as pairs.

        ``cos`` and ``sin`` are (position, size / 2), a position for each token; ``at``, (batch, token), gives other positions.
        """
        graph, half = self.graph, size // 2
        apart = self.add("Reshape", x, graph.integers(0, 0, heads, size))
        begin, middle, end, axis = (graph.integers(place) for place in (0, half, size, 3))
        a, b = self.add("Slice", apart, begin, middle, axis), self.add("Slice", apart, middle, end, axis)
        picked = [self.add("Gather", angle, at) if at else angle for angle in (cos, sin)]
        cos, sin = (self.add("Unsqueeze", angle, graph.integers(2 if at else 1)) for angle in picked)
        turned = [
            self.add("Sub", self.add("Mul", a, cos), self.add("Mul", b, sin)),
            self.add("Add", self.add("Mul", b, cos), self.add("Mul", a, sin)),
        ]
        return self.add("Reshape", self.add("Concat", *turned, axis=3), graph.integers(0, 0, heads * size))

    # ---- the batch

    def length(self) -> str:
        """The number of tokens of a row with its padding, an integer without axes."""
        return self.once("length", lambda: self.graph.size(self.graph.input("input_ids"), 1))

    def length_vector(self) -> str:
        """The same as a vector of one."""
        return self.once("length_vector", lambda: self.graph.size_vector(self.graph.input("input_ids"), 1))

    def numbers_up_to(self, end: str, first: str = "") -> str:
        """The integers from ``first``, or 0, up to and without ``end``."""
        return self.add("Range", first or self.graph.integer(0), end, self.graph.integer(1))

    def hidden_keys(self) -> str:
        """What hides padding: (batch, 1, 1, key), 0 for keys that are shown."""
        return self.once("hidden_keys", self._hidden_keys)

    def _hidden_keys(self) -> str:
        mask = self.add("Unsqueeze", self.graph.input("attention_mask"), self.graph.integers(1, 2))
        return self.hidden_if(self.add("Equal", mask, self.graph.integer(0)))

    def hidden_if(self, condition: str) -> str:
        """What hides the keys for which ``condition`` holds: to be added to their scores."""
        return self.add("Where", condition, self.graph.number(self.hidden), self.graph.number(0.0))

    def mask_as_numbers(self) -> str:
        """1 for tokens, 0 for padding: (batch, token), float32."""
        return self.once("mask_as_numbers", lambda: self.add("Cast", self.graph.input("attention_mask"), to=FLOAT))
