"""One queue of pairs for everybody who asks at the same time: their pairs share batches, and each gets a fair share of the device.

A thread tokenises, a thread makes batches and starts them, and a thread collects. The next batch is made when the device can take
it, from what waits then (``zoo.scoring.waiting`` says how), so nothing waits for a batch to fill.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition, RLock, Thread

from zoo.errors import ClosedError, DeadlineError, PluginError, ZooError
from zoo.scoring.batch_runner import BatchRunner, check_finite
from zoo.scoring.batching import Batch
from zoo.scoring.handle import Handle as Handle
from zoo.scoring.waiting import Item, WaitingPairs, encodings_of
from zoo.types import Encodings, Pair, Scores, Tensors

logger = logging.getLogger(__name__)

BATCHES_AHEAD = 1
"""Batches that the device is given beyond those it computes at once, so that it never waits for the host."""

PATIENCE = 5.0
"""Seconds that closing waits for a batch that is being computed."""

ENDED_DEADLINES = 64
"""Deadlines of calls that have ended, above which they are cleared away."""


@dataclass(frozen=True, kw_only=True)
class BatchReport:
    """One batch that the device has computed. ``seconds`` is the device's busy time that it added: parallel batches share theirs."""

    pairs: int
    tokens: int
    slots: int
    calls: int
    """How many callers' pairs were in it."""
    seconds: float


@dataclass(frozen=True, eq=False)
class _RunningBatch:
    """A batch on the device."""

    items: list[Item]
    batch: Batch
    started: float


class ScoringQueue:
    """Scores pairs for any number of threads. Its threads are started by the first pairs, and end with ``close``.

    ``longest`` is the most tokens a pair has. ``on_batch`` is told of every batch, on the collecting thread.
    """

    def __init__(self, runner: BatchRunner, longest: int | None = None) -> None:
        self.on_batch: Callable[[BatchReport], None] | None = None
        self._runner = runner
        self._lock = RLock()
        self._texts_wait, self._batch_possible, self._some_finished, self._idle = (
            Condition(self._lock) for _ in range(4)
        )
        self._waiting = WaitingPairs(longest, runner.batch_tokens(longest))
        self._running: set[_RunningBatch] = set()
        self._finished: deque[tuple[_RunningBatch, Future[Tensors]]] = deque()
        self._last_finished = 0.0
        self._in_flight = 0
        self._max_in_flight = runner.session.shape_rule.parallel_batches + BATCHES_AHEAD
        self._form: Encodings | None = None
        self._exclusive = self._closed = False
        self._exclusive_wanted = 0
        self._open: set[Handle] = set()
        self._deadlines: list[tuple[float, int, Handle]] = []
        """A heap, in which those of ended calls may remain for a while."""
        self._threads: list[Thread] = []

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait for the device; of pairs that are not tokenised yet, as many as their characters let expect."""
        with self._lock:
            return self._waiting.tokens

    @property
    def queued_pairs(self) -> int:
        """Pairs that wait for the device, as text or tokenised."""
        with self._lock:
            return self._waiting.pairs

    @property
    def silent_seconds(self) -> float:
        """How long the device has had a batch without giving a result; 0 if it has none."""
        with self._lock:
            since = min((running.started for running in self._running), default=None)
        return 0.0 if since is None else max(time.monotonic() - max(since, self._last_finished), 0.0)

    def expected_tokens(self, pairs: Sequence[Pair]) -> int:
        """What ``pairs`` will count in ``queued_tokens`` until they are tokenised."""
        return self._waiting.expected_tokens(pairs)

    def submit(self, pairs: Sequence[Pair], *, deadline: float | None = None, truncate: bool = True) -> Handle:
        """Have ``pairs`` scored. ``deadline`` is a time of ``time.monotonic``; a call that has no result by then ends with DeadlineError.

        ``truncate`` False ends it with TooLongError if a pair is longer than the model reads. Either way pairs that the device does not
        have yet are dropped. Raises ClosedError.
        """
        handle = Handle(list(pairs), deadline, truncate, self.drop)
        with self._lock:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            free = self._idle.wait_for(lambda: self._closed or not (self._exclusive or self._exclusive_wanted), left)
            self._refuse_closed()
            if not free:
                handle.fail(_late())
            elif handle.pairs:
                self._open.add(handle)
                self._waiting.add(handle)
                self._start_threads()
                self._texts_wait.notify()
                if deadline is not None:
                    heapq.heappush(self._deadlines, (deadline, id(handle), handle))
                    self._batch_possible.notify()  # who waits there also watches the deadlines
        return handle

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody else's pairs are computed inside the block; whoever submits some waits until it ends."""
        with self._lock:
            self._exclusive_wanted += 1
            try:
                self._idle.wait_for(lambda: self._closed or not (self._exclusive or self._open or self._in_flight))
                self._refuse_closed()
                self._exclusive = True
            finally:
                self._exclusive_wanted -= 1
                self._idle.notify_all()
        try:
            yield
        finally:
            with self._lock:
                self._exclusive = False
                self._idle.notify_all()

    def drop(self, handle: Handle, error: BaseException) -> None:
        """End ``handle`` with ``error`` and forget its pairs that the device does not have."""
        with self._lock:
            self._forget(handle)
        handle.fail(error)

    def close(self) -> None:
        """End every open call with ClosedError and stop the threads. May be called again."""
        self._end(ClosedError("this reranker is closed"))
        deadline = time.monotonic() + PATIENCE
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))

    def _end(self, error: ZooError) -> None:
        with self._lock:
            self._closed = True
            left, self._open = self._open, set()
            self._waiting.clear()
            for condition in (self._texts_wait, self._batch_possible, self._some_finished, self._idle):
                condition.notify_all()
        for handle in left:
            handle.fail(error)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ClosedError("this reranker is closed")

    def _start_threads(self) -> None:
        if not self._threads:
            self._threads = [
                Thread(target=self._guarded, args=[work], name=f"zoo-queue-{name}", daemon=True)
                for name, work in (("tokenise", self._tokenise), ("infer", self._infer), ("collect", self._collect))
            ]
            for thread in self._threads:
                thread.start()

    def _guarded(self, work: Callable[[], None]) -> None:
        """A thread that failed by a fault of zoo's own would leave every caller waiting: they are told instead."""
        try:
            work()
        except BaseException as error:
            self._end(PluginError(f"the scoring queue failed: {type(error).__name__}: {error}"))
            raise

    def _forget(self, handle: Handle) -> None:
        self._waiting.forget(handle)
        self._open.discard(handle)
        self._idle.notify_all()
        self._texts_wait.notify()  # there may be room for another call's texts

    def _tokenise(self) -> None:
        while (turn := self._next_texts()) is not None:
            handle, start, end = turn
            began = time.monotonic()
            try:
                encodings = self._runner.pipeline.preprocess(handle.pairs[start:end])
                handle.tokenising += time.monotonic() - began
                handle.count(start, encodings)
            except BaseException as error:
                self.drop(handle, error)
                continue
            with self._lock:
                self._form = encodings
                self._waiting.add_tokenised(handle, start, encodings)
                self._batch_possible.notify()

    def _next_texts(self) -> tuple[Handle, int, int] | None:
        with self._lock:
            while not self._closed:
                turn = self._waiting.next_texts()
                if turn is not None:
                    return turn
                self._texts_wait.wait()
        return None

    def _infer(self) -> None:
        while (chosen := self._next_items()) is not None:
            self._compute(chosen)

    def _next_items(self) -> list[Item] | None:
        """The pairs of the next batch, when the device can take one; None when the queue is closed."""
        while True:
            failed: dict[Handle, BaseException] = {}
            chosen: list[Item] = []
            with self._lock:
                if self._closed:
                    return None
                for handle in self._late():
                    failed[handle] = _late()
                    self._forget(handle)
                if self._waiting.any_ready and self._in_flight < self._max_in_flight:
                    chosen = self._choose(failed)
                elif not failed:
                    soonest = max(self._deadlines[0][0] - time.monotonic(), 0) if self._deadlines else None
                    self._batch_possible.wait(soonest)
            for handle, error in failed.items():  # outside the lock: callbacks may do anything
                handle.fail(error)
            if chosen:
                return chosen

    def _late(self) -> list[Handle]:
        """Open calls whose deadline has come."""
        if len(self._deadlines) > 2 * len(self._open) + ENDED_DEADLINES:
            self._deadlines = [entry for entry in self._deadlines if entry[2] in self._open]
            heapq.heapify(self._deadlines)
        now, late = time.monotonic(), []
        while self._deadlines and (self._deadlines[0][0] <= now or self._deadlines[0][2] not in self._open):
            handle = heapq.heappop(self._deadlines)[2]
            if handle in self._open:
                late.append(handle)
        return late

    def _choose(self, failed: dict[Handle, BaseException]) -> list[Item]:
        try:
            chosen = self._waiting.next_batch(lambda items: self._runner.divided(self._encodings(items)))
        except Exception as error:  # a device's shape rule that makes no sense, or a pair that does not fit it
            for handle in {item.handle for item in self._waiting.candidates()}:
                failed[handle] = error
                self._forget(handle)
            return []
        now = time.monotonic()
        for item in chosen:
            item.handle.started += 1
            item.handle.first_started = item.handle.first_started or now
        self._in_flight += bool(chosen)
        self._texts_wait.notify()
        return chosen

    def _encodings(self, items: Sequence[Item]) -> Encodings:
        assert self._form is not None
        return encodings_of(items, self._form)

    def _compute(self, items: list[Item]) -> None:
        """Start a batch, which is counted in ``_in_flight`` already."""
        running: _RunningBatch | None = None
        try:
            batch = self._runner.batch(self._encodings(items))
            running = _RunningBatch(items, batch, time.monotonic())
            with self._lock:
                self._running.add(running)
            future = self._runner.start(batch)
        except BaseException as error:
            with self._lock:
                self._running.discard(running) if running else None
            self._failed(items, error)
            return
        future.add_done_callback(lambda done: self._on_finished(running, done))

    def _on_finished(self, running: _RunningBatch, future: Future[Tensors]) -> None:
        with self._lock:
            self._finished.append((running, future))
            self._some_finished.notify()

    def _collect(self) -> None:
        while True:
            with self._lock:
                self._some_finished.wait_for(lambda: self._finished or (self._closed and not self._in_flight))
                if not self._finished:
                    return
                running, future = self._finished.popleft()
                self._running.discard(running)
                since, self._last_finished = max(running.started, self._last_finished), time.monotonic()
                seconds = max(self._last_finished - since, 0.0)
            items = running.items
            try:
                scores = self._runner.scores(running.batch, future)
            except BaseException as error:
                self._failed(items, error)
                continue
            by_handle: dict[Handle, list[tuple[int, Item]]] = {}
            for place, item in enumerate(items):
                by_handle.setdefault(item.handle, []).append((place, item))
            for handle, places in by_handle.items():
                self._deliver(handle, places, scores)
            self._done()
            self._report(running, len(by_handle), seconds)

    def _report(self, running: _RunningBatch, calls: int, seconds: float) -> None:
        if self.on_batch is None:
            return
        batch = running.batch
        try:
            self.on_batch(
                BatchReport(
                    pairs=len(running.items), tokens=batch.tokens, slots=batch.slots, calls=calls, seconds=seconds
                )
            )
        except Exception:  # a listener's fault costs nobody a score
            logger.exception("a listener to batches failed")

    def _deliver(self, handle: Handle, places: Sequence[tuple[int, Item]], scores: Scores) -> None:
        """A call's own scores; one that is not finite ends this call and no other."""
        own = scores[[place for place, _ in places]]
        try:
            check_finite(own, lambda row: handle.pairs[places[row][1].index])
        except ZooError as error:
            self.drop(handle, error)
            return
        for score, (_, item) in zip(own.tolist(), places, strict=True):
            handle.take(item.index, score)
        if handle.done():
            with self._lock:
                self._open.discard(handle)
                self._idle.notify_all()

    def _failed(self, items: list[Item], error: BaseException) -> None:
        """The batch of one call ends it; one of several calls is computed again, each call's pairs alone."""
        handles = list({item.handle: None for item in items})
        if len(handles) == 1:
            self.drop(handles[0], error)
        else:
            with self._lock:
                self._in_flight += len(handles)
            for handle in handles:
                self._compute([item for item in items if item.handle is handle])
        self._done()

    def _done(self) -> None:
        with self._lock:
            self._in_flight -= 1
            for condition in (self._batch_possible, self._some_finished, self._idle):
                condition.notify_all()


def _late() -> DeadlineError:
    return DeadlineError("the pairs were not scored before their deadline")
