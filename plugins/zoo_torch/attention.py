"""Attention over rows of different length that lie end to end, in three forms; the first that works is chosen once, by trial.

- ``varlen``: ``torch.nn.attention.varlen`` (torch 2.10), FlashAttention on rows as they are: half precision, on cards from Ampere on.
- ``nested``: SDPA on jagged tensors: older torch and cards, float32 on a card.
- ``padded``: SDPA on rows padded to the longest, with a mask: everywhere.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812  # the name that torch's users know

from zoo.api import ZooError
from zoo_torch.faults import first_line

logger = logging.getLogger("zoo.torch")

TRIAL_LENGTHS = (1, 3, 17, 40)
TRIAL_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest difference from attention in float32 on normal random numbers; a wrong mask is off by 0.3 and more."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the rows of a packed batch lie: row i is ``borders[i]:borders[i + 1]``.

    ``borders``: int32, shape (rows + 1,). ``slots``: int32, shape (tokens,), each token's place in a (rows, longest) rectangle, for the
    padded form alone.
    """

    borders: torch.Tensor
    slots: torch.Tensor | None
    rows: int
    longest: int

    @property
    def first(self) -> torch.Tensor:
        """Indices of the rows' first tokens, shape (rows,)."""
        return self.borders[:-1]


class Attention(Protocol):
    """``q``, ``k``, ``v``: (tokens, heads, size). ``reach``: tokens seen to each side, or None for all of the row.

    ``has_windows``: whether it takes a ``reach``.
    """

    name: str
    needs_slots: bool
    has_windows: bool

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout, reach: int | None = None
    ) -> torch.Tensor:
        """(tokens, heads, size)."""
        ...

    def first(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout) -> torch.Tensor:
        """``q`` (rows, heads, size) is of the rows' first tokens, which see the whole row; gives (rows, heads, size)."""
        ...


class Varlen:
    """torch.nn.attention.varlen."""

    name, needs_slots, has_windows = "varlen", False, True

    def __init__(self) -> None:
        from torch.nn.attention.varlen import varlen_attn

        self._attend = varlen_attn

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout, reach: int | None = None
    ) -> torch.Tensor:
        window = (
            {} if reach is None else {"window_size": (reach, reach)}
        )  # not in torch 2.10, which the trial finds out
        borders, longest = layout.borders, layout.longest
        return self._attend(q, k, v, borders, borders, longest, longest, **window)

    def first(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout) -> torch.Tensor:
        ones = torch.arange(layout.rows + 1, dtype=torch.int32, device=q.device)
        return self._attend(q, k, v, ones, layout.borders, 1, layout.longest)


class Nested:
    """SDPA on jagged tensors."""

    name, needs_slots, has_windows = "nested", False, False

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout, reach: int | None = None
    ) -> torch.Tensor:
        offsets = layout.borders.long()

        def jagged(x: torch.Tensor) -> torch.Tensor:
            return torch.nested.nested_tensor_from_jagged(
                x.contiguous(), offsets=offsets, min_seqlen=1, max_seqlen=layout.longest
            ).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(jagged(q), jagged(k), jagged(v))
        return mixed.transpose(1, 2).values()

    def first(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout) -> torch.Tensor:
        whole = k.new_zeros(k.shape).index_copy_(0, layout.first.long(), q)
        return self(whole, k, v, layout).index_select(0, layout.first)


class Padded:
    """SDPA on padded rows."""

    name, needs_slots, has_windows = "padded", True, True

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout, reach: int | None = None
    ) -> torch.Tensor:
        q, k, v = (self._spread(x, layout) for x in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=_mask(layout, reach)).transpose(1, 2)
        assert layout.slots is not None
        return mixed.reshape(-1, *mixed.shape[2:]).index_select(0, layout.slots)

    def first(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout) -> torch.Tensor:
        k, v = (self._spread(x, layout) for x in (k, v))
        return F.scaled_dot_product_attention(q[:, :, None], k, v, attn_mask=_mask(layout, None))[:, :, 0]

    @staticmethod
    def _spread(x: torch.Tensor, layout: Layout) -> torch.Tensor:
        """(tokens, heads, size) to (rows, heads, longest, size), zeros behind each row."""
        assert layout.slots is not None
        rectangle = x.new_zeros(layout.rows * layout.longest, *x.shape[1:])
        rectangle.index_copy_(0, layout.slots.long(), x)
        return rectangle.view(layout.rows, layout.longest, *x.shape[1:]).transpose(1, 2)


def _mask(layout: Layout, reach: int | None) -> torch.Tensor | None:
    """True for keys that are seen: (rows, 1, 1, longest), or with a reach (rows, 1, longest, longest)."""
    if layout.rows == 1 and reach is None:
        return None
    place = torch.arange(layout.longest, device=layout.borders.device)
    seen = (place < layout.borders.diff()[:, None])[:, None, None]
    if reach is not None:
        seen = seen & ((place[:, None] - place).abs() <= reach)
        seen = (
            seen | (place >= layout.borders.diff()[:, None])[:, None, :, None]
        )  # a padding token may see all: a softmax over nothing would be NaN
    return seen


FORMS: dict[str, type[Attention]] = {"varlen": Varlen, "nested": Nested, "padded": Padded}


def choose_attention(
    wanted: str, *, heads: int, size: int, reach: int | None, dtype: torch.dtype, device: torch.device
) -> Attention:
    """The form called ``wanted``, or for "auto" the first that gives the right result for this model on this device.

    Raises ZooError when the wanted form does not work here, with the reason.
    """
    names: Sequence[str] = [wanted] if wanted != "auto" else list(FORMS) if device.type == "cuda" else ["padded"]
    reasons = []
    for name in names:
        if reach is not None and not FORMS[name].has_windows:
            reasons.append(f"{name}: it has no sliding windows")
            continue
        try:
            with warnings.catch_warnings():
                # torch says once that nested tensors are a prototype: that is why there is a trial
                warnings.simplefilter("ignore")
                form = FORMS[name]()
                worst = _trial(form, heads, size, reach, dtype, device)
        except Exception as error:  # a kernel that is missing, or refuses the shape, may raise any exception
            reasons.append(f"{name}: {first_line(error)}")
            continue
        if worst <= TRIAL_TOLERANCE[dtype]:
            for reason in reasons:
                logger.debug("attention %s", reason)
            return form
        reasons.append(f"{name}: it is off by {worst:.2g}")
    raise ZooError(f"attention cannot be computed here in {dtype} with {heads} heads of {size}: {'; '.join(reasons)}")


def _trial(
    form: Attention, heads: int, size: int, reach: int | None, dtype: torch.dtype, device: torch.device
) -> float:
    """Largest difference from attention row by row in float32, of every row and of the first tokens alone; infinity for NaN."""
    generator = torch.Generator().manual_seed(0)
    tokens, longest = sum(TRIAL_LENGTHS), max(TRIAL_LENGTHS)
    q, k, v = (torch.randn(tokens, heads, size, generator=generator).to(device, dtype) for _ in range(3))
    borders = torch.tensor([0, *TRIAL_LENGTHS]).cumsum(0)
    slots = torch.cat([torch.arange(n) + row * longest for row, n in enumerate(TRIAL_LENGTHS)])
    layout = Layout(
        borders=borders.to(device, torch.int32),
        slots=slots.to(device, torch.int32),
        rows=len(TRIAL_LENGTHS),
        longest=longest,
    )
    reach = (
        None if reach is None else min(reach, 5)
    )  # else no row of the trial is longer than a window, and windows are not tried
    right = _row_by_row(q, k, v, reach)
    worst = float((form(q, k, v, layout, reach).float() - right).abs().max())
    whole = right if reach is None else _row_by_row(q, k, v, None)
    first = form.first(q.index_select(0, layout.first), k, v, layout)
    worst_first = float((first.float() - whole.index_select(0, layout.first)).abs().max())
    return max(worst, worst_first) if worst == worst and worst_first == worst_first else float("inf")


def _row_by_row(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, reach: int | None) -> torch.Tensor:
    parts = []
    for row in zip(*(x.float().split(list(TRIAL_LENGTHS)) for x in (q, k, v)), strict=True):
        a, b, c = (x.transpose(0, 1) for x in row)
        weights = a @ b.transpose(1, 2) / q.shape[-1] ** 0.5
        if reach is not None:
            place = torch.arange(a.shape[1], device=q.device)
            weights = weights.masked_fill((place[:, None] - place).abs() > reach, float("-inf"))
        parts.append((weights.softmax(-1) @ c).transpose(0, 1))
    return torch.cat(parts)
