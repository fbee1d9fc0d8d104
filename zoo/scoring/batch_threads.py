"""Threads for a session whose runtime computes a batch in one call: closing ends the batches that run, and none begins after it."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from zoo.errors import ZooError

T = TypeVar("T")


def _nothing() -> None:
    """A batch that begins inside the block."""


class BatchThreads:
    """``count`` threads, each of which computes a batch at a time. ``name`` is what they are called in a debugger."""

    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=count, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._stops: dict[int, Callable[[], object]] = {}
        self._numbers = itertools.count()
        self._closed = False

    def submit(self, compute: Callable[..., T], *arguments: object) -> Future[T]:
        """Run ``compute`` on one of the threads; it does what may take long inside ``running``. Raises ZooError after ``close``."""
        with self._lock:
            self._refuse_closed()
            return self._pool.submit(compute, *arguments)

    @contextlib.contextmanager
    def running(self, stop: Callable[[], object], start: Callable[[], object] = _nothing) -> Iterator[None]:
        """Inside the block a batch is computed, which ``stop`` ends; ``close`` calls it from another thread.

        ``start`` begins the batch if the runtime forgets a stop that comes before: ``stop`` is not called until it has returned. Raises
        ZooError, and begins nothing, after ``close``.
        """
        number = next(self._numbers)
        with self._lock:
            self._refuse_closed()
            start()
            self._stops[number] = stop
        try:
            yield
        finally:
            with self._lock:
                del self._stops[number]

    def close(self) -> None:
        """End what runs, cancel what waits, and wait for the threads. May be called twice."""
        with self._lock:
            self._closed = True
            for stop in self._stops.values():
                stop()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ZooError("this session is closed")
