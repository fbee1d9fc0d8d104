"""One queue for everybody: scores do not depend on who else asks, nobody starves, and every call ends."""

from __future__ import annotations

import gc
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo.scoring.queue
from fakes import NumberModel, NumberSession, nothing, own_threads, pipeline_of
from zoo import hookimpl
from zoo.errors import ClosedError, DeadlineError, DeviceError, PluginError, ScoreError, TooLongError
from zoo.reranker import Reranker
from zoo.scoring.batch_runner import BatchRunner
from zoo.scoring.batching import Features
from zoo.scoring.handle import Handle
from zoo.scoring.queue import BatchReport, ScoringQueue
from zoo.scoring.waiting import WINDOW_BATCHES, WaitingPairs
from zoo.types import BatchInfo, Encoding, Encodings, Pair, Session, ShapeRule, Tensors

SOON = 30.0
"""Seconds after which a test that waits has failed."""


def numbers(*values: int, tokens: int = 1) -> list[Pair]:
    """Pairs whose scores are ``values``."""
    return [Pair(str(tokens), str(value)) for value in values]


PREFIXES = Features(supplies=lambda name: name == "prefix")


@contextmanager
def queue_on(session: NumberSession, model: object | None = None) -> Iterator[ScoringQueue]:
    queue = ScoringQueue(BatchRunner(pipeline_of(model or NumberModel()), session, None, PREFIXES))
    try:
        with session:
            yield queue
            queue.close()
    finally:
        queue.close()


class Gate:
    """A device that computes a batch for each ``let``, and shows how many rows it has been given."""

    def __init__(self) -> None:
        self.allowed = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.open = False

    def __call__(self, number: int) -> None:
        self.begun.release()
        if not self.open:
            assert self.allowed.acquire(timeout=SOON)

    def let(self, batches: int = 1) -> None:
        self.allowed.release(batches)

    def release(self) -> None:
        self.open = True
        self.allowed.release(1000)

    def wait_until_begun(self, batches: int = 1) -> None:
        for _ in range(batches):
            assert self.begun.acquire(timeout=SOON)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


rules = st.builds(
    ShapeRule,
    tokens=st.integers(1, 60),
    auto_rows=st.integers(1, 20),
    length_multiple=st.sampled_from([1, 4]),
    parallel_batches=st.integers(1, 3),
)
calls = st.lists(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9999)), max_size=120), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(calls=calls, rule=rules)
def test_every_call_gets_its_own_scores_in_its_own_order_whoever_else_asks(
    calls: list[list[tuple[int, int]]], rule: ShapeRule
) -> None:
    with NumberSession(rule) as session, queue_on(session) as queue, ThreadPoolExecutor(4) as callers:

        def ask(call: list[tuple[int, int]]) -> tuple[Handle, list[float]]:
            handle = queue.submit([Pair(str(tokens), str(value)) for tokens, value in call])
            return handle, handle.result(SOON).tolist()

        for call, (handle, scores) in zip(calls, callers.map(ask, calls), strict=True):
            assert scores == [value for _, value in call]
            assert handle.tokens == sum(tokens for tokens, _ in call)
            assert handle.started == len(call)
        assert (queue.queued_tokens, queue.queued_pairs) == (0, 0)
    assert not own_threads("zoo-queue")


@settings(max_examples=40, deadline=None)
@given(calls=calls, rule=rules, cancelled=st.sets(st.integers(0, 11)), pause=st.floats(0, 0.003))
def test_calls_that_are_cancelled_leave_the_others_as_they_are(
    calls: list[list[tuple[int, int]]], rule: ShapeRule, cancelled: set[int], pause: float
) -> None:
    with NumberSession(rule) as session, queue_on(session) as queue:
        handles = [queue.submit([Pair(str(tokens), str(value)) for tokens, value in call]) for call in calls]
        time.sleep(pause)
        for number in cancelled & set(range(len(calls))):
            handles[number].cancel()
        for number, (call, handle) in enumerate(zip(calls, handles, strict=True)):
            try:
                assert handle.result(SOON).tolist() == [value for _, value in call]
            except CancelledError:
                assert number in cancelled
        until(lambda: not queue.queued_pairs)
        assert queue.queued_tokens == 0


def test_calls_share_batches() -> None:
    gate = Gate()
    with NumberSession(ShapeRule(tokens=1000), gate) as session, queue_on(session) as queue:
        first = queue.submit(numbers(1))
        gate.wait_until_begun()
        ahead = queue.submit(numbers(2))  # waits beside the device, so that the device never does
        until(lambda: ahead.started == 1)
        handles = [queue.submit(numbers(value)) for value in range(3, 13)]
        until(lambda: all(handle.tokens for handle in handles))
        gate.release()
        assert [handle.result(SOON)[0] for handle in (first, ahead, *handles)] == list(range(1, 13))
        assert session.shapes == [(1, 1), (1, 1), (10, 1)]


def test_a_single_pair_does_not_wait_for_a_call_of_thousands() -> None:
    gate = Gate()
    with NumberSession(ShapeRule(tokens=4), gate) as session, queue_on(session) as queue:
        large = queue.submit(numbers(*range(3000)))
        gate.wait_until_begun()
        single = queue.submit(numbers(77))
        until(lambda: single.tokens == 1)
        time.sleep(0.01)
        gate.let(4)
        assert single.result(SOON).tolist() == [77]
        assert not large.done()
        gate.release()
        assert large.result(SOON).tolist() == list(range(3000))


def test_a_pair_longer_than_the_budget_runs_alone() -> None:
    with NumberSession(ShapeRule(tokens=8)) as session, queue_on(session) as queue:
        assert queue.submit([*numbers(5, tokens=50), *numbers(6, 7)]).result(SOON).tolist() == [5, 6, 7]
        assert (1, 50) in session.shapes


# -- whose turn it is, without threads ---------------------------------------------------------------------------------


class Calls:
    """Calls that wait, and batches of ``size`` rows, drawn by length as a device would have them."""

    def __init__(self, size: int) -> None:
        self.size, self.waiting = size, WaitingPairs(50, size * 25)
        self.computed: dict[Handle, int] = {}

    def add(self, lengths: Sequence[int]) -> Handle:
        handle = Handle([Pair("q" * length, "") for length in lengths], None, True, lambda handle, error: None)
        self.waiting.add(handle)
        self.computed[handle] = 0
        self.tokenise()
        return handle

    def tokenise(self) -> None:
        while (turn := self.waiting.next_texts()) is not None:
            owner, start, end = turn
            rows = [Encoding({"input_ids": [0] * len(pair.query)}) for pair in owner.pairs[start:end]]
            self.waiting.add_tokenised(owner, start, Encodings(rows, {"input_ids": 0}))

    def compute(self) -> list[Handle]:
        def divide(items: list[object]) -> list[list[int]]:
            order = sorted(range(len(items)), key=lambda place: -items[place].row.length)  # type: ignore[attr-defined]
            return [order[start : start + self.size] for start in range(0, len(order), self.size)]

        batch = self.waiting.next_batch(divide)  # type: ignore[arg-type]
        for item in batch:
            self.computed[item.handle] += item.row.length
        self.tokenise()
        return [item.handle for item in batch]


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(200, 2000), min_size=2, max_size=6),
    size=st.integers(1, 32),
    length=st.integers(1, 20),
)
def test_large_calls_get_equal_shares(sizes: list[int], size: int, length: int) -> None:
    calls = Calls(size)
    handles = [calls.add([length] * count) for count in sizes]
    while calls.waiting.pairs:
        calls.compute()
        unfinished = [
            calls.computed[handle] // length
            for handle, count in zip(handles, sizes, strict=True)
            if calls.computed[handle] < count * length
        ]
        if len(unfinished) > 1:
            window = WINDOW_BATCHES * size * 25 // length
            assert max(unfinished) - min(unfinished) <= size + window, "a batch, and the credit of its first tokens"


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), size=st.integers(1, 32), clients=st.integers(1, 6))
def test_an_endless_stream_of_small_calls_does_not_starve_a_large_one(seed: int, size: int, clients: int) -> None:
    draw = random.Random(seed)
    calls = Calls(size)
    large = calls.add([draw.randint(1, 50) for _ in range(200)])
    small = [calls.add([draw.randint(1, 50)]) for _ in range(clients)]
    spent = 0
    for _ in range(5000):
        if not calls.waiting.pairs or calls.computed[large] == sum(len(pair.query) for pair in large.pairs):
            break
        for handle in calls.compute():
            spent += len(handle.pairs[0].query) if handle is not large else 0
            if handle in small:  # its client asks again at once
                small[small.index(handle)] = calls.add([draw.randint(1, 50)])
    assert calls.computed[large] == sum(len(pair.query) for pair in large.pairs)
    credit, batch = WINDOW_BATCHES * size * 25, 50 * (size + 1)
    assert spent <= clients * calls.computed[large] + (clients + 1) * (credit + batch), "more than their share"


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), size=st.integers(1, 16), large=st.integers(1, 5))
def test_a_small_call_comes_next_however_many_large_ones_there_are(seed: int, size: int, large: int) -> None:
    draw = random.Random(seed)
    calls = Calls(size)
    for _ in range(large):
        calls.add([draw.randint(1, 50) for _ in range(70 * size)])
    for _ in range(draw.randint(2 * WINDOW_BATCHES * large, 40 * large)):
        calls.compute()
    small = calls.add([draw.randint(1, 50)])
    waited = 0
    while small not in calls.compute() and waited < 100:
        waited += 1
    assert waited <= 1, "its credit outweighs what similar lengths have drawn forward"


def test_calls_of_one_size_are_computed_in_the_order_in_which_they_came() -> None:
    calls = Calls(2)
    first = calls.add([10] * 10)
    calls.compute()
    others = [calls.add([10] * 10) for _ in range(3)]
    order = [handle for _ in range(19) for handle in calls.compute()]
    assert order == [
        handle for handle, left in zip([first, *others], [8, 10, 10, 10], strict=True) for _ in range(left)
    ]


def test_a_call_goes_before_an_earlier_one_that_has_more_left() -> None:
    calls = Calls(2)
    calls.add([10] * 30)
    for _ in range(5):
        calls.compute()
    nearly_as_large, small = calls.add([10] * 29), calls.add([10] * 4)
    order = [handle for _ in range(24) for handle in calls.compute()]
    assert order[:4] == [small] * 4
    assert order.index(nearly_as_large) == 24, "the earlier one has 20 left"


def test_a_call_of_long_pairs_is_charged_by_tokens() -> None:
    calls = Calls(1)
    long, short = calls.add([100] * 50), calls.add([10] * 500)
    for _ in range(55):
        calls.compute()
    assert calls.computed[long] == pytest.approx(calls.computed[short], abs=100)


def test_pairs_of_equal_length_meet_in_a_batch_even_among_many_calls() -> None:
    calls = Calls(8)
    for length in [*range(1, 9)] * 8:
        calls.add([length])
    padded = 0
    while (batch := calls.compute()) and (lengths := [len(handle.pairs[0].query) for handle in batch]):
        padded += max(lengths) * len(lengths) - sum(lengths)
    assert padded == 0


# -- what fails, fails alone -------------------------------------------------------------------------------------------


class Damaged(NumberSession):
    """NaN for 13, and a failure for every batch with a 14 in it."""

    def _run(self, inputs: Tensors) -> Tensors:
        if (inputs["input_ids"] == 14).any():
            raise RuntimeError("the card fell off the bus")
        scores = super()._run(inputs)["score"]
        return {"score": np.where(scores == 13, np.nan, scores).astype(np.float32)}


@settings(max_examples=40, deadline=None)
@given(
    bad=st.lists(st.sampled_from(["13", "14", "no number", "1"]), min_size=1, max_size=10),
    rule=rules,
    seed=st.integers(0, 99),
)
def test_a_bad_pair_fails_its_own_call_and_no_other(bad: list[str], rule: ShapeRule, seed: int) -> None:
    errors = {"13": ScoreError, "14": DeviceError, "no number": PluginError}
    draw = random.Random(seed)
    with Damaged(rule) as session, queue_on(session) as queue:
        handles = []
        for passage in bad:
            call = [Pair("1", passage), *numbers(*(draw.randint(100, 999) for _ in range(draw.randint(0, 80))))]
            draw.shuffle(call)
            handles.append((passage, call, queue.submit(call)))
        for passage, call, handle in handles:
            if passage in errors:
                with pytest.raises(errors[passage]):
                    handle.result(SOON)
            else:
                assert handle.result(SOON).tolist() == [float(pair.passage) for pair in call]
        assert queue.submit(numbers(1)).result(SOON).tolist() == [1]


def test_a_device_that_fails_ends_every_call_and_serves_again_when_it_has_recovered() -> None:
    broken = threading.Event()
    broken.set()

    def work(number: int) -> None:
        if broken.is_set():
            raise RuntimeError("out of memory")

    with NumberSession(ShapeRule(tokens=20, parallel_batches=2), work) as session, queue_on(session) as queue:
        for handle in [queue.submit(numbers(*range(50))) for _ in range(20)]:
            with pytest.raises(DeviceError, match="out of memory"):
                handle.result(SOON)
        assert queue.queued_pairs == 0
        broken.clear()
        assert queue.submit(numbers(5, 6)).result(SOON).tolist() == [5, 6]


def test_a_device_whose_shape_rule_makes_no_sense_ends_the_calls() -> None:
    with NumberSession(ShapeRule(length=4)) as session, queue_on(session) as queue:
        too_long = queue.submit(numbers(1, tokens=5))
        with pytest.raises(PluginError, match="fixed length of 4"):
            too_long.result(SOON)
        assert queue.submit(numbers(1, tokens=4)).result(SOON).tolist() == [1]


def test_a_fault_of_the_queue_itself_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    monkeypatch.setattr(WaitingPairs, "next_texts", lambda self: 1 / 0)
    with NumberSession() as session, queue_on(session) as queue:
        handle = queue.submit(numbers(1))
        with pytest.raises(PluginError, match="the scoring queue failed: ZeroDivisionError"):
            handle.result(SOON)
        with pytest.raises(ClosedError):
            queue.submit(numbers(1))


# -- cancelled, late, closed -------------------------------------------------------------------------------------------


def test_pairs_of_a_cancelled_call_are_not_computed() -> None:
    gate = Gate()
    with NumberSession(ShapeRule(tokens=4), gate) as session, queue_on(session) as queue:
        large, other = queue.submit(numbers(*range(1000))), queue.submit(numbers(*range(8)))
        gate.wait_until_begun()
        large.cancel()
        with pytest.raises(CancelledError):
            large.result(0)
        gate.release()
        assert other.result(SOON).tolist() == list(range(8))
        until(lambda: session.shapes[-1:] != [])
        assert sum(rows for rows, _ in session.shapes) <= 8 + large.started
        assert large.started <= 12
        large.cancel()
        other.cancel()
        assert other.result(0).tolist() == list(range(8)), "cancelling what is done changes nothing"


def test_a_call_that_is_late_ends_on_time_though_the_device_hangs_and_is_not_computed_later() -> None:
    gate = Gate()
    with NumberSession(ShapeRule(tokens=4), gate) as session, queue_on(session) as queue:
        begun, patient = queue.submit(numbers(1), deadline=time.monotonic() + 0.1), queue.submit(numbers(4, tokens=9))
        gate.wait_until_begun()
        waiting = queue.submit(numbers(2, 3, tokens=9), deadline=time.monotonic() + 0.1)  # after the smaller one
        for handle in (begun, waiting):
            with pytest.raises(DeadlineError):
                handle.result(5)
            assert handle.finished is not None
            assert handle.finished - handle.submitted < 3
        assert waiting.started == 0
        gate.release()
        assert patient.result(SOON).tolist() == [4]
        assert queue.submit(numbers(5), deadline=time.monotonic() + SOON).result(SOON).tolist() == [5]
        assert sorted(session.shapes) == [(1, 1), (1, 1), (1, 9)]


def test_a_deadline_in_the_past_costs_the_device_nothing() -> None:
    with NumberSession() as session, queue_on(session) as queue:
        with pytest.raises(DeadlineError):
            queue.submit(numbers(*range(100)), deadline=time.monotonic() - 1).result(SOON)
        assert session.shapes == []


def test_closing_ends_every_call_and_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo.scoring.queue, "PATIENCE", 0.05)
    gate = Gate()
    with NumberSession(ShapeRule(tokens=4), gate) as session, queue_on(session) as queue:
        handles = [queue.submit(numbers(*range(100))) for _ in range(3)]
        gate.wait_until_begun()
        began = time.monotonic()
        queue.close()
        assert time.monotonic() - began < 5, "a device that hangs is not waited for"
        for handle in handles:
            with pytest.raises(ClosedError):
                handle.result(0)
        with pytest.raises(ClosedError):
            queue.submit(numbers(1))
        with pytest.raises(ClosedError), queue.exclusive():
            pass
        assert (queue.queued_tokens, queue.queued_pairs) == (0, 0)
        gate.release()
    until(lambda: not own_threads("zoo-queue"))


def test_ended_calls_are_not_kept() -> None:
    with NumberSession() as session, queue_on(session) as queue:
        kept = []
        for value in range(300):
            handle = queue.submit(numbers(value), deadline=time.monotonic() + 3600)
            handle.result(SOON)
            kept.append(weakref.ref(handle))
        del handle
        until(lambda: not queue.silent_seconds)
        queue.submit(numbers(1), deadline=time.monotonic() + 3600).result(SOON)
        gc.collect()
        assert sum(each() is not None for each in kept) <= zoo.scoring.queue.ENDED_DEADLINES + 2


# -- alone with the device ---------------------------------------------------------------------------------------------


def test_inside_exclusive_use_nobody_elses_pairs_are_computed() -> None:
    gate = Gate()
    with NumberSession(ShapeRule(tokens=4), gate) as session, queue_on(session) as queue:
        running, cancelled = queue.submit(numbers(*range(20))), queue.submit(numbers(*range(20)))
        gate.wait_until_begun()
        cancelled.cancel()
        alone, leave, waiting = threading.Event(), threading.Event(), []

        def use_alone() -> None:
            with queue.exclusive():
                alone.set()
                assert leave.wait(SOON)

        user = threading.Thread(target=use_alone)
        user.start()
        time.sleep(0.02)
        other = threading.Thread(target=lambda: waiting.append(queue.submit(numbers(9))))
        other.start()
        assert not alone.is_set()
        gate.release()
        assert alone.wait(SOON)
        assert running.done()
        computed = len(session.shapes)
        time.sleep(0.05)
        assert len(session.shapes) == computed
        assert waiting == []
        leave.set()
        user.join(SOON)
        other.join(SOON)
        assert waiting[0].result(SOON).tolist() == [9]


def test_a_call_is_late_on_time_though_somebody_has_the_device_to_himself() -> None:
    with NumberSession() as session, queue_on(session) as queue:
        found: list[Handle] = []
        with queue.exclusive():
            other = threading.Thread(
                target=lambda: found.append(queue.submit(numbers(1), deadline=time.monotonic() + 0.05))
            )
            other.start()
            other.join(SOON)
            assert found, "submit waits past the deadline"
            with pytest.raises(DeadlineError):
                found[0].result(SOON)
        assert queue.submit(numbers(2), deadline=time.monotonic() + SOON).result(SOON).tolist() == [2]


def test_a_wait_for_exclusive_use_that_is_interrupted_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupting:
        def wait_for(self, predicate: Callable[[], bool]) -> None:
            raise KeyboardInterrupt

        def notify_all(self) -> None:
            """Nobody waits here."""

    with NumberSession() as session, queue_on(session) as queue:
        monkeypatch.setattr(queue, "_idle", Interrupting())
        with pytest.raises(KeyboardInterrupt), queue.exclusive():
            pass
        monkeypatch.undo()
        assert queue.submit(numbers(3)).result(SOON).tolist() == [3]


# -- what is counted ---------------------------------------------------------------------------------------------------


class Cutting(NumberModel):
    """Reads four tokens at most."""

    @hookimpl
    def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
        rows = [Encoding({"input_ids": [int(p.passage)] * min(int(p.query), 4)}, int(p.query) > 4) for p in pairs]
        return Encodings(rows, {"input_ids": 0})


def test_truncated_pairs_are_counted_or_refused() -> None:
    with NumberSession() as session, queue_on(session, Cutting()) as queue:
        pairs = [*numbers(*range(100)), *numbers(5, tokens=9)]
        counted = queue.submit(pairs)
        assert counted.result(SOON)[-1] == 5
        assert (counted.passages_truncated, counted.queries_truncated, counted.tokens) == (1, 0, 104)
        before = len(session.shapes)
        with pytest.raises(TooLongError, match="pair 100 is longer than the 4 tokens"):
            queue.submit(pairs, truncate=False).result(SOON)
        assert queue.submit(numbers(1, 2), truncate=False).result(SOON).tolist() == [1, 2]
        assert len(session.shapes) > before


def test_what_waits_is_counted_in_tokens_before_and_after_it_is_tokenised() -> None:
    gate = Gate()
    with NumberSession(ShapeRule(tokens=4), gate) as session, queue_on(session) as queue:
        assert queue.queued_tokens == 0
        queue.submit(numbers(1))
        gate.wait_until_begun()
        handle = queue.submit(numbers(*range(500), tokens=8))
        until(lambda: handle.tokens == 4000)
        assert queue.queued_pairs == 500 - handle.started
        assert queue.queued_tokens == 8 * (500 - handle.started)
        learnt = queue.expected_tokens([Pair("8", "123")])
        assert 1 < learnt <= 8, "characters have been seen to cost more than was thought at first"
        handle.cancel()
        assert (queue.queued_pairs, queue.queued_tokens) == (0, 0)
        gate.release()


def test_expected_tokens_are_no_more_than_a_pair_can_have() -> None:
    waiting = WaitingPairs(longest=512)
    assert waiting.expected_tokens([Pair("q", "x" * 1_000_000)] * 2) == 1024


def test_batches_are_reported_with_what_they_cost() -> None:
    reports: list[BatchReport] = []
    with NumberSession(ShapeRule(tokens=40, parallel_batches=2), lambda number: time.sleep(0.005)) as session:
        with queue_on(session) as queue:
            queue.on_batch = reports.append
            began = time.monotonic()
            handles = [queue.submit(numbers(*range(30), tokens=1 + n)) for n in range(5)]
            for handle in handles:
                handle.result(SOON)
            until(lambda: sum(report.pairs for report in reports) == 150)
            seconds = time.monotonic() - began
        assert sum(report.tokens for report in reports) == sum(handle.tokens for handle in handles)
        assert sum(report.slots for report in reports) == sum(rows * length for rows, length in session.shapes)
        assert max(report.calls for report in reports) > 1
        assert 0.5 * seconds < sum(report.seconds for report in reports) <= seconds


def test_a_listener_that_fails_costs_nobody_a_score(caplog: pytest.LogCaptureFixture) -> None:
    def listener(report: BatchReport) -> None:
        raise RuntimeError("no disk")

    with NumberSession() as session, queue_on(session) as queue:
        queue.on_batch = listener
        assert queue.submit(numbers(1)).result(SOON).tolist() == [1]
        assert queue.submit(numbers(2)).result(SOON).tolist() == [2]
    assert "a listener to batches failed" in caplog.text


def test_a_device_that_is_silent_is_seen() -> None:
    gate = Gate()
    with NumberSession(ShapeRule(), gate) as session, queue_on(session) as queue:
        assert queue.silent_seconds == 0
        handle = queue.submit(numbers(1))
        gate.wait_until_begun()
        time.sleep(0.05)
        assert 0.05 <= queue.silent_seconds < SOON
        gate.release()
        handle.result(SOON)
        until(lambda: queue.silent_seconds == 0)


# -- prefixes that rows share ------------------------------------------------------------------------------------------


class PrefixSession(NumberSession):
    """A session with an input for what rows share."""

    input_names = (*NumberSession.input_names, "prefix")


class SharedPrefix(NumberModel):
    """The query's tokens lead; ``infer`` sees to it that rows of one group begin alike."""

    seen: list[tuple[int, ...]]

    def __init__(self) -> None:
        super().__init__(nothing)
        self.seen = []

    @hookimpl
    def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
        queries = list(dict.fromkeys(pair.query for pair in pairs))
        rows = [Encoding({"input_ids": [int(p.passage), *map(ord, p.query), 1, int(p.passage)]}) for p in pairs]
        rows = [Encoding({"input_ids": [*row.features["input_ids"][1:], row.features["input_ids"][0]]}) for row in rows]
        return Encodings(
            rows,
            {"input_ids": 0},
            groups=[queries.index(pair.query) for pair in pairs],
            shared=[len(pair.query) for pair in pairs],
        )

    @hookimpl
    def infer(self, session: Session, inputs: Tensors, batch: BatchInfo) -> Future[Tensors]:
        assert batch.groups is not None
        assert batch.shared is not None
        leading: dict[int, set[tuple[int, ...]]] = {}
        for row, group, shared in zip(inputs["input_ids"], batch.groups, batch.shared, strict=False):
            leading.setdefault(group, set()).add(tuple(row[:shared].tolist()))
        assert all(len(different) == 1 for different in leading.values()), "rows of different queries in one group"
        self.seen.append(batch.groups)
        lengths = inputs["attention_mask"].sum(axis=1) - 1
        scores = inputs["input_ids"][np.arange(len(lengths)), lengths].astype(np.float32)
        session.submit(inputs)
        future: Future[Tensors] = Future()
        future.set_result({"score": scores})
        return future


@settings(max_examples=30, deadline=None)
@given(
    calls=st.lists(
        st.lists(st.tuples(st.sampled_from(["a", "ab", "abc", "b"]), st.integers(2, 99)), min_size=1, max_size=150),
        min_size=1,
        max_size=6,
    )
)
def test_rows_of_different_queries_are_never_taken_for_one_group(calls: list[list[tuple[str, int]]]) -> None:
    model = SharedPrefix()
    with PrefixSession(ShapeRule(tokens=60)) as session, queue_on(session, model) as queue:
        handles = [queue.submit([Pair(query, str(number)) for query, number in call]) for call in calls]
        for call, handle in zip(calls, handles, strict=True):
            assert handle.result(SOON).tolist() == [number for _, number in call]


def test_calls_with_the_same_query_share_its_prefix() -> None:
    gate, model = Gate(), SharedPrefix()
    with PrefixSession(ShapeRule(tokens=1000), gate) as session, queue_on(session, model) as queue:
        queue.on_batch = lambda report: None
        with queue.exclusive():
            pass
        pipeline = pipeline_of(model)
        runner = BatchRunner(pipeline, session, None, PREFIXES)
        waiting = WaitingPairs()
        handles = [Handle([Pair("query", "5")] * 3, None, True, lambda handle, error: None) for _ in range(2)]
        for handle in handles:
            waiting.add(handle)
        form = None
        while (turn := waiting.next_texts()) is not None:
            handle, start, end = turn
            form = pipeline.preprocess(handle.pairs[start:end])
            waiting.add_tokenised(handle, start, form)
        assert form is not None
        items = waiting.next_batch(lambda items: runner.divided(zoo.scoring.queue.encodings_of(items, form)))
        batch = runner.batch(zoo.scoring.queue.encodings_of(items, form))
        assert batch.info.groups == (0,) * 6
        assert batch.slots == batch.inputs["input_ids"].size - 5 * len("query")


# -- with a real model -------------------------------------------------------------------------------------------------


def test_scores_by_many_callers_are_those_of_a_run_alone() -> None:
    draw = random.Random(5)
    words = ["panda", "bamboo", "eats", "the", "a", "in", "China", "熊猫", "吃", "竹子", "sleeps", "winter"]
    queries = ["what is panda?", "熊猫吃什么?", ""]
    calls = [
        [Pair(draw.choice(queries), " ".join(draw.choices(words, k=draw.randint(0, 80)))) for _ in range(size)]
        for size in (1, 1, 40, 1, 100, 3, 7, 1)
    ]
    with Reranker.open("zoo-reranker-tiny", device="cpu", threads=2, offline=True) as reranker:
        with reranker.exclusive() as scorer:
            alone = [[score for _, score in scorer.score(call)] for call in calls]
        with ThreadPoolExecutor(4) as callers:
            together = list(callers.map(reranker.score, calls))
    for expected, scores in zip(alone, together, strict=True):
        assert scores == pytest.approx(np.array(expected), abs=1e-5)
