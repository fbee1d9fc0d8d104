"""An opened ONNX Runtime session."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from zoo.api import BatchThreads, ShapeRule, Tensors, ZooError, import_onnxruntime

if TYPE_CHECKING:
    import onnxruntime

BATCH_TOKENS = 256
"""Slots of a batch. Larger ones gain nothing on a CPU, where one pair of 128 tokens keeps a thread's matrix units busy, and pad more.

Measured on mixed lengths, two threads with a batch each: with 6 layers 256 slots ran at 1.02 times the speed of 512 (padding 0.4 and
2 %) and 128 at 1.05; with the embedded model 1.00 and 0.94; with 24 layers of 1,024 there was no difference beyond the noise."""


class CpuSession:
    """One ONNX Runtime session, called from ``parallel_batches`` threads at once; they share its weights."""

    def __init__(self, session: onnxruntime.InferenceSession, parallel_batches: int = 1) -> None:
        self._session = session
        self._types = {node.name: node.type for node in session.get_inputs()}
        self.input_names: Sequence[str] = list(self._types)
        self._outputs = [node.name for node in session.get_outputs()]
        self.shape_rule = _shape_rule(session.get_inputs(), parallel_batches)
        self._threads = BatchThreads(parallel_batches, "zoo-cpu")

    @property
    def device_seconds(self) -> None:
        """ONNX Runtime counts no time of its own."""
        return

    def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
        return self._threads.submit(self._run, inputs, list(outputs or self._outputs))

    def _run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        options = import_onnxruntime().RunOptions()

        def stop() -> None:
            options.terminate = True  # a batch of long passages takes minutes; it ends at its next node

        try:
            feed = {
                name: array.astype("int32") if self._types[name] == "tensor(int32)" else array
                for name, array in inputs.items()
            }
            with self._threads.running(stop):
                return dict(zip(outputs, self._session.run(outputs, feed, options), strict=True))
        except ZooError:
            raise
        except Exception as error:  # ONNX Runtime raises classes of its own that differ between versions
            shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
            raise ZooError(f"ONNX Runtime failed on a batch ({shapes}): {error}") from error

    def close(self) -> None:
        self._threads.close()
        self._session = None  # the weights are given back, though somebody may keep this object

    def __enter__(self) -> CpuSession:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _shape_rule(inputs: Sequence[Any], parallel_batches: int) -> ShapeRule:
    """The fixed batch and length of a graph exported without dynamic axes; a budget of tokens where they are symbolic."""
    rows, length = [*inputs[0].shape, None, None][:2] if inputs else (None, None)
    return ShapeRule(
        rows=rows if isinstance(rows, int) else None,
        length=length if isinstance(length, int) else None,
        tokens=BATCH_TOKENS,
        parallel_batches=parallel_batches,
    )
