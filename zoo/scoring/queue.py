"""One queue of pairs for everybody who asks at the same time: their pairs share batches, and each gets a fair share of the device.

A thread tokenises, a thread makes batches and starts them, and a thread collects. The next batch is made when the device can take
it, from what waits then: around the pair whose request has had the fewest pairs computed so far, of pairs of similar length. So a request
of a thousand pairs does not hold up one of a single pair, and nothing waits for a batch to fill.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Any

import numpy as np

from zoo.errors import ClosedError, DeadlineError, ZooError
from zoo.scoring.batch_runner import BatchRunner, check_finite
from zoo.scoring.batching import Batch
from zoo.types import Encoding, Encodings, Pair, Scores, Tensors

AT_ONCE = 64
"""Pairs of one request that are tokenised before another request's are."""

TOKENS_AHEAD = 1 << 18
"""Tokenised and not yet given to the device; what is past that waits as text."""

CANDIDATES = 512
"""Waiting pairs that a batch is chosen from."""

BATCHES_AHEAD = 1
"""Batches that the device is given beyond those it computes at once, so that it never waits for the host."""

PATIENCE = 5.0
"""Seconds that closing waits for a batch that is being computed."""


@dataclass(eq=False)
class Handle:
    """The pairs of one request. ``result`` waits for their scores; ``cancel`` drops those that are not computed yet."""

    pairs: Sequence[Pair]
    deadline: float | None
    _queue: ScoringQueue = field(repr=False)
    tokens: int = 0
    """Tokens of the pairs, as far as they have been tokenised; all of them once the result is there."""
    passages_truncated: int = 0
    queries_truncated: int = 0
    unknown: int = 0
    """Tokens that the model's vocabulary does not know, as far as the pairs have been tokenised."""
    started: int = 0
    """Pairs that the device has been given."""
    _scores: Any = field(default=None, repr=False)
    _missing: int = 0
    _future: Future[Scores] = field(default_factory=Future, repr=False)

    def __post_init__(self) -> None:
        self._scores = np.full(len(self.pairs), np.nan, dtype=np.float32)
        self._missing = len(self.pairs)
        if not self.pairs:
            self._future.set_result(self._scores)

    def result(self, timeout: float | None = None) -> Scores:
        """float32 logits of shape (n,), in the order of the pairs. Raises what went wrong with them, TimeoutError after ``timeout`` s."""
        return self._future.result(timeout)

    def done(self) -> bool:
        return self._future.done()

    def cancel(self) -> None:
        """Drop the pairs that the device does not have yet. ``result`` then raises CancelledError."""
        self._queue.drop(self, CancelledError())

    def add_done_callback(self, callback: Callable[[Handle], None]) -> None:
        """Call ``callback`` with this handle when the result is there, or the error."""
        self._future.add_done_callback(lambda _: callback(self))

    def fail(self, error: BaseException) -> None:
        """End it with ``error``, unless it has ended."""
        with suppress(InvalidStateError):
            self._future.set_exception(error)

    def take(self, index: int, score: float) -> None:
        """The score of one pair."""
        self._scores[index] = score
        self._missing -= 1
        if not self._missing:
            with suppress(InvalidStateError):  # it was cancelled or has failed
                self._future.set_result(self._scores)


@dataclass(frozen=True, eq=False)
class _Item:
    """One tokenised pair that waits for the device."""

    handle: Handle
    index: int
    number: int
    row: Encoding
    group: tuple[int, int] | None
    shared: int


class ScoringQueue:
    """Scores pairs for any number of threads. Its threads are started by the first pairs, and end with ``close``."""

    def __init__(self, runner: BatchRunner) -> None:
        self._runner = runner
        self._changed = Condition()
        self._texts: deque[tuple[Handle, int]] = deque()
        self._ready: dict[Handle, deque[_Item]] = {}
        self._plan: deque[list[_Item]] = deque()
        """The next batches, in order; made anew when another request's pairs arrive."""
        self._ready_tokens = 0
        self._landed: deque[tuple[list[_Item], Batch, Future[Tensors]]] = deque()
        self._in_flight = 0
        self._max_in_flight = runner.session.shape_rule.parallel_batches + BATCHES_AHEAD
        self._numbers = itertools.count()
        self._form: Encodings | None = None
        self._exclusive = self._closed = False
        self._exclusive_wanted = 0
        self._open: set[Handle] = set()
        self._threads: list[Thread] = []

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait for the device, of pairs that are tokenised."""
        return self._ready_tokens

    @property
    def queued_pairs(self) -> int:
        """Pairs that wait, as text or tokenised."""
        with self._changed:
            tokenised = sum(map(len, self._ready.values())) + sum(map(len, self._plan))
            return tokenised + sum(len(handle.pairs) - start for handle, start in self._texts)

    def submit(self, pairs: Sequence[Pair], *, deadline: float | None = None) -> Handle:
        """Have ``pairs`` scored. ``deadline`` is a time of ``time.monotonic``; pairs not begun by then are dropped with DeadlineError.

        Raises ClosedError.
        """
        handle = Handle(list(pairs), deadline, self)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not (self._exclusive or self._exclusive_wanted))
            self._refuse_closed()
            if handle.pairs:
                self._open.add(handle)
                self._texts.append((handle, 0))
                self._start_threads()
                self._changed.notify_all()
        return handle

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody else's pairs are computed inside the block; whoever submits some waits until it ends."""
        with self._changed:
            self._exclusive_wanted += 1
            self._changed.wait_for(lambda: self._closed or not (self._exclusive or self._open))
            self._exclusive_wanted -= 1
            self._refuse_closed()
            self._exclusive = True
        try:
            yield
        finally:
            with self._changed:
                self._exclusive = False
                self._changed.notify_all()

    def drop(self, handle: Handle, error: BaseException) -> None:
        """End ``handle`` with ``error`` and forget its pairs that the device does not have."""
        with self._changed:
            self._forget(handle)
            self._changed.notify_all()
        handle.fail(error)

    def close(self) -> None:
        """End every open request with ClosedError and stop the threads. May be called again."""
        with self._changed:
            self._closed = True
            left = list(self._open)
            self._open.clear()
            self._texts.clear()
            self._ready.clear()
            self._plan.clear()
            self._changed.notify_all()
        for handle in left:
            handle.fail(_closed())
        deadline = time.monotonic() + PATIENCE
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))

    def _refuse_closed(self) -> None:
        if self._closed:
            raise _closed()

    def _start_threads(self) -> None:
        if not self._threads:
            self._threads = [
                Thread(target=work, name=f"zoo-queue-{work.__name__.strip('_')}", daemon=True)
                for work in (self._tokenise, self._infer, self._collect)
            ]
            for thread in self._threads:
                thread.start()

    def _forget(self, handle: Handle) -> None:
        self._texts = deque(entry for entry in self._texts if entry[0] is not handle)
        planned = [[item for item in batch if item.handle is not handle] for batch in self._plan]
        gone = [
            *self._ready.pop(handle, ()),
            *(item for batch in self._plan for item in batch if item.handle is handle),
        ]
        self._plan = deque(batch for batch in planned if batch)
        self._ready_tokens -= sum(item.row.length for item in gone)
        self._open.discard(handle)

    def _tokenise(self) -> None:
        while (turn := self._next_texts()) is not None:
            handle, start = turn
            part = handle.pairs[start : start + AT_ONCE]
            try:
                encodings = self._runner.pipeline.preprocess(part)
            except BaseException as error:
                self.drop(handle, error)
                continue
            handle.tokens += sum(row.length for row in encodings.rows)
            handle.passages_truncated += sum(row.passage_truncated for row in encodings.rows)
            handle.queries_truncated += sum(row.query_truncated for row in encodings.rows)
            handle.unknown += sum(row.unknown for row in encodings.rows)
            with self._changed:
                if handle in self._open:
                    self._form = encodings
                    self._add(handle, start, encodings)
                    if start + len(part) < len(handle.pairs):
                        self._texts.append((handle, start + len(part)))
                    self._changed.notify_all()

    def _next_texts(self) -> tuple[Handle, int] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or (self._texts and self._ready_tokens < TOKENS_AHEAD))
            return None if self._closed else self._texts.popleft()

    def _add(self, handle: Handle, start: int, encodings: Encodings) -> None:
        waiting = self._ready.setdefault(handle, deque())
        for place, row in enumerate(encodings.rows):
            group = None if encodings.groups is None else (id(handle), encodings.groups[place])
            shared = 0 if encodings.shared is None else encodings.shared[place]
            waiting.append(_Item(handle, start + place, next(self._numbers), row, group, shared))
            self._ready_tokens += row.length
        if all(item.handle is not handle for batch in self._plan for item in batch):
            self._unplan()

    def _unplan(self) -> None:
        """Give planned pairs back to their requests, in front of those that wait."""
        items = sorted((item for batch in self._plan for item in batch), key=lambda item: -item.number)
        self._plan.clear()
        for item in items:
            self._ready.setdefault(item.handle, deque()).appendleft(item)

    def _infer(self) -> None:
        while (chosen := self._next_items()) is not None:
            if chosen:
                self._compute(chosen)

    def _next_items(self) -> list[_Item] | None:
        """The pairs of the next batch, when the device can take one; None when the queue is closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or ((self._ready or self._plan) and self._in_flight < self._max_in_flight)
            )
            if self._closed:
                return None
            now = time.monotonic()
            late = [handle for handle in self._open if handle.deadline is not None and handle.deadline < now]
            for handle in late:
                self._forget(handle)
            if not self._plan:
                self._make_plan()
            chosen = self._plan.popleft() if self._plan else []
            for item in chosen:
                item.handle.started += 1
            self._ready_tokens -= sum(item.row.length for item in chosen)
            self._in_flight += bool(chosen)
            self._changed.notify_all()
        for handle in late:
            handle.fail(DeadlineError("the pairs were not scored before their deadline"))
        return chosen

    def _make_plan(self) -> None:
        """The next batches: from the pairs whose requests have had the fewest computed, then from those that have waited longest."""
        turns = [(handle.started, waiting[0].number, handle) for handle, waiting in self._ready.items()]
        heapq.heapify(turns)
        candidates: list[_Item] = []
        while turns and len(candidates) < CANDIDATES:
            started, _, handle = heapq.heappop(turns)
            waiting = self._ready[handle]
            candidates.append(waiting.popleft())
            if waiting:
                heapq.heappush(turns, (started + 1, waiting[0].number, handle))
            else:
                del self._ready[handle]
        if not candidates:
            return
        try:
            batches = sorted(self._runner.divided(self._encodings(candidates)), key=min)
        except Exception as error:  # a device's shape rule that makes no sense
            for handle in {item.handle: None for item in candidates}:
                self._forget(handle)
                handle.fail(error)
        else:
            self._plan = deque([candidates[place] for place in batch] for batch in batches)

    def _encodings(self, items: Sequence[_Item]) -> Encodings:
        assert self._form is not None
        groups = {item.group: number for number, item in enumerate(items)} if items[0].group else None
        return Encodings(
            [item.row for item in items],
            self._form.padding,
            self._form.padding_side,
            None if groups is None else [groups[item.group] for item in items],
            None if groups is None else [item.shared for item in items],
        )

    def _compute(self, items: list[_Item]) -> None:
        try:
            batch = self._runner.batch(self._encodings(items))
            future = self._runner.start(batch)
        except BaseException as error:
            self._failed(items, error)
            return
        future.add_done_callback(lambda done: self._land(items, batch, done))

    def _land(self, items: list[_Item], batch: Batch, future: Future[Tensors]) -> None:
        with self._changed:
            self._landed.append((items, batch, future))
            self._changed.notify_all()

    def _collect(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._landed or (self._closed and not self._in_flight))
                if not self._landed:
                    return
                items, batch, future = self._landed.popleft()
            try:
                scores = self._runner.scores(batch, future)
            except BaseException as error:
                self._failed(items, error)
                continue
            for handle in {item.handle: None for item in items}:
                self._deliver(
                    handle, [(place, item) for place, item in enumerate(items) if item.handle is handle], scores
                )
            self._done()

    def _deliver(self, handle: Handle, places: Sequence[tuple[int, _Item]], scores: Scores) -> None:
        """A request's own scores; one that is not finite ends this request and no other."""
        own = scores[[place for place, _ in places]]
        try:
            check_finite(own, lambda row: handle.pairs[places[row][1].index])
        except ZooError as error:
            self.drop(handle, error)
            return
        for score, (_, item) in zip(own.tolist(), places, strict=True):
            handle.take(item.index, score)
        if handle.done():
            with self._changed:
                self._open.discard(handle)
                self._changed.notify_all()

    def _failed(self, items: list[_Item], error: BaseException) -> None:
        """The batch of one request ends it; one of several requests is computed again, each request's pairs alone."""
        handles = list({item.handle: None for item in items})
        if len(handles) == 1:
            self.drop(handles[0], error)
            self._done()
            return
        for handle in handles:
            with self._changed:
                self._in_flight += 1
            self._compute([item for item in items if item.handle is handle])
        self._done()

    def _done(self) -> None:
        with self._changed:
            self._in_flight -= 1
            self._changed.notify_all()


def _closed() -> ClosedError:
    return ClosedError("this reranker is closed")
