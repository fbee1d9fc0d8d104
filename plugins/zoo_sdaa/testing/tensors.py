"""Tensors and devices of the fake runtime: views of memory that somebody else writes to."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from zoo_sdaa.testing.machine import demand, visible_spas


class Tensor:
    """What ``from_numpy`` makes: a view of the caller's memory. An output's tensor is a view of the runtime's memory."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    def numpy(self) -> NDArray[Any]:
        return self._array


class Device:
    """One SPA."""

    def __init__(self, kind: str, index: int = 0) -> None:
        demand(kind == "sdaa", f"there is no device type '{kind}'")
        demand(0 <= index < visible_spas(), f"there is no SPA {index}; this process sees {visible_spas()}")
        self.index = index
        self.unsynchronised = False

    def sync(self) -> None:
        self.unsynchronised = False


def from_numpy(array: NDArray[Any]) -> Tensor:
    """``tvm.runtime.from_numpy`` (generation 1)"""
    demand(array.flags.c_contiguous, "from_numpy was given an array that is not contiguous")
    return Tensor(array)
