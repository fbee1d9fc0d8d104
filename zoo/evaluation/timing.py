"""Where the time of a run goes: a participant that looks on at its stages, and the figures made of it (docs/evaluation.md)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

from zoo.registry.markers import hookimpl
from zoo.scoring.scorer import RunStats
from zoo.statistics import percentile
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


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds and rates of this invocation; batches that the journal had are not in them."""

    e2e: float
    """From the first byte of the data read to the last score."""
    data: float
    """In all, that the device had nothing to do."""
    inference: float
    """A batch, on the device."""
    preprocess: float
    postprocess: float
    pairs: int
    pairs_per_second: float
    tokens_per_second: float
    vendor_samples_per_second: float
    """Rows that only fill a fixed shape counted as samples, as Tecorigin does."""
    batches: int
    recalled_batches: int
    latency: Mapping[str, float]

    @classmethod
    def of(cls, e2e: float, watch: Stopwatch, stats: RunStats, recalled_batches: int, recalled_rows: int) -> Timing:
        """What the stopwatch saw, a batch; ``recalled_rows`` of the stats's pairs came from the journal."""
        rows = sum(batch.rows for batch in watch.batches)
        surplus = max(rows + recalled_rows - stats.pairs, 0)
        pairs, count = max(rows - surplus, 0), max(len(watch.batches), 1)
        seconds = [batch.seconds for batch in watch.batches]
        return cls(
            e2e=e2e,
            data=watch.idle,
            inference=sum(seconds) / count,
            preprocess=watch.preprocess / count,
            postprocess=watch.postprocess / count,
            pairs=pairs,
            pairs_per_second=pairs / e2e,
            tokens_per_second=sum(batch.tokens for batch in watch.batches) / e2e,
            vendor_samples_per_second=rows / e2e,
            batches=len(watch.batches),
            recalled_batches=recalled_batches,
            latency={f"p{share}": percentile(seconds, share / 100) for share in (50, 90, 99)},
        )

    def by_counter(self, device_seconds: float | None) -> Timing:
        """The same, with the device's time by its runtime's own counter where it has one."""
        return self if device_seconds is None else replace(self, inference=device_seconds / max(self.batches, 1))

    @property
    def summary(self) -> str:
        """Tecorigin's summary line, to the letter."""
        return (
            f"summary: avg_sps: {self.pairs_per_second}, e2e_time: {self.e2e}, data_time: {self.data}, "
            f"avg_inference_time: {self.inference}, avg_preprocess_time: {self.preprocess}, avg_postprocess: {self.postprocess}"
        )
