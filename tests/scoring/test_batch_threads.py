"""Closing a session: batches that run end, none begins, and a stop is never too early to be heard."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest

from zoo.api import BatchThreads, ZooError

SOON = 30.0
"""Seconds after which a test that waits has failed."""


def test_what_runs_is_ended_and_what_waits_is_cancelled() -> None:
    threads, runs, ended = BatchThreads(1, "test"), threading.Event(), threading.Event()

    def compute() -> str:
        with threads.running(ended.set):
            runs.set()
            assert ended.wait(SOON)
        return "ended"

    first, second = threads.submit(compute), threads.submit(compute)
    assert runs.wait(SOON)
    threads.close()
    assert first.result(0) == "ended"
    with pytest.raises(CancelledError):
        second.result(0)
    threads.close()
    with pytest.raises(ZooError, match="this session is closed"):
        threads.submit(compute)


def test_a_batch_that_begins_while_the_session_closes_is_not_computed() -> None:
    """It would hold up the end of the process for as long as it takes."""
    threads, begun, go_on = BatchThreads(2, "test"), threading.Event(), threading.Event()
    closes = threading.Event()
    computed: list[str] = []

    def running() -> None:
        with threads.running(closes.set):
            assert closes.wait(SOON)

    def late() -> None:
        begun.set()
        assert go_on.wait(SOON)
        with threads.running(lambda: None, lambda: computed.append("started")):
            computed.append("computed")

    first, second = threads.submit(running), threads.submit(late)
    assert begun.wait(SOON)
    closing = threading.Thread(target=threads.close)
    closing.start()
    assert closes.wait(SOON), "close has told those that run, and waits for both threads"
    go_on.set()
    closing.join(SOON)
    assert not closing.is_alive()
    first.result(0)
    with pytest.raises(ZooError, match="this session is closed"):
        second.result(0)
    assert not computed


def test_a_stop_waits_until_the_batch_has_started() -> None:
    """A runtime forgets a stop that comes before the start, and would compute the whole batch."""
    threads, calls, starts, go_on = BatchThreads(1, "test"), list[str](), threading.Event(), threading.Event()
    ended = threading.Event()

    def start() -> None:
        starts.set()
        assert go_on.wait(SOON)
        calls.append("start")

    def stop() -> None:
        calls.append("stop")
        ended.set()

    def compute() -> None:
        with threads.running(stop, start):
            assert ended.wait(SOON)

    future = threads.submit(compute)
    assert starts.wait(SOON)
    closing = threading.Thread(target=threads.close)
    closing.start()
    go_on.set()
    closing.join(SOON)
    future.result(0)
    assert calls == ["start", "stop"]


def test_a_batch_that_has_ended_is_not_stopped() -> None:
    threads, stopped = BatchThreads(1, "test"), list[str]()

    def compute() -> None:
        with threads.running(lambda: stopped.append("stop")):
            raise ValueError("no such node")

    with pytest.raises(ValueError, match="no such node"):
        threads.submit(compute).result(SOON)
    threads.close()
    assert not stopped
