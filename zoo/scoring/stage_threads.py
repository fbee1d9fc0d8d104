"""The production line behind ``Scorer``: one thread a stage, bounded belts between them.

    read -> tokenise -> batch -> infer -> (device) -> collect -> the caller

A failure anywhere, or the caller going away, stops all of them: every wait is at a belt, and a stopped belt wakes its waiters. Only a
thread that is inside somebody else's code (the caller's iterable, a tokenizer, a device) cannot be woken; it is not waited for, and ends
at its next belt.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from threading import Thread

import numpy as np

from zoo.errors import PluginError, ScoreError, ZooError
from zoo.registry.stages import Pipeline
from zoo.scoring.batching import Batch, batches
from zoo.scoring.bounded_queue import Allowance, BoundedQueue, Stopped
from zoo.scoring.window_size import CHARACTERS_AHEAD, WindowSize, take
from zoo.types import Encodings, Pair, Scores, Session, Tensors

BATCHES_AHEAD = 2
"""Batches handed to the device beyond those it runs at once: one waits, one is being made."""

WINDOWS_AHEAD = 2
"""Windows that may lie on a belt."""

PATIENCE = 2.0
"""Seconds that stopping waits for stages inside somebody else's code."""


@dataclass
class Window:
    """Consecutive pairs, the scores that have come in for them, and what they cost."""

    pairs: list[Pair]
    characters: int
    scores: Scores = field(init=False)
    missing: int = field(init=False)
    passages_truncated: int = 0
    queries_truncated: int = 0
    tokens: int = 0
    slots: int = 0
    batches: int = 0

    def __post_init__(self) -> None:
        self.missing = len(self.pairs)
        self.scores = np.full(self.missing, np.nan, dtype=np.float32)


class StageThreads:
    """One run of pairs through all stages. A context manager: the threads live inside the ``with`` block."""

    def __init__(
        self,
        pipeline: Pipeline,
        session: Session,
        rows: int | None,
        pairs: Iterable[Pair],
        *,
        repeatable: bool = False,
    ) -> None:
        self._pipeline, self._session, self._rows, self._pairs = pipeline, session, rows, pairs
        rule = session.shape_rule
        self._size = WindowSize(rule, rows, repeatable=repeatable)
        self._windows: BoundedQueue[Window] = BoundedQueue(WINDOWS_AHEAD)
        self._encoded: BoundedQueue[tuple[Window, Encodings]] = BoundedQueue(WINDOWS_AHEAD)
        self._made: BoundedQueue[tuple[Window, Batch]] = BoundedQueue(BATCHES_AHEAD)
        self._slots: BoundedQueue[None] = BoundedQueue()
        self._landed: BoundedQueue[tuple[Window, Batch, Future[Tensors]]] = BoundedQueue()
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
        except BaseException:  # Ctrl-C, or no more threads to be had
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
        """End every stage; those inside somebody else's code are waited for a little. Harmless when repeated."""
        self._stand_still()
        self._finished.stop()
        deadline = time.monotonic() + PATIENCE
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(deadline - time.monotonic(), 0))

    def _stand_still(self) -> None:
        for belt in (self._windows, self._encoded, self._made, self._slots, self._landed):
            belt.stop()
        self._held.stop()
        for future in list(self._in_flight):
            future.cancel()

    def _run(self, stage: Callable[[], None]) -> None:
        try:
            stage()
        except Stopped:
            pass
        except BaseException as error:  # whatever it is, it is the caller's to see
            self._finished.end(error)
            self._stand_still()

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
            encodings = self._pipeline.preprocess(window.pairs)
            window.passages_truncated = sum(row.passage_truncated for row in encodings.rows)
            window.queries_truncated = sum(row.query_truncated for row in encodings.rows)
            self._encoded.put((window, encodings))
        self._encoded.end()

    def _batch(self) -> None:
        for window, encodings in self._encoded:
            self._unfinished.append(window)
            for batch in batches(encodings, self._session.shape_rule, self._rows, self._session.input_names):
                self._made.put((window, batch))
        self._made.end()

    def _infer(self) -> None:
        for window, batch in self._made:
            self._slots.get()
            self._size.start()
            with self._blamed(batch):
                future = self._pipeline.infer(self._session, batch.inputs)
            self._in_flight.add(future)
            future.add_done_callback(functools.partial(self._land, window, batch))
        for _ in range(self._max_in_flight):  # when every place is free again, everything has been collected
            self._slots.get()
        self._landed.end()

    def _land(self, window: Window, batch: Batch, future: Future[Tensors]) -> None:
        self._in_flight.discard(future)
        with contextlib.suppress(Stopped):
            self._landed.put((window, batch, future))

    def _collect(self) -> None:
        for window, batch, future in self._landed:
            with self._blamed(batch):
                outputs = future.result()
            self._score(window, batch, self._pipeline.postprocess(outputs))
            self._size.scored(len(batch.indices))
            while self._unfinished and not self._unfinished[0].missing:
                self._finished.put(self._unfinished.popleft())
            self._slots.put(None)
        self._finished.end()

    @contextlib.contextmanager
    def _blamed(self, batch: Batch) -> Iterator[None]:
        """A session may raise anything; what it raises is the device's fault and not zoo's."""
        try:
            yield
        except (ZooError, CancelledError, Stopped):
            raise
        except Exception as error:
            rows, length = next(iter(batch.inputs.values())).shape
            owner = type(self._session)
            raise PluginError(
                f"the device failed in a batch of {rows} rows of {length} tokens: {type(error).__name__}: {error} "
                f"({owner.__module__}.{owner.__qualname__})"
            ) from error

    def _score(self, window: Window, batch: Batch, scores: Scores) -> None:
        count = len(batch.indices)
        if len(scores) < count:
            raise ScoreError(f"a batch of {count} pairs came back with {len(scores)} scores")
        for index, score in zip(batch.indices, scores[:count], strict=True):
            if not np.isfinite(score):
                raise ScoreError(
                    f"the score of a pair is {score}. The pair: {_short(window.pairs[index])}. "
                    "The weights may be damaged, or the precision too low for this model (try --no-half)."
                )
        window.scores[list(batch.indices)] = scores[:count]
        window.missing -= count
        window.batches += 1
        window.tokens += batch.tokens
        window.slots += batch.slots


def _short(pair: Pair, limit: int = 200) -> str:
    return " / ".join(repr(text if len(text) <= limit else f"{text[:limit]}...") for text in pair)
