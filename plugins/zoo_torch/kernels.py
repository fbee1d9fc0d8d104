"""What is computed faster in one kernel than in several: chosen once, by trial, and reported.

A product with its bias and GELU in one call of cuBLASLt, and additions, normalisations and gates in kernels of our own (``fused``).
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812  # the name that torch's users know

from zoo_torch.attention import Attention, choose_attention
from zoo_torch.faults import first_line
from zoo_torch.widths import Widths

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


FUSED_TOLERANCE = {torch.float32: 1e-4, torch.float16: 0.01, torch.bfloat16: 0.05}
"""Of fused kernels from plain ones in float32, relative to results of 1 and more."""


class Elementwise(Protocol):
    """What a model computes between its products. ``weight``, ``bias``: (hidden,)."""

    def add_norm(
        self, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """LayerNorm(x + y)."""
        ...

    def add_then_norm(
        self, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum x + y, and its LayerNorm."""
        ...

    def gelu_gate(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens, 2 inner) to (tokens, inner): GELU of the first half times the second."""
        ...

    def rotate(self, x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
        """Rotary positions: x (tokens, heads, size), cosine and sine (tokens, 1, size)."""
        ...


class Plain:
    """Elementwise by torch."""

    def __init__(self, widths: Widths) -> None:
        self._widths = widths

    def add_norm(
        self, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        return self.add_then_norm(x, y, weight, bias)[1]

    def add_then_norm(
        self, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        total = x + y
        return total, F.layer_norm(total, (self._widths.hidden,), weight, bias, self._widths.eps)

    def gelu_gate(self, x: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, dim=-1)
        return F.gelu(a) * b

    def rotate(self, x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, dim=-1)
        return x * cosine + torch.cat((-b, a), dim=-1) * sine


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """The chosen forms. ``described`` names them for the log."""

    attention: Attention
    epilogue: bool
    elementwise: Elementwise
    described: str

    def up(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, activation: Activation) -> torch.Tensor:
        """activation(x @ weight.T + bias)."""
        if self.epilogue and activation in GELUS:
            # Private, and the only way to cuBLASLt's epilogue: one kernel less over the widest activations (7.6 of 48 ms on an H100).
            return torch._addmm_activation(bias, x, weight.t(), use_gelu=True)
        return activation(F.linear(x, weight, bias))


def choose_kernels(
    attention: str, fusing: str, *, widths: Widths, reach: int | None, dtype: torch.dtype, device: torch.device
) -> Kernels:
    """What works on ``device``. ``attention`` and ``fusing`` are the user's options ``attention`` and ``compile``."""
    form = choose_attention(attention, heads=widths.heads, size=widths.size, reach=reach, dtype=dtype, device=device)
    epilogue = device.type == "cuda" and dtype in EPILOGUE_TOLERANCE and _epilogue_works(dtype, device)
    wanted = fusing == "on" or (fusing == "auto" and device.type == "cuda" and triton_found())
    fused = _fused(widths, dtype, device) if wanted else None
    parts = [f"attention {form.name}"]
    parts += ["GELU inside the product"] if epilogue else []
    parts += ["additions and normalisations fused"] if fused else []
    return Kernels(
        attention=form,
        epilogue=epilogue,
        elementwise=fused or Plain(widths),
        described=", ".join(parts),
    )


def triton_found() -> bool:
    """Whether the compiler of the fused kernels is installed. Builds of torch for cards bring it."""
    return importlib.util.find_spec("triton") is not None


def _fused(widths: Widths, dtype: torch.dtype, device: torch.device) -> Elementwise | None:
    """The fused kernels, compiled and held against the plain ones; None where they do not work, which is logged."""
    try:
        from zoo_torch.fused import Fused

        fused = Fused(widths)
        worst = _farthest(fused, widths, dtype, device)
    except Exception as error:  # no C compiler, a read-only cache, a card that Triton does not know
        reason = first_line(error)
    else:
        if worst <= FUSED_TOLERANCE[dtype]:
            return fused
        reason = f"they are off by {worst:.2g}"
    logger.warning("Triton's kernels do not work here, so additions and normalisations are not fused: %s", reason)
    return None


def _farthest(fused: Elementwise, widths: Widths, dtype: torch.dtype, device: torch.device) -> float:
    """Largest difference from the plain forms in float32 of what they take part in; infinity for NaN."""
    generator = torch.Generator().manual_seed(0)
    plain, tokens = Plain(widths), 5

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    x, y, weight, bias = (random(*shape) for shape in ((tokens, widths.hidden),) * 2 + ((widths.hidden,),) * 2)
    wide = random(tokens, 2 * widths.inner)
    # Between two others, as the keys lie in a product of queries, keys and values.
    keys = random(tokens, 3, widths.heads, widths.size)[:, 1]
    cosine, sine = random(tokens, 1, widths.size), random(tokens, 1, widths.size)
    exact_x, exact_y, exact_weight, exact_bias = (tensor.float() for tensor in (x, y, weight, bias))
    total, normed = plain.add_then_norm(exact_x, exact_y, exact_weight, exact_bias)
    turned = plain.rotate(keys.float(), cosine.float(), sine.float())
    pairs = [
        (fused.add_norm(x, y, weight, bias), normed),
        (fused.add_norm(x, y, weight, None), plain.add_norm(exact_x, exact_y, exact_weight, None)),
        *zip(fused.add_then_norm(x, y, weight, bias), (total, normed), strict=True),
        (fused.gelu_gate(wide), plain.gelu_gate(wide.float())),
        (fused.rotate(keys, cosine, sine), turned),
    ]
    apart = [((a.float() - b).abs() / b.abs().clamp(min=1.0)).max() for a, b in pairs]
    worst = float(torch.stack(apart).max())
    return worst if worst == worst else float("inf")


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
