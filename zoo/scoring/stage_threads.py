"""The threads behind ``Scorer``: one a stage, with bounded queues between them.

    read -> tokenise -> batch -> infer -> (device) -> collect -> the caller

A failure anywhere, or the caller going away, stops all of them: every wait is at a queue, and a stopped queue wakes its waiters. Only a
thread that is inside somebody else's code (the caller's iterable, a tokenizer, a device) cannot be woken; it is not waited for, and ends
at its next queue.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Thread
from typing import Protocol

import numpy as np

from zoo.scoring.batch_runner import BatchRunner, check_finite
from zoo.scoring.batching import Batch
from zoo.scoring.bounded_queue import Allowance, BoundedQueue, Stopped
from zoo.scoring.window_size import CHARACTERS_AHEAD, WindowSize, take
from zoo.types import Encodings, Pair, Scores, Tensors

BATCHES_AHEAD = 2
"""Batches handed to the device beyond those it runs at once: one waits, one is being made."""

WINDOWS_AHEAD = 2
"""Windows that may lie in a queue."""

PATIENCE = 2.0
"""Seconds that stopping waits for stages that are inside somebody else's code."""


class Recall(Protocol):
    """Scores of batches that were computed before, by the batch's key."""

    def recall(self, key: str) -> Scores | None:
        """The scores of that batch's pairs, or None."""
        ...

    def append(self, key: str, scores: Scores) -> None:
        """Keep the scores of a batch that has just been computed."""
        ...


@dataclass
class Window:
    """Consecutive pairs, the scores that have come in for them, and what they cost."""

    pairs: list[Pair]
    characters: int
    scores: Scores = field(init=False)
    missing: int = field(init=False)
    truncated: Sequence[bool] = ()
    """Whether the pair's passage or query was cut."""
    passages_truncated: int = 0
    queries_truncated: int = 0
    lengths: Sequence[int] = ()
    """Tokens of each pair."""
    unknown: Sequence[int] = ()
    """Those of them that the vocabulary does not know."""
    tokens: int = 0
    slots: int = 0
    batches: int = 0

    def __post_init__(self) -> None:
        self.missing = len(self.pairs)
        self.scores = np.full(self.missing, np.nan, dtype=np.float32)

    def add(self, batch: Batch, scores: Scores) -> None:
        """Take in the scores of a batch."""
        self.scores[list(batch.indices)] = scores
        self.missing -= len(batch.indices)
        self.batches += 1
        self.tokens += batch.tokens
        self.slots += batch.slots


class StageThreads:
    """One run of pairs through all stages. A context manager: the threads live inside the ``with`` block."""

    def __init__(
        self,
        runner: BatchRunner,
        pairs: Iterable[Pair],
        *,
        repeatable: bool = False,
        sizes: Sequence[int] = (),
        recall: Recall | None = None,
    ) -> None:
        self._runner, self._pairs, self._recall = runner, pairs, recall
        rule = runner.session.shape_rule
        self._size = WindowSize(rule, runner.rows, repeatable=repeatable, sizes=sizes)
        self._windows: BoundedQueue[Window] = BoundedQueue(WINDOWS_AHEAD)
        self._encoded: BoundedQueue[tuple[Window, Encodings]] = BoundedQueue(WINDOWS_AHEAD)
        self._made: BoundedQueue[tuple[Window, Batch]] = BoundedQueue(BATCHES_AHEAD)
        self._slots: BoundedQueue[None] = BoundedQueue()
        self._landed: BoundedQueue[tuple[Window, Batch, Future[Tensors] | Scores]] = BoundedQueue()
        self._finished: BoundedQueue[Window] = BoundedQueue(WINDOWS_AHEAD)
        self._max_in_flight = rule.parallel_batches + BATCHES_AHEAD
        for _ in range(self._max_in_flight):
            self._slots.put(None)
        self._in_flight: set[Future[Tensors]] = set()
        self._unfinished: deque[Window] = deque()
        self._held = Allowance(CHARACTERS_AHEAD)
        self._threads = [
            Thread(target=self._run, args=(stage,), name=f"zoo-{stage.__name__.strip('_')}", daemon=True)
            for stage in (self._read, self._tokenise, self._batch, self._infer, self._collect)
        ]

    def __enter__(self) -> StageThreads:
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:  # Ctrl-C, or the system gives no more threads
            self.stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def finished(self) -> Iterator[Window]:
        """Windows in order, each when all its scores are in. Raises what any stage raised."""
        return iter(self._finished)

    def release(self, window: Window) -> None:
        """The caller is done with ``window``, and as much text may be read in its place."""
        self._held.give_back(window.characters)

    def stop(self) -> None:
        """End every stage, and wait up to ``PATIENCE`` for threads that are inside somebody else's code. May be called again."""
        self._wake_all()
        self._finished.stop()
        deadline = time.monotonic() + PATIENCE
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(deadline - time.monotonic(), 0))

    def _wake_all(self) -> None:
        for each in (self._windows, self._encoded, self._made, self._slots, self._landed):
            each.stop()
        self._held.stop()
        for future in list(self._in_flight):
            future.cancel()

    def _run(self, stage: Callable[[], None]) -> None:
        try:
            stage()
        except Stopped:
            pass
        except BaseException as error:  # the caller raises it
            self._finished.end(error)
            self._wake_all()

    def _read(self) -> None:
        source = iter(self._pairs)
        while True:
            self._held.wait()
            pairs, characters = take(source, self._size)
            if not pairs:
                return self._windows.end()
            self._held.take(characters)
            self._windows.put(Window(pairs, characters))

    def _tokenise(self) -> None:
        for window in self._windows:
            encodings = self._runner.pipeline.preprocess(window.pairs)
            window.passages_truncated = sum(row.passage_truncated for row in encodings.rows)
            window.queries_truncated = sum(row.query_truncated for row in encodings.rows)
            window.lengths = [row.length for row in encodings.rows]
            window.unknown = [row.unknown for row in encodings.rows]
            window.truncated = [row.passage_truncated or row.query_truncated for row in encodings.rows]
            self._encoded.put((window, encodings))
        self._encoded.end()

    def _batch(self) -> None:
        for window, encodings in self._encoded:
            self._unfinished.append(window)
            for batch in self._runner.batches(encodings):
                self._made.put((window, batch))
        self._made.end()

    def _infer(self) -> None:
        for window, batch in self._made:
            self._slots.get()
            self._size.start()
            known = self._recall.recall(batch.key) if self._recall is not None else None
            if known is not None:
                self._landed.put((window, batch, known))
                continue
            future = self._runner.start(batch)
            self._in_flight.add(future)
            future.add_done_callback(functools.partial(self._land, window, batch))
        for _ in range(self._max_in_flight):  # when every slot is free again, everything has been collected
            self._slots.get()
        self._landed.end()

    def _land(self, window: Window, batch: Batch, future: Future[Tensors]) -> None:
        self._in_flight.discard(future)
        with contextlib.suppress(Stopped):
            self._landed.put((window, batch, future))

    def _collect(self) -> None:
        for window, batch, landed in self._landed:
            if isinstance(landed, Future):
                scores = self._runner.scores(batch, landed)
                check_finite(scores, lambda row, window=window, batch=batch: window.pairs[batch.indices[row]])  # type: ignore[misc]
                if self._recall is not None:
                    self._recall.append(batch.key, scores)
            else:
                scores = landed
            window.add(batch, scores)
            self._size.scored(len(batch.indices))
            while self._unfinished and not self._unfinished[0].missing:
                self._finished.put(self._unfinished.popleft())
            self._slots.put(None)
        self._finished.end()
