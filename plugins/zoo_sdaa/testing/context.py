"""Contexts of the fake runtime: they compute, and raise ContractError for a call that the contract does not allow."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo_sdaa.testing.faults import perhaps_fail
from zoo_sdaa.testing.graph import Program
from zoo_sdaa.testing.machine import card, chat, demand, engines, machine, record
from zoo_sdaa.testing.tensors import Device, Tensor
from zoo_sdaa.testing.versions import Versioned


class Call:
    """One asynchronous run. Outputs lie in the context's one output memory, which the next call takes."""

    def __init__(self, context: Context, inputs: Mapping[str, NDArray[Any]], previous: Call | None) -> None:
        self._context, self._inputs, self._previous = context, inputs, previous
        self._error: Exception | None = None
        self.fetched = False
        self.successor: Call | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        if self._previous is not None:
            self._previous.wait()
            self._previous = None
        try:
            self._context._compute(self._inputs)
        except Exception as error:
            self._error = error

    def wait(self) -> None:
        self._thread.join()

    def get(self) -> Outputs:
        """Outputs of this call or, if another one was submitted before they were fetched, of that one."""
        last = self
        while last.successor is not None:
            last = last.successor
        last.wait()
        if self._error is not None:
            raise self._error
        self.fetched = True
        return Outputs(self._context)


class Outputs:
    """What a future gives: outputs by index, and nothing else that a list has."""

    __iter__ = None  # or Python would iterate by index

    def __init__(self, context: Context) -> None:
        self._context = context

    def __getitem__(self, index: int) -> OutputTensor:
        return OutputTensor(self._context, self._context._memory[index])


class OutputTensor(Tensor):
    """Its ``numpy`` shows a buffer that all outputs of a context share: the next one overwrites it."""

    def __init__(self, context: Context, array: NDArray[Any]) -> None:
        super().__init__(array)
        self._context = context

    def numpy(self) -> NDArray[Any]:
        shown = np.frombuffer(self._context._shown, self._array.dtype, self._array.size).reshape(self._array.shape)
        shown[...] = self._array
        return shown


class Context(Versioned):
    """What both generations' contexts share."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._released = False
        self._memory: list[NDArray[Any]] = []
        self._shown = bytearray()
        self._last: Call | None = None
        self._set: dict[str, NDArray[Any]] = {}
        self._ran = False
        self._milliseconds = 0.0

    def _alive(self, what: str) -> None:
        demand(not self._released, f"{what} of a context that was released")

    def _submit(self, arrays: Sequence[NDArray[Any]]) -> Call:
        self._alive("run_async")
        names = self._program.inputs
        demand(len(arrays) == len(names), f"run_async was given {len(arrays)} inputs; the graph has {', '.join(names)}")
        inputs = dict(zip(names, arrays, strict=True))
        for name, array in inputs.items():
            self._program.check(name, array, engines())
        record("call", rows=len(arrays[0]), card=card(), repeated=_repeated(arrays))
        if self._last is not None:
            if not self._last.fetched:
                self._last.wait()
            for array in self._memory:
                array[...] = -array - 1  # the memory is the next call's now
            if self._memory:
                OutputTensor(self, self._memory[0]).numpy()  # and so is the buffer that outputs are shown in
        previous, call = self._last, Call(self, inputs, self._last)
        if previous is not None and not previous.fetched:
            previous.successor = call
        self._last = call
        return call

    def _compute(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        perhaps_fail()
        chat("a call begins")
        started = time.perf_counter()
        outputs = self._program.run(inputs)
        taken = time.perf_counter() - started
        wanted = machine().device_seconds
        threading.Event().wait(max(wanted - taken, 0.0))
        self._milliseconds += (wanted or taken) * 1e3
        if not self._memory:
            self._memory = [np.empty_like(output) for output in outputs]
            self._shown = bytearray(max(output.nbytes for output in outputs))
        for array in inputs.values():
            array[...] = -1  # the inputs' memory is workspace while a call runs
        for memory, output in zip(self._memory, outputs, strict=True):
            memory[...] = output

    def get_num_outputs(self) -> int:
        self._alive("get_num_outputs")
        demand(self._ran, "get_num_outputs before executor_run")
        return len(self._memory)

    def release(self) -> None:
        demand(not self._released, "a context was released twice")
        if self._last is not None:
            self._last.wait()
        self._released = True
        chat("context released")
        record("context released", id=id(self), milliseconds=self._milliseconds)


class Context1(Context):
    """Generation 1."""

    _timing = False

    def run_async(self, tensors: Sequence[Tensor]) -> Call:
        for tensor in tensors:
            demand(
                isinstance(tensor, Tensor),
                f"run_async takes tensors of tvm.runtime.from_numpy, not {type(tensor).__name__}",
            )
        return self._submit([tensor.numpy() for tensor in tensors])

    def set_input(self, name: str, array: NDArray[Any], dev: Device) -> None:
        self._alive("set_input")
        demand(name in self._program.inputs, f"there is no input '{name}'")
        self._program.check(name, array, 1)
        self._set[name] = array

    def executor_run(self, *, dev: Device) -> None:
        self._alive("executor_run")
        lacking = [name for name in self._program.inputs if name not in self._set]
        demand(not lacking, f"executor_run before the inputs {', '.join(lacking)} were set")
        record("call", rows=len(next(iter(self._set.values()))), card=card(), spa=dev.index)
        self._compute(self._set)
        self._ran = dev.unsynchronised = True

    def get_output(self, index: int, dev: Device) -> Tensor:
        self._alive("get_output")
        demand(self._ran, "get_output before executor_run")
        demand(not dev.unsynchronised, "get_output before sync")
        return Tensor(self._memory[index])

    def start_timing(self) -> None:
        self._alive("start_timing")
        self._timing, self._milliseconds = True, 0.0

    def get_infer_time(self) -> list[float]:
        self._alive("get_infer_time")
        demand(self._timing, "get_infer_time without start_timing")
        return [self._milliseconds * share for share in (1.0, 0.98, 0.96, 0.94)[: engines()]]


class Context2(Context):
    """Generation 2."""

    def run_async(self, arrays: Sequence[NDArray[Any]]) -> Call:
        for array in arrays:
            demand(isinstance(array, np.ndarray), f"run_async takes numpy arrays, not {type(array).__name__}")
        return self._submit(arrays)

    def set_input(self, key: int | str, array: NDArray[Any]) -> None:
        self._alive("set_input")
        name = self._program.inputs[key] if isinstance(key, int) else key
        demand(name in self._program.inputs, f"there is no input '{name}'")
        self._program.check(name, array, 1)
        self._set[name] = array

    def executor_run(self) -> None:
        self._alive("executor_run")
        lacking = [name for name in self._program.inputs if name not in self._set]
        demand(not lacking, f"executor_run before the inputs {', '.join(lacking)} were set")
        record("call", rows=len(next(iter(self._set.values()))), card=card())
        self._compute(self._set)
        self._ran = True

    def get_output(self, index: int) -> NDArray[Any]:
        self._alive("get_output")
        demand(self._ran, "get_output before executor_run")
        return self._memory[index]


def _repeated(arrays: Sequence[NDArray[Any]]) -> int:
    """How many rows at the end repeat the row before them, as padding does."""
    rows = len(arrays[0])
    count = 0
    while count + 1 < rows and all((a[rows - 1 - count] == a[rows - 2 - count]).all() for a in arrays):
        count += 1
    return count
