"""Batches on a device: copied to it, computed, their logits copied back.

On a card nothing waits for the host: a batch's arrays go through pinned memory on a stream of their own while the batch before is computed,
and its logits come back the same way. The time a batch takes is read from events on the computing stream.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from zoo_torch.model import Check, Model
from zoo_torch.packing import HostBatch

Logits = NDArray[np.float32]

IN_FLIGHT = 3
"""Batches that a card has been given: it computes one, and the next begin without asking the host."""


class Pending(Protocol):
    """A batch that has been started."""

    def wait(self) -> tuple[Logits, float]:
        """Its logits, shape (rows,), and the seconds the device took. Raises what went wrong on the device."""
        ...


class Executor(Protocol):
    """Runs batches on one device. ``start`` is called from one thread, ``wait`` of what it gives from another."""

    in_flight: int

    def start(self, batch: HostBatch, between_layers: Check) -> Pending:
        """Begin a batch; at most ``in_flight`` may be begun and not waited for. Raises when the device's memory does not hold it."""
        ...

    def free_memory(self) -> int | None:
        """Bytes, after giving back what the allocator keeps; None where that is not known."""
        ...

    def close(self) -> None: ...


class Done:
    """A batch that was computed when it was started."""

    def __init__(self, logits: Logits, seconds: float) -> None:
        self._result = logits, seconds

    def wait(self) -> tuple[Logits, float]:
        return self._result


class CpuExecutor:
    """The CPU: a batch is computed by the thread that starts it."""

    in_flight = 1

    def __init__(self, model: Model) -> None:
        self._model = model

    def start(self, batch: HostBatch, between_layers: Check) -> Done:
        started = time.perf_counter()
        tensors = {name: torch.from_numpy(array) for name, array in batch.arrays.items()}
        with torch.inference_mode():
            logits = self._model.forward(tensors, batch, between_layers).numpy()
        return Done(logits, time.perf_counter() - started)

    def free_memory(self) -> None:
        return None

    def close(self) -> None:
        pass


class CudaExecutor:
    """One card. ``cuda`` is ``torch.cuda``; tests give something that acts like it where there is no card."""

    in_flight = IN_FLIGHT

    def __init__(self, model: Model, device: torch.device, cuda: Any = torch.cuda) -> None:
        self._model, self._device, self._cuda = model, device, cuda
        with cuda.device(device):
            self._copying, self._computing = cuda.Stream(), cuda.Stream()
            self._slots = deque(Slot(device, self._copying, cuda) for _ in range(self.in_flight))
        cuda.synchronize(device)  # the weights were put there on another stream

    def start(self, batch: HostBatch, between_layers: Check) -> OnCard:
        cuda, slot = self._cuda, self._slots.popleft()
        try:
            with cuda.device(self._device):
                tensors = slot.send(batch)
                with torch.inference_mode(), cuda.stream(self._computing):
                    self._computing.wait_event(slot.sent)
                    slot.begun.record()
                    logits = self._model.forward(tensors, batch, between_layers)
                    back = slot.bring_back(logits)
                    slot.ended.record()
        except BaseException:
            with contextlib.suppress(RuntimeError):  # a card that has failed fails again; the first error tells more
                cuda.synchronize(self._device)  # what was begun may still read the slot
            self._slots.append(slot)
            raise
        return OnCard(slot, back, self._slots)

    def free_memory(self) -> int:
        self._cuda.synchronize(self._device)
        self._cuda.empty_cache()
        return int(self._cuda.mem_get_info(self._device)[0])

    def close(self) -> None:
        self._slots.clear()
        del self._model
        self._cuda.empty_cache()


class OnCard:
    """A batch that a card computes."""

    def __init__(self, slot: Slot, logits: torch.Tensor, idle: deque[Slot]) -> None:
        self._slot, self._logits, self._idle = slot, logits, idle

    def wait(self) -> tuple[Logits, float]:
        try:
            self._slot.ended.synchronize()
            # The slot's memory is used again, so the caller gets a copy.
            return self._logits.numpy().copy(), self._slot.begun.elapsed_time(self._slot.ended) / 1000
        finally:
            self._idle.append(self._slot)


class Slot:
    """Memory and events for one batch on its way. It is used again when the batch has come back."""

    def __init__(self, device: torch.device, copying: Any, cuda: Any) -> None:
        self._device, self._copying, self._cuda = device, copying, cuda
        self._there = self._here = self._back = torch.empty(0, dtype=torch.int32)
        self.sent = cuda.Event()
        self.begun, self.ended = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)

    def send(self, batch: HostBatch) -> Mapping[str, torch.Tensor]:
        """All arrays in one copy. The tensors may be read behind the event ``sent``."""
        sizes = [array.size for array in batch.arrays.values()]
        ends = list(itertools.accumulate(sizes))
        if ends[-1] > len(self._here):
            self._grow(ends[-1])
        staged = self._here.numpy()
        for array, end in zip(batch.arrays.values(), ends, strict=True):
            staged[end - array.size : end] = array.ravel()
        with self._cuda.stream(self._copying):
            self._there[: ends[-1]].copy_(self._here[: ends[-1]], non_blocking=True)
            self.sent.record()
        return {
            name: self._there[end - array.size : end].view(array.shape)
            for (name, array), end in zip(batch.arrays.items(), ends, strict=True)
        }

    def bring_back(self, logits: torch.Tensor) -> torch.Tensor:
        """Pinned memory that holds ``logits`` once the current stream has come so far."""
        if len(logits) > len(self._back) or self._back.dtype != torch.float32:
            self._back = torch.empty(2 * len(logits), dtype=torch.float32, pin_memory=self._pinned)
        back = self._back[: len(logits)]
        back.copy_(logits, non_blocking=True)
        return back

    def _grow(self, size: int) -> None:
        # Allocated for the copying stream, so that no memory is taken over that the computing stream still reads.
        with self._cuda.stream(self._copying):
            self._there = torch.empty(2 * size, dtype=torch.int32, device=self._device)
        self._here = torch.empty(2 * size, dtype=torch.int32, pin_memory=self._pinned)

    @property
    def _pinned(self) -> bool:
        return bool(self._device.type == "cuda")
