"""What is computed faster in one kernel than in several: chosen once, by trial, and reported.

A product with its bias and GELU in one call of cuBLASLt, and additions, normalisations and gates fused by torch.compile.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # the name that torch's users know

from zoo_torch.attention import Attention, choose_attention
from zoo_torch.faults import first_line

logger = logging.getLogger("zoo.torch")

Activation = Callable[[torch.Tensor], torch.Tensor]


def gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": F.relu,
}
"""By the names of config.json. A model with another one runs through transformers."""
GELUS = (F.gelu, gelu_tanh)
EPILOGUE_TOLERANCE = {torch.float16: 0.01, torch.bfloat16: 0.05}
"""Of the product with GELU in its epilogue, which is the tanh form, from the exact one: both forms differ by 0.0005 at most, the rest is
rounding of results near 4. float32 is computed in the exact form."""


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Lengths of a model's axes. Functions that are compiled hold them as constants, so that kernels are made for these lengths."""

    heads: int
    hidden: int
    inner: int
    eps: float

    @property
    def size(self) -> int:
        """Of one head."""
        return self.hidden // self.heads


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """The chosen forms. ``described`` names them for the log. ``weight``, ``bias``: (hidden,)."""

    attention: Attention
    epilogue: bool
    add_norm: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
    """(x, y, weight, bias): LayerNorm(x + y)."""
    add_then_norm: Callable[
        [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor]
    ]
    """(x, y, weight, bias): x + y, and its LayerNorm."""
    gelu_gate: Activation
    """(tokens, 2 inner) to (tokens, inner): GELU of the first half times the second."""
    rotate: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    """Rotary positions: x (tokens, heads, size), cosine and sine (tokens, 1, size)."""
    described: str

    def up(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, activation: Activation) -> torch.Tensor:
        """activation(x @ weight.T + bias)."""
        if self.epilogue and activation in GELUS:
            # Private, and the only way to cuBLASLt's epilogue: one kernel less over the widest activations (7.6 of 48 ms on an H100).
            return torch._addmm_activation(bias, x, weight.t(), use_gelu=True)
        return activation(F.linear(x, weight, bias))


def choose_kernels(
    attention: str, compiling: str, *, widths: Widths, reach: int | None, dtype: torch.dtype, device: torch.device
) -> Kernels:
    """What works on ``device``. ``attention`` and ``compiling`` are the user's options of these names."""
    form = choose_attention(attention, heads=widths.heads, size=widths.size, reach=reach, dtype=dtype, device=device)
    epilogue = device.type == "cuda" and dtype in EPILOGUE_TOLERANCE and _epilogue_works(dtype, device)
    wanted = compiling == "on" or (compiling == "auto" and device.type == "cuda" and compiler_found())
    compiled = wanted and _compiling_works(dtype, device)
    fuse: Callable[[Any], Any] = _compile if compiled else _as_it_is
    parts = [f"attention {form.name}"]
    parts += ["GELU inside the product"] if epilogue else []
    parts += ["additions and normalisations compiled"] if compiled else []
    return Kernels(
        attention=form,
        epilogue=epilogue,
        add_norm=fuse(_add_norm(widths.hidden, widths.eps)),
        add_then_norm=fuse(_add_then_norm(widths.hidden, widths.eps)),
        gelu_gate=fuse(_gelu_gate(widths.inner)),
        rotate=fuse(_rotate(widths.size // 2)),
        described=", ".join(parts),
    )


def compiler_found() -> bool:
    """Whether torch.compile has its code generator for cards."""
    return importlib.util.find_spec("triton") is not None


def _as_it_is(function: Any) -> Any:
    return function


def _compile(function: Any) -> Any:
    return torch.compile(function, dynamic=True)  # a batch has any number of tokens; dynamic from the first


def _add_norm(hidden: int, eps: float) -> Any:
    def add_norm(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return F.layer_norm(x + y, (hidden,), weight, bias, eps)

    return add_norm


def _add_then_norm(hidden: int, eps: float) -> Any:
    def add_then_norm(
        x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        total = x + y
        return total, F.layer_norm(total, (hidden,), weight, bias, eps)

    return add_then_norm


def _gelu_gate(inner: int) -> Any:
    def gelu_gate(x: torch.Tensor) -> torch.Tensor:
        a, b = x.split((inner, inner), dim=-1)
        return F.gelu(a) * b

    return gelu_gate


def _rotate(half: int) -> Any:
    def rotate(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
        a, b = x.split((half, half), dim=-1)
        return x * cosine + torch.cat((-b, a), dim=-1) * sine

    return rotate


def _epilogue_works(dtype: torch.dtype, device: torch.device) -> bool:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(shape, generator=generator).to(device, dtype) for shape in ((24, 64), (32, 64), (32,))
    )
    weight = weight / 8
    try:
        fused = torch._addmm_activation(bias, x, weight.t(), use_gelu=True).float()
    except Exception as error:  # private: it may go, or refuse
        logger.debug("GELU inside the product does not work here: %s", first_line(error))
        return False
    worst = float((fused - F.gelu(F.linear(x.float(), weight.float(), bias.float()))).abs().max())
    return worst <= EPILOGUE_TOLERANCE[dtype]


def _compiling_works(dtype: torch.dtype, device: torch.device) -> bool:
    plain = _add_norm(8, 1e-5)
    x, y = torch.arange(80, device=device).remainder(7).to(dtype).view(2, 5, 8)
    try:
        compiled = _compile(plain)(x, y, x[0], x[1])
    except Exception as error:  # no C compiler, a read-only cache, a card that Triton does not know
        logger.warning(
            "torch.compile does not work here, so additions and normalisations are not fused: %s", first_line(error)
        )
        return False
    return bool(torch.allclose(compiled, plain(x, y, x[0], x[1]), atol=0.1))
