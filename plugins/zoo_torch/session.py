"""A model on a device as a session: batches go in, futures of logits come out; one thread starts batches, another one collects them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from queue import SimpleQueue

from zoo.api import ShapeRule, Tensors, ZooError
from zoo_torch.budget import Budget
from zoo_torch.executors import Executor, Pending
from zoo_torch.faults import first_line, is_out_of_memory
from zoo_torch.jobs import OUTPUT, Job, Rows
from zoo_torch.model import Model, Stopped
from zoo_torch.packing import HostBatch

logger = logging.getLogger("zoo.torch")

CLOSING = 20.0
"""Seconds that closing waits for the batches that are running."""
CLOSED = "this session is closed"


class TorchSession:
    """One model on one device, called ``name`` in messages."""

    def __init__(self, name: str, model: Model, executor: Executor, budget: Budget) -> None:
        self._name, self._executor = name, executor
        self._model: Model | None = model
        self.input_names: Sequence[str] = list(model.input_names)
        self.shape_rule = ShapeRule(
            tokens=budget.wanted, auto_rows=budget.rows, parallel_batches=2 if executor.in_flight > 1 else 1
        )
        self._limit = budget.limit
        self._seconds = 0.0
        self._closing = False
        self._lock = threading.Lock()
        self._waiting: SimpleQueue[Job | None] = SimpleQueue()
        self._started: SimpleQueue[tuple[Job, Rows, Pending] | None] = SimpleQueue()
        self._slots = threading.Semaphore(executor.in_flight)
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

    def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
        """Start a batch: int64 arrays of shape (rows, length). The future gives ``logits``, float32 of shape (rows, 1)."""
        if unknown := set(outputs or ()) - {OUTPUT}:
            raise ZooError(f"{self._name} has no output '{min(unknown)}'; it has '{OUTPUT}'")
        job = Job({name: inputs[name] for name in self.input_names})
        with self._lock:
            if self._closing:
                raise ZooError(CLOSED)
            self._waiting.put(job)
        return job.future

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
        self._executor.close()

    def __enter__(self) -> TorchSession:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # The thread that starts batches.

    def _start(self) -> None:
        while (job := self._waiting.get()) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                self._check_open()
                self._start_parts(job)
            except Stopped:
                job.fail(ZooError(CLOSED))
            except ZooError as error:
                job.fail(error)
            except Exception as error:  # torch raises RuntimeError for nearly everything
                job.fail(self._blamed(job, error))
        self._started.put(None)

    def _start_parts(self, job: Job) -> None:
        assert self._model is not None
        waiting = deque(job.parts(job.rows, self._limit))
        while waiting and not job.future.done():  # done: an earlier part has failed
            rows = waiting.popleft()
            batch = self._model.prepare(job.part(rows))
            pending = self._begin(batch)
            if pending is not None:
                self._started.put((job, rows, pending))
            else:
                self._shrink(batch)
                waiting.extendleft(reversed(job.parts(rows, self._limit)))

    def _begin(self, batch: HostBatch) -> Pending | None:
        """Start a batch, or None where the memory does not hold it.

        The error is not kept: its traceback holds the tensors that the forward pass had made so far.
        """
        self._slots.acquire()
        try:
            return self._executor.start(batch, self._check_open)
        except BaseException as error:
            self._slots.release()
            if not is_out_of_memory(error):
                raise
            logger.debug("%s: %s", self._name, first_line(error))
            return None

    def _shrink(self, batch: HostBatch) -> None:
        """Halve the tokens of a batch after the memory has run out. Raises ZooError where a single row was too much."""
        for _ in range(self._executor.in_flight):  # what is under way holds memory too: wait for it
            self._slots.acquire()
        for _ in range(self._executor.in_flight):
            self._slots.release()
        free = self._executor.free_memory()
        remark = "" if free is None else f" ({free / 2**30:.2f} GiB are free)"
        if batch.rows == 1:
            raise ZooError(
                f"{self._name}: a pair of {batch.tokens:,} tokens does not fit the memory{remark}. Use a smaller `max_length`, or end what "
                "else uses the device's memory"
            )
        self._limit = max(min(batch.rows * batch.longest, self._limit) // 2, 1)
        self.shape_rule = replace(self.shape_rule, tokens=min(self.shape_rule.tokens or self._limit, self._limit))
        logger.warning(
            "%s: the memory does not hold a batch of %d rows, %s tokens%s. It is computed in parts, and batches have at most %s tokens "
            "from now on",
            self._name, batch.rows, f"{batch.tokens:,}", remark, f"{self._limit:,}",
        )  # fmt: skip

    def _check_open(self) -> None:
        if self._closing:
            raise Stopped

    # The thread that collects results.

    def _collect(self) -> None:
        while (item := self._started.get()) is not None:
            job, rows, pending = item
            try:
                logits, seconds = pending.wait()
                self._seconds += seconds
                job.take(rows, logits)
            except ZooError as error:
                job.fail(error)
            except Exception as error:
                job.fail(self._blamed(job, error))
            finally:
                self._slots.release()

    def _blamed(self, job: Job, error: BaseException) -> ZooError:
        rows, length = job.inputs["attention_mask"].shape
        fault = ZooError(f"{self._name} failed in a batch of {rows} rows of {length} tokens: {first_line(error)}")
        fault.__cause__ = error
        return fault
