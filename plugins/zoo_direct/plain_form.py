"""The form for compilers and quantisers: standard operators, no layer cut short, and every matrix read as it lies in the file."""

from __future__ import annotations

from collections.abc import Sequence

from zoo_direct.form import Form, Linear


class PlainForm(Form):
    """Products are Gemm of two axes: its ``transB`` reads (out, in) without a Transpose that somebody would have to fold."""

    cut_last_layer = False
    windows_in_blocks = False
    hidden = -30000.0
    """The sum of two is finite in half precision too, in which a compiler may compute this form; ``exp`` of it is exactly 0."""

    def linear(self, x: str, linear: Linear) -> str:
        return self._gemm(x, linear, [self.offset(linear)] if linear.bias else [])

    def times(self, x: str, linear: Linear) -> str:
        return self._gemm(x, linear, [])

    def _gemm(self, x: str, linear: Linear, bias: Sequence[str]) -> str:
        rows = self.add("Reshape", x, self.graph.integers(-1, linear.into))
        y = self.add("Gemm", rows, self.matrix(linear), *bias, transB=1)
        tokens = self.once("tokens", lambda: self.add("Shape", self.graph.input("input_ids")))
        shape = self.once(linear.out, lambda: self.add("Concat", tokens, self.graph.integers(linear.out), axis=0))
        return self.add("Reshape", y, shape)
