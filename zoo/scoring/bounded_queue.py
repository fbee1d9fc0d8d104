"""Bounded queues between the threads of the stages, which can be stopped at any moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from threading import Condition
from typing import Generic, TypeVar

T = TypeVar("T")


class Stopped(Exception):  # noqa: N818  # not an error: it tells a stage to end
    """The queue was stopped while a thread waited at it."""


class BoundedQueue(Generic[T]):
    """A queue of at most ``size`` items (None: no limit) from one stage to the next.

    It *ends* when its writer has no more items: readers still get what it holds, then the end or the error it ended with. It *stops*
    when the run ends early: every thread that waits at it gets ``Stopped`` at once, and what it holds is dropped.
    """

    def __init__(self, size: int | None = None) -> None:
        self._size = size
        self._items: deque[T] = deque()
        self._changed = Condition()
        self._ended = self._stopped = False
        self._error: BaseException | None = None

    def put(self, item: T) -> None:
        """Add an item, waiting for room. Raises Stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._ended or self._has_room())
            if self._stopped or self._ended:
                raise Stopped
            self._items.append(item)
            self._changed.notify_all()

    def get(self) -> T:
        """The next item, waiting for one. Raises Stopped, also if the queue has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._ended or self._items)
            if self._stopped or not self._items:
                raise Stopped
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def __iter__(self) -> Iterator[T]:
        """Items until the queue ends; then the error it ended with, if any. Raises Stopped."""
        while True:
            try:
                item = self.get()
            except Stopped:
                if self._stopped:
                    raise
                break
            yield item
        if self._error is not None:
            raise self._error

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more will be put. The first call counts."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
            self._changed.notify_all()

    def stop(self) -> None:
        """Drop what lies here and wake everybody who waits."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._size is None or len(self._items) < self._size


class Allowance:
    """A bound on the sum of what is held at once. One item may exceed it, alone, so that nothing is too large to pass."""

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        self._changed = Condition()
        self._stopped = False

    def wait(self) -> None:
        """Wait until there is something left of the allowance. Raises Stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._held < self._limit)
            if self._stopped:
                raise Stopped

    def take(self, amount: int) -> None:
        with self._changed:
            self._held += amount

    def give_back(self, amount: int) -> None:
        with self._changed:
            self._held -= amount
            self._changed.notify_all()

    def stop(self) -> None:
        """Wake everybody who waits."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
