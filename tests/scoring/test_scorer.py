"""Pairs through all stages: order, flow, bounds, and an end to every run whatever goes wrong."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo.scoring.stage_threads
import zoo.scoring.window_size
from fakes import NumberModel, NumberSession, own_threads, pipeline_of
from zoo.errors import PluginError, ScoreError
from zoo.scoring.scorer import Scorer
from zoo.types import Pair, ShapeRule, Tensors


class BrokenError(Exception):
    """What a stage of these tests raises."""


def numbered(count: int, tokens: Callable[[int], int] = lambda number: 1 + number % 7) -> list[Pair]:
    return [Pair(str(tokens(number)), str(number)) for number in range(count)]


def breaking_at(number: int) -> Callable[[int], None]:
    def work(current: int) -> None:
        if current == number:
            raise BrokenError(f"batch {number}")

    return work


rules = st.builds(
    ShapeRule,
    rows=st.none() | st.integers(1, 20),
    length=st.none() | st.just(16),
    length_multiple=st.sampled_from([1, 8]),
    tokens=st.none() | st.integers(1, 100),
    parallel_batches=st.integers(1, 4),
)


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 300), rows=st.none() | st.integers(1, 40), rule=rules)
def test_every_pair_comes_back_in_order_with_its_own_score(count: int, rows: int | None, rule: ShapeRule) -> None:
    pairs = numbered(count)
    with NumberSession(rule) as session:
        scorer = Scorer(pipeline_of(NumberModel()), session, rows)
        assert list(scorer.score(pairs)) == [(pair, float(pair.passage)) for pair in pairs]
        assert scorer.stats.pairs == count
        assert scorer.stats.batches == len(session.shapes)
        assert scorer.stats.slots == sum(a * b for a, b in session.shapes)
        assert scorer.stats.tokens == sum(int(pair.query) for pair in pairs)
    assert not own_threads()


def test_rows_are_the_users_and_the_budget_is_the_devices() -> None:
    pairs = numbered(200, tokens=lambda number: 10)
    for asked, expected in ((5, 50), (None, 40)):
        with NumberSession(ShapeRule(tokens=40)) as session:
            list(Scorer(pipeline_of(NumberModel()), session, asked).score(pairs))
            slots = [rows * length for rows, length in session.shapes]
            assert max(slots) == expected
            assert sum(slots) == 2000, "pairs of one length need no padding; only a window's last batch may be smaller"


def test_sorting_leaves_little_padding() -> None:
    pairs = numbered(4000, tokens=lambda number: 1 + (number * 37) % 100)
    with NumberSession() as session:
        scorer = Scorer(pipeline_of(NumberModel()), session, 8)
        list(scorer.score(pairs))
        assert scorer.stats.padding_ratio < 0.1


def test_results_flow_while_a_slow_device_works() -> None:
    release = threading.Event()

    def wait_from_the_second_window(number: int) -> None:
        if number > 16:
            assert release.wait(30)

    with NumberSession(before_batch=wait_from_the_second_window) as session:
        results = Scorer(pipeline_of(NumberModel()), session, 1).score(numbered(100))
        assert [score for _, score in itertools.islice(results, 16)] == list(range(16))
        release.set()
        assert len(list(results)) == 84


def test_the_input_is_read_no_further_ahead_than_a_few_windows() -> None:
    read = 0

    def endless() -> Iterator[Pair]:
        nonlocal read
        for read in itertools.count():
            yield Pair("1", str(read))

    with NumberSession() as session:
        results = Scorer(pipeline_of(NumberModel()), session, None).score(endless())
        for given, _ in enumerate(results):
            assert read - given < 12 * zoo.scoring.window_size.LARGEST_WINDOW
            if given == 20_000:
                break
        results.close()
    assert not own_threads()


def test_long_passages_are_not_piled_up() -> None:
    held = 0
    most = 0
    number = "7" + " " * 1_000_000

    def endless() -> Iterator[Pair]:
        nonlocal held, most
        while True:
            held += 1
            most = max(most, held)
            yield Pair("1", number)

    with NumberSession() as session:
        results = Scorer(pipeline_of(NumberModel()), session, 1).score(endless())
        for _ in itertools.islice(results, 200):
            held -= 1
        results.close()
    assert most * len(number) < 3 * zoo.scoring.window_size.CHARACTERS_AHEAD


def test_the_100th_batch_fails_and_what_was_complete_is_given_out_first() -> None:
    with NumberSession(before_batch=breaking_at(100)) as session:
        got: list[float] = []
        results = Scorer(pipeline_of(NumberModel()), session, 4).score(numbered(5000))
        with pytest.raises(
            PluginError, match=r"device failed in a batch of 4 rows of . tokens: BrokenError: batch 100 \(fakes.Num"
        ):
            got.extend(score for _, score in results)
    assert got == list(range(len(got)))
    assert len(got) >= 100
    assert not own_threads()


def failing_source() -> Iterator[Pair]:
    yield from numbered(500)
    raise BrokenError


def raising() -> None:
    raise BrokenError


@pytest.mark.parametrize(
    ("model", "pairs"),
    [
        (NumberModel(), failing_source()),
        (NumberModel(), [*numbered(100), Pair("1", "no number")]),
        (NumberModel(before_preprocess=raising), numbered(100)),
        (NumberModel(before_postprocess=raising), numbered(100)),
    ],
    ids=["source", "tokenising", "preprocess", "postprocess"],
)
def test_a_failure_of_any_stage_is_raised_and_ends_the_others(model: NumberModel, pairs: list[Pair]) -> None:
    with NumberSession() as session, pytest.raises((BrokenError, PluginError)):
        list(Scorer(pipeline_of(model), session, 4).score(pairs))
    assert not own_threads()


def test_a_device_that_refuses_a_batch_ends_the_run() -> None:
    class Refusing(NumberSession):
        def submit(self, inputs: Tensors) -> None:  # type: ignore[override]  # it never gets so far
            raise BrokenError

    with Refusing() as session, pytest.raises(PluginError, match="BrokenError"):
        list(Scorer(pipeline_of(NumberModel()), session, 4).score(numbered(50)))
    assert not own_threads()


def consume(results: Iterator[tuple[Pair, float]], stage: str) -> None:
    for _ in results:
        if stage == "consumer":
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("stage", ["source", "preprocess", "device", "postprocess", "consumer"])
def test_an_interrupt_gets_through_whatever_stage_hangs(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo.scoring.stage_threads, "PATIENCE", 0.05)
    release, interrupted = threading.Event(), threading.Event()

    def hang() -> None:
        if not interrupted.is_set():
            interrupted.set()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        assert release.wait(30)

    def source() -> Iterator[Pair]:
        yield from numbered(200)
        if stage == "source":
            hang()

    model = NumberModel(*(hang if stage == name else (lambda: None) for name in ("preprocess", "postprocess")))
    session = NumberSession(before_batch=lambda number: hang() if stage == "device" else None)
    results = Scorer(pipeline_of(model), session, 4).score(source())
    with pytest.raises(KeyboardInterrupt):
        consume(results, stage)
    results.close()
    release.set()
    session.close()
    # Not join: the interrupt may have come while a thread was being started, and what has not started cannot be joined.
    deadline = time.monotonic() + 30
    while own_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not own_threads()


def test_closing_the_scorer_stops_an_abandoned_run() -> None:
    with NumberSession() as session:
        scorer = Scorer(pipeline_of(NumberModel()), session, 1)
        results = scorer.score(numbered(10_000))
        next(results)
        assert own_threads()
        scorer.close()
        assert not own_threads()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_names_its_pair(bad: float) -> None:
    class Damaged(NumberSession):
        def _run(self, inputs: Tensors) -> Tensors:
            scores = super()._run(inputs)["score"]
            return {"score": np.where(scores == 33, bad, scores).astype(np.float32)}

    with Damaged() as session, pytest.raises(ScoreError, match="'33'"):
        list(Scorer(pipeline_of(NumberModel()), session, 4).score(numbered(100)))


def test_two_runs_of_one_scorer_do_not_disturb_each_other() -> None:
    with NumberSession(ShapeRule(parallel_batches=2)) as session:
        scorer = Scorer(pipeline_of(NumberModel()), session, 4)
        both = zip(scorer.score(numbered(300)), scorer.score(numbered(300)), strict=True)
        assert all(left == right for left, right in both)
        assert scorer.stats.pairs == 600
