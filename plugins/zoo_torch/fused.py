"""Kernels in Triton for what torch computes in several: each reads its inputs once, computes in float32 and writes its result once.

torch.compile makes such kernels too, but takes ten seconds for them in every process, and 0.2 ms of the host for every call: with two calls
a layer, an H100 waited for the host. A call of these takes 0.02 ms.

With ``TRITON_INTERPRET=1`` in the environment Triton runs them on the CPU, which is how they are tested where there is no card.
"""

import torch
import triton
import triton.language as tl

from zoo_torch.widths import Widths


class Fused:
    """The functions of ``kernels.Plain``, for the same tensors."""

    def __init__(self, widths: Widths) -> None:
        self._widths = widths
        self._hidden_block = triton.next_power_of_2(widths.hidden)
        self._head_block = triton.next_power_of_2(widths.size)

    def add_norm(
        self, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        return self._norm(x, y, None, weight, bias)

    def add_then_norm(
        self, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        total = torch.empty_like(x, memory_format=torch.contiguous_format)
        return total, self._norm(x, y, total, weight, bias)

    def gelu_gate(self, x: torch.Tensor) -> torch.Tensor:
        x, inner = x.contiguous(), self._widths.inner
        rows = x.numel() // (2 * inner)
        out = x.new_empty(*x.shape[:-1], inner)
        _gelu_gate[(rows, triton.cdiv(inner, GATE_BLOCK))](x, out, inner, GATE_BLOCK)
        return out

    def rotate(self, x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
        tokens, heads, size = x.shape
        if x.stride(2) != 1:
            x = x.contiguous()
        out = x.new_empty(x.shape)
        _rotate[(tokens, heads)](
            x, cosine.contiguous(), sine.contiguous(), out, x.stride(0), x.stride(1), heads, size, self._head_block
        )
        return out

    def _norm(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        total: torch.Tensor | None,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        x, y = x.contiguous(), y.contiguous()
        out = torch.empty_like(x)
        hidden = self._widths.hidden
        # Triton wants a pointer in each place; one that is not read may be any.
        _add_norm[(x.numel() // hidden,)](
            x, y, out if total is None else total, weight, weight if bias is None else bias, out,
            hidden, self._widths.eps, total is not None, bias is not None, self._hidden_block,
        )  # fmt: skip
        return out


GATE_BLOCK = 1024


@triton.jit
def _add_norm(
    x, y, total, weight, bias, out,
    hidden, eps, with_total: tl.constexpr, with_bias: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """A program a row."""
    row = tl.program_id(0).to(tl.int64) * hidden
    at = tl.arange(0, block)
    inside = at < hidden
    values = tl.load(x + row + at, mask=inside, other=0.0).to(tl.float32)
    values += tl.load(y + row + at, mask=inside, other=0.0).to(tl.float32)
    if with_total:
        tl.store(total + row + at, values, mask=inside)
    away = tl.where(inside, values - tl.sum(values, 0) / hidden, 0.0)
    normed = away * tl.rsqrt(tl.sum(away * away, 0) / hidden + eps)
    normed *= tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    if with_bias:
        normed += tl.load(bias + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row + at, normed, mask=inside)


@triton.jit
def _gelu_gate(x, out, inner, block: tl.constexpr):
    """A program a row and block of columns. GELU in its exact form."""
    row = tl.program_id(0).to(tl.int64) * inner
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < inner
    a = tl.load(x + 2 * row + at, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(x + 2 * row + inner + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row + at, 0.5 * a * (1.0 + tl.erf(a * 0.7071067811865476)) * b, mask=inside)


@triton.jit
def _rotate(x, cosine, sine, out, token_stride, head_stride, heads, size, block: tl.constexpr):
    """A program a token and head: x * cosine + (its halves changed, the new first one negated) * sine."""
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = tl.arange(0, block)
    inside = at < size
    half = size // 2
    partner = tl.where(at < half, at + half, at - half)
    source = x + token * token_stride + head * head_stride
    straight = tl.load(source + at, mask=inside, other=0.0).to(tl.float32)
    across = tl.load(source + partner, mask=inside, other=0.0).to(tl.float32)
    across = tl.where(at < half, -across, across)
    turned = straight * tl.load(cosine + token * size + at, mask=inside, other=0.0).to(tl.float32)
    turned += across * tl.load(sine + token * size + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + (token * heads + head) * size + at, turned, mask=inside)
