"""An opened OpenVINO model."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from zoo.api import BatchThreads, ShapeRule, Tensors, ZooError

if TYPE_CHECKING:
    import openvino

BATCH_TOKENS = 512
"""Slots of a batch; see the device ``cpu``."""


class OpenVinoSession:
    """One compiled model with ``parallel_batches`` streams, each with a request and a thread of its own."""

    def __init__(self, compiled: openvino.CompiledModel, parallel_batches: int) -> None:
        self._outputs = {port: port.get_any_name() for port in compiled.outputs}
        self.input_names: Sequence[str] = [port.get_any_name() for port in compiled.inputs]
        self.shape_rule = _shape_rule(compiled.inputs, parallel_batches)
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(parallel_batches):
            self._idle.put(compiled.create_infer_request())
        self._threads = BatchThreads(parallel_batches, "zoo-openvino")

    @property
    def device_seconds(self) -> None:
        """OpenVINO counts no time of its own over all batches."""
        return

    def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
        return self._threads.submit(self._run, inputs, outputs)

    def _run(self, inputs: Tensors, outputs: Sequence[str] | None) -> Tensors:
        request = self._idle.get()  # as many as there are threads, so never waited for
        try:
            start = functools.partial(request.start_async, dict(inputs), share_inputs=True)
            with self._threads.running(request.cancel, start):  # to cancel a request that has not started does nothing
                request.wait()
            wanted = {port: name for port, name in self._outputs.items() if outputs is None or name in outputs}
            return {name: request.get_tensor(port).data.copy() for port, name in wanted.items()}
        except ZooError:
            raise
        except Exception as error:  # see OpenVinoDevice.open
            shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
            raise ZooError(f"OpenVINO failed on a batch ({shapes}): {error}") from error
        finally:
            self._idle.put(request)

    def close(self) -> None:
        self._threads.close()

    def __enter__(self) -> OpenVinoSession:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _shape_rule(inputs: Sequence[Any], parallel_batches: int) -> ShapeRule:
    """The fixed batch and length of a graph exported without dynamic axes; a budget of tokens where they are symbolic."""
    rows, length = (
        dimension.get_length() if dimension.is_static else None for dimension in list(inputs[0].partial_shape)[:2]
    )
    return ShapeRule(rows=rows, length=length, tokens=BATCH_TOKENS, parallel_batches=parallel_batches)
