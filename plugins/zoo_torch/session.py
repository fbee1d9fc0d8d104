"""A model on a device as a session: batches go in, futures of logits come out; one thread starts batches, another one collects them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.errors import ScoreError, ZooError
from zoo.types import ShapeRule, Tensors
from zoo_torch.budget import Budget
from zoo_torch.lanes import Lane, Pending
from zoo_torch.model import Model, Stopped
from zoo_torch.packing import HostBatch

logger = logging.getLogger("zoo.torch")

OUTPUT = "logits"
CLOSING = 20.0
"""Seconds that closing waits for the batches that are running."""
OUT_OF_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory", "not enough memory")
"""What errors say that are not torch.OutOfMemoryError and mean it: of cuBLAS's workspace, of the CPU's allocator."""


class NotFiniteError(ScoreError):
    """A logit is NaN or infinite; ``row`` is its row in the batch."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row

    def __reduce__(self) -> tuple[type[NotFiniteError], tuple[str, int]]:
        return NotFiniteError, (str(self), self.row)


@dataclass
class Job:
    """A batch as it was handed in; it is computed whole, or in parts where the memory does not hold it."""

    inputs: Tensors
    future: Future[Tensors]
    logits: NDArray[np.float32] = field(init=False)
    missing: int = field(init=False)
    """Rows without a result so far."""

    def __post_init__(self) -> None:
        self.missing = len(next(iter(self.inputs.values())))
        self.logits = np.full((self.missing, 1), np.nan, dtype=np.float32)


Rows = tuple[int, int]
"""The first row of a part, and the one behind its last."""


class TorchSession:
    """One model on one device, called ``name`` in messages. ``advice`` is what to try where results are not finite."""

    def __init__(self, name: str, model: Model, lane: Lane, budget: Budget, advice: str) -> None:
        self._name, self._lane, self._advice = name, lane, advice
        self._model: Model | None = model
        self._longest = model.cost.longest
        self.input_names: Sequence[str] = list(model.input_names)
        self.shape_rule = ShapeRule(tokens=budget.wanted, parallel_batches=2 if lane.in_flight > 1 else 1)
        self._limit = budget.limit
        self._seconds = 0.0
        self._closing = False
        self._lock = threading.Lock()
        self._waiting: SimpleQueue[Job | None] = SimpleQueue()
        self._started: SimpleQueue[tuple[Job, Rows, Pending] | None] = SimpleQueue()
        self._places = threading.Semaphore(lane.in_flight)
        self._threads = [
            threading.Thread(target=target, name=f"zoo-{name}-{target.__name__.strip('_')}", daemon=True)
            for target in (self._start, self._collect)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def device_seconds(self) -> float:
        """Seconds the device has computed so far: by events on a card, by the clock on a CPU."""
        return self._seconds

    def submit(self, inputs: Tensors, outputs: Collection[str] | None = None) -> Future[Tensors]:
        """Start a batch: int64 arrays of shape (rows, length). The future gives ``logits``, float32 of shape (rows, 1)."""
        if unknown := set(outputs or ()) - {OUTPUT}:
            raise ZooError(f"{self._name} has no output '{sorted(unknown)[0]}'; it has '{OUTPUT}'")
        future: Future[Tensors] = Future()
        with self._lock:
            if self._closing:
                raise ZooError("this session is closed")
            self._waiting.put(Job({name: inputs[name] for name in self.input_names}, future))
        return future

    def close(self) -> None:
        with self._lock:
            if self._closing:
                return
            self._closing = True
        self._waiting.put(None)
        for thread in self._threads:
            thread.join(CLOSING)
        if any(thread.is_alive() for thread in self._threads):
            logger.warning("%s did not finish its batch within %.0f s: its memory is not released", self._name, CLOSING)
            return
        self._model = None
        self._lane.close()

    def __enter__(self) -> TorchSession:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- the thread that starts batches ---

    def _start(self) -> None:
        while (job := self._waiting.get()) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                self._check_open()
                self._start_parts(job)
            except Stopped:
                _fail(job, ZooError("this session is closed"))
            except ZooError as error:
                _fail(job, error)
            except Exception as error:  # torch raises RuntimeError for nearly everything
                _fail(job, self._blamed(job, error))
        self._started.put(None)

    def _start_parts(self, job: Job) -> None:
        assert self._model is not None
        lengths = (job.inputs["attention_mask"] != 0).sum(axis=1)
        waiting = deque(self._parts(lengths, (0, len(lengths))))
        while waiting and not job.future.done():  # done: an earlier part has failed
            first, end = rows = waiting.popleft()
            batch = self._model.prepare({name: array[first:end] for name, array in job.inputs.items()})
            pending = self._begin(batch)
            if pending is not None:
                self._started.put((job, rows, pending))
            else:
                self._shrink(batch)
                waiting.extendleft(reversed(self._parts(lengths, rows)))

    def _begin(self, batch: HostBatch) -> Pending | None:
        """Start a batch, or None where the memory does not hold it.

        The error is not kept: its traceback holds the tensors that the forward pass had made so far.
        """
        self._places.acquire()
        try:
            return self._lane.start(batch, self._check_open)
        except BaseException as error:
            self._places.release()
            if not _is_out_of_memory(error):
                raise
            logger.debug("%s: %s", self._name, _first_line(error))
            return None

    def _parts(self, lengths: NDArray[Any], rows: Rows) -> list[Rows]:
        """``rows`` cut so that each part keeps to the limit of tokens, padded to its longest row; a row is never cut."""
        parts: list[Rows] = []
        first, longest = rows[0], 0
        for row in range(*rows):
            longest = max(longest, int(lengths[row]))
            if row > first and (row + 1 - first) * longest > self._limit:
                parts.append((first, row))
                first, longest = row, int(lengths[row])
        return [*parts, (first, rows[1])]

    def _shrink(self, batch: HostBatch) -> None:
        """Halve the tokens of a batch after the memory has run out. Raises ZooError where a single row was too much."""
        for _ in range(self._lane.in_flight):  # what is under way holds memory too: wait for it
            self._places.acquire()
        for _ in range(self._lane.in_flight):
            self._places.release()
        free = self._lane.free_memory()
        remark = "" if free is None else f" ({free / 2**30:.2f} GiB are free)"
        if batch.rows == 1:
            raise ZooError(
                f"{self._name}: a pair of {batch.tokens:,} tokens does not fit the memory{remark}. Use a smaller --shape, or end what "
                "else uses the device's memory"
            )
        self._limit = max(min(batch.tokens, self._limit) // 2, 1)
        wanted = min(self.shape_rule.tokens or self._limit, self._limit)
        self.shape_rule = replace(self.shape_rule, tokens=wanted)
        logger.warning(
            "%s: the memory does not hold a batch of %d rows, %s tokens%s; it is computed in parts, and batches have at most %s tokens "
            "from now on",
            self._name, batch.rows, f"{batch.tokens:,}", remark, f"{self._limit:,}",
        )  # fmt: skip

    def _check_open(self) -> None:
        if self._closing:
            raise Stopped

    # --- the thread that collects results ---

    def _collect(self) -> None:
        while (item := self._started.get()) is not None:
            job, rows, pending = item
            try:
                logits, seconds = pending.wait()
            except Exception as error:
                _fail(job, self._blamed(job, error))
            else:
                self._seconds += seconds
                self._take(job, rows, logits)
            finally:
                self._places.release()

    def _take(self, job: Job, rows: Rows, logits: NDArray[np.float32]) -> None:
        if not np.isfinite(logits).all():
            row = rows[0] + int(np.argmin(np.isfinite(logits)))
            tokens = int((job.inputs["attention_mask"][row] != 0).sum())
            value = logits[row - rows[0]]
            _fail(
                job,
                NotFiniteError(
                    f"{self._name}: row {row} of a batch ({tokens} tokens) has the score {value}. {self._advice}", row
                ),
            )
            return
        job.logits[rows[0] : rows[1], 0] = logits
        job.missing -= rows[1] - rows[0]
        if not job.missing:
            _settle(job, {OUTPUT: job.logits})

    def _blamed(self, job: Job, error: BaseException) -> ZooError:
        rows, length = next(iter(job.inputs.values())).shape
        fault = ZooError(f"{self._name} failed in a batch of {rows} rows of {length} tokens: {_first_line(error)}")
        fault.__cause__ = error
        return fault


def _settle(job: Job, result: Tensors) -> None:
    try:
        job.future.set_result(result)
    except InvalidStateError:
        logger.debug("a part of a batch came back after the batch had failed")


def _fail(job: Job, error: ZooError) -> None:
    try:
        job.future.set_exception(error)
    except InvalidStateError:
        logger.debug("a part of a batch failed after the batch had: %s", error)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in OUT_OF_MEMORY)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
