"""Where the time of a run goes: a participant that looks on at its stages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock
from typing import Any

from zoo.registry.markers import hookimpl
from zoo.types import BatchInfo, Pair, Session, Tensors


@dataclass(frozen=True)
class BatchTime:
    """One batch on the device."""

    rows: int
    length: int
    tokens: int
    seconds: float
    """From when it could begin (it was there, and the batch before it was done) to when it was done."""


class Stopwatch:
    """Times of the stages, in seconds. Stages overlap, so they may add up to more than the clock shows."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.batches: list[BatchTime] = []
        self.preprocess = self.postprocess = self.idle = 0.0
        self._in_flight = 0
        self._done: list[float] = []
        """When the last batches were done, as many as the device has parallel_batches."""
        self._quiet = time.perf_counter()
        """Since when the device has had nothing to do."""

    @hookimpl(specname="preprocess", wrapper=True)
    def time_preprocess(self, pairs: Sequence[Pair]) -> Any:
        started = time.perf_counter()
        try:
            return (yield)
        finally:
            with self._lock:
                self.preprocess += time.perf_counter() - started

    @hookimpl(specname="postprocess", wrapper=True)
    def time_postprocess(self, outputs: Tensors) -> Any:
        started = time.perf_counter()
        try:
            return (yield)
        finally:
            with self._lock:
                self.postprocess += time.perf_counter() - started

    @hookimpl(specname="infer", wrapper=True)
    def time_infer(self, session: Session, inputs: Tensors, batch: BatchInfo) -> Any:
        submitted = time.perf_counter()
        future: Future[Tensors] | None = yield
        if future is None:
            return future
        rows, length = next(iter(inputs.values())).shape[:2]
        parallel_batches = session.shape_rule.parallel_batches
        with self._lock:
            if not self._in_flight:
                self.idle += max(submitted - self._quiet, 0.0)
            self._in_flight += 1

        def done(_: Future[Tensors]) -> None:
            now = time.perf_counter()
            with self._lock:
                # With n parallel_batches it could begin when the n-th batch before it was done.
                begun = max(
                    submitted, self._done[-parallel_batches] if len(self._done) >= parallel_batches else submitted
                )
                self.batches.append(BatchTime(rows, length, batch.tokens, now - begun))
                self._done = [*self._done[-parallel_batches + 1 :], now] if parallel_batches > 1 else [now]
                self._in_flight -= 1
                self._quiet = now

        future.add_done_callback(done)
        return future
