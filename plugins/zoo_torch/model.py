"""What a session needs of a model, whichever way it computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from zoo.api import Tensors
from zoo_torch.packing import HostBatch

if TYPE_CHECKING:
    import torch


class Stopped(Exception):  # noqa: N818  # not an error: the session is closing
    """Raised by ``between_layers`` to leave a forward pass."""


Check = Callable[[], None]
"""Called between layers; it raises Stopped when the session is closing."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a token of a batch takes on the device, to choose how many go into one."""

    operations: float
    """Floating-point operations of the products with weights."""
    bytes: float
    """Memory of the largest activations that live at once."""
    longest: int
    """Tokens of a row at most."""


class Model(Protocol):
    """Weights on a device. ``described`` says for the log how it computes."""

    input_names: Sequence[str]
    described: str
    cost: Cost

    def prepare(self, inputs: Tensors) -> HostBatch:
        """Arrays for the device from int64 arrays of shape (rows, length). Runs on the host and reads nothing from the device.

        Raises ZooError for ids or lengths that the model's tables do not have.
        """
        ...

    def forward(self, tensors: Mapping[str, torch.Tensor], batch: HostBatch, between_layers: Check) -> torch.Tensor:
        """``batch.arrays`` on the device, int32, to logits: float32, shape (rows,)."""
        ...
