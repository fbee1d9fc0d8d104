"""The form for ONNX Runtime: its own operators, chosen by measuring on a CPU.

FusedMatMul reads weights as torch keeps them and packs them straight from the mapped file. SkipLayerNormalization and BiasGelu are left
out: the first is slower than Add and LayerNormalization (``zoo.onnx_runtime.NOT_FASTER``), the second is what ONNX Runtime makes of Add
and Gelu by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from zoo_direct.form import Form, Linear
from zoo_direct.graph import MICROSOFT, Graph
from zoo_direct.onnx_bytes import BOOL, INT32


class OnnxRuntimeForm(Form):
    """Works from ONNX Runtime 1.17 on."""

    operator_sets = {"": 20, MICROSOFT: 1}
    ir_version = 9

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.add_own = partial(graph.add, domain=MICROSOFT)

    def times(self, x: str, linear: Linear) -> str:
        return self.add_own("FusedMatMul", x, self.matrix(linear), transB=1)

    def rms_norm(self, x: str, gain: str, epsilon: float) -> str:
        return self.add("SimplifiedLayerNormalization", x, gain, axis=-1, epsilon=epsilon, stash_type=1)

    def gelu(self, x: str, *, tanh: bool) -> str:
        return self.add("Gelu", x, approximate="tanh" if tanh else "none")

    def silu(self, x: str) -> str:
        return self.add_own("QuickGelu", x, alpha=1.0)  # x * sigmoid(alpha * x)

    def product(self, a: str, b: str, scale: float = 1.0, *, axes: int = 4) -> str:
        return self.add_own("FusedMatMul", a, b, transB=1, alpha=scale)

    def rotate(self, x: str, cos: str, sin: str, heads: int, size: int, at: str = "") -> str:
        return self.add_own("RotaryEmbedding", x, at or self.graph.integers(0), cos, sin, num_heads=heads)

    def attention(self, x: str, parts: Sequence[Linear], heads: int) -> str:
        products = [self.times(x, part) for part in parts]
        bias = self.add("Concat", *(self.offset(part) for part in parts), axis=0) if parts[0].bias else ""
        return self._joined(products, bias, heads, parts[0].out // heads)

    def attend(self, queries: str, keys: str, values: str, heads: int, size: int) -> str:
        return self._joined([queries, keys, values], "", heads, size)

    def _joined(self, products: Sequence[str], bias: str, heads: int, size: int) -> str:
        """MultiHeadAttention, which goes through the keys block by block if nothing is hidden, and so never writes all scores down."""
        mask = self.once("int32_mask", lambda: self.add("Cast", self.graph.input("attention_mask"), to=INT32))
        unpadded = self.once("unpadded", lambda: self.add("Cast", self.add("ReduceMin", mask, keepdims=0), to=BOOL))
        settings = {"num_heads": heads, "scale": size**-0.5}
        bare = [*products, *([bias] if bias else [])]
        masked = ([*products, bias, mask], {**settings, "mask_filter_value": self.hidden})
        return self.graph.choose(unpadded, "MultiHeadAttention", (bare, settings), masked)
