"""Forms with 8-bit weights. On ONNX Runtime, activations are rounded to 8 bits as they come; the head stays in float32, because it gives
the score.
"""

from __future__ import annotations

from collections.abc import Sequence

from zoo_direct.form import Form, Linear
from zoo_direct.int8 import BLOCK, ZERO, Int8Graph
from zoo_direct.onnx_bytes import UINT8
from zoo_direct.onnxruntime_form import OnnxRuntimeForm


class Int8Form(OnnxRuntimeForm):
    """What both kinds of product have in common: they read a matrix as a whole, and cannot read the part of a single head."""

    graph: Int8Graph

    def project_table(self, table: str, linear: Linear) -> str:
        return self.linear(table, linear)

    def first_attention(self, x: str, parts: Sequence[Linear], heads: int) -> tuple[str, str]:
        """Computes keys and values of all tokens. The form without 8 bits saves that, and has to read matrices by head for it."""
        query, key, value = parts
        size, first = query.out // heads, self.first_token(x)
        q, k, v = (
            self.heads_first(self.linear(source, part), heads, size)
            for source, part in ((first, query), (x, key), (x, value))
        )
        return first, self.mix(self.product(q, k, size**-0.5), v, query.out)


class ChannelsForm(Int8Form):
    """DynamicQuantizeMatMul: a scale for each output channel, and one for all activations of a batch.

    What ONNX Runtime's own quantiser makes of a graph, but for the attention, which stays MultiHeadAttention in its two forms.
    """

    signed = True

    def linear(self, x: str, linear: Linear) -> str:
        return self._product(x, linear, [self.offset(linear)] if linear.bias else [])

    def times(self, x: str, linear: Linear) -> str:
        return self._product(x, linear, [])

    def _product(self, x: str, linear: Linear, bias: Sequence[str]) -> str:
        matrix, scales = self.graph.turned_channels(linear, signed=self.signed)
        zero = "" if self.signed else self._zero(linear.out)
        inputs = [x, matrix, scales, zero, *bias]
        while not inputs[-1]:
            inputs.pop()
        return self.add_own("DynamicQuantizeMatMul", *inputs)

    def _zero(self, channels: int) -> str:
        return self.graph.bytes_of(UINT8, [channels], bytes([ZERO]) * channels)


class UnsignedChannelsForm(ChannelsForm):
    """For CPUs without int8 dot products, whose kernel for signed weights adds two products of 8 bits in 16 and saturates."""

    signed = False


class BlocksForm(Int8Form):
    """MatMulNBits: a scale for each block of weights and of activations, so that one number far from the others spoils its block alone.

    It takes 8 bits on a CPU from ONNX Runtime 1.22 on.
    """

    def times(self, x: str, linear: Linear) -> str:
        matrix, scales = self.graph.blocks(linear)
        return self.add_own(
            "MatMulNBits", x, matrix, scales, K=linear.into, N=linear.out, bits=8, block_size=BLOCK, accuracy_level=4
        )


class WeightOnlyForm(Form):
    """Standard operators: a matrix comes back through DequantizeLinear, and what it is multiplied with stays in float.

    OpenVINO's CPU plugin takes the 8-bit weights into its products.
    """

    graph: Int8Graph

    def matrix(self, linear: Linear) -> str:
        if linear.out == 1:  # the head
            return super().matrix(linear)
        stored, scales = self.graph.channels(linear)
        return self.once((stored, "widened"), lambda: self.add("DequantizeLinear", stored, scales, axis=0))

    def project_table(self, table: str, linear: Linear) -> str:
        """In float32: OpenVINO 2026.4 cannot compute a product of constants through DequantizeLinear when it opens the file."""
        inputs = [table, super().matrix(linear), *([self.offset(linear)] if linear.bias else [])]
        return self.add("Gemm", *inputs, transB=1)
