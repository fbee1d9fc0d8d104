"""The times of a run, on a clock that only the test moves."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from zoo import hookimpl
from zoo.errors import PluginError
from zoo.evaluation import timing
from zoo.evaluation.timing import Stopwatch
from zoo.registry.participants import Participant
from zoo.registry.stages import Pipeline
from zoo.types import BatchInfo, Encodings, Pair, Scores, ShapeRule, Tensors


class Clock:
    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Card:
    """A session whose batches end when the test says so."""

    input_names: Sequence[str] = ("input_ids", "attention_mask")

    def __init__(self, parallel_batches: int) -> None:
        self.shape_rule = ShapeRule(parallel_batches=parallel_batches)
        self.flying: list[Future[Tensors]] = []

    device_seconds = None

    def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
        self.flying.append(Future())
        return self.flying[-1]

    def close(self) -> None: ...

    def __enter__(self) -> Card:
        return self

    def __exit__(self, *exc_info: object) -> None: ...


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing, "time", made)
    return made


INFO = BatchInfo(rows=2, tokens=4)


def batch() -> dict[str, Any]:
    return {"input_ids": np.ones((2, 4), dtype=np.int64), "attention_mask": np.asarray([[1, 1, 1, 0], [1, 0, 0, 0]])}


def test_a_batch_is_timed_from_when_it_could_begin(clock: Clock) -> None:
    watch, card = Stopwatch(), Card(parallel_batches=1)
    pipeline = Pipeline([])
    pipeline.join(Participant("stopwatch", watch))
    clock.now = 5.0  # the device has waited five seconds for its first batch
    pipeline.infer(card, batch(), INFO)
    clock.now = 6.0
    pipeline.infer(card, batch(), INFO)
    for clock.now, future in zip((8.0, 9.0), card.flying, strict=True):
        future.set_result({})
    clock.now = 11.0  # two more seconds without work
    pipeline.infer(card, batch(), INFO)
    clock.now = 11.5
    card.flying[-1].set_result({})
    assert [found.seconds for found in watch.batches] == [3.0, 1.0, 0.5]
    assert watch.idle == 7.0
    assert {(found.rows, found.length, found.tokens) for found in watch.batches} == {(2, 4, 4)}


def test_batches_computed_side_by_side_are_each_timed_whole(clock: Clock) -> None:
    watch, card = Stopwatch(), Card(parallel_batches=2)
    pipeline = Pipeline([])
    pipeline.join(Participant("stopwatch", watch))
    for _ in range(3):
        pipeline.infer(card, batch(), INFO)
    for clock.now, future in zip((4.0, 5.0, 8.0), card.flying, strict=True):
        future.set_result({})
    assert [found.seconds for found in watch.batches] == [4.0, 5.0, 4.0]
    assert watch.idle == 0.0


def test_the_stages_of_the_host_are_timed_even_when_they_fail(clock: Clock) -> None:
    class Slow:
        @hookimpl
        def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
            clock.now += 2.0
            raise ValueError("no tokenizer")

        @hookimpl
        def postprocess(self, outputs: Tensors) -> Scores:
            clock.now += 0.25
            return np.zeros(1, dtype=np.float32)

    watch = Stopwatch()
    pipeline = Pipeline([("slow", Slow())])
    pipeline.join(Participant("stopwatch", watch))
    with pytest.raises(PluginError, match="no tokenizer"):
        pipeline.preprocess([])
    pipeline.postprocess({}, {}, BatchInfo(rows=1, tokens=1))
    assert (watch.preprocess, watch.postprocess) == (2.0, 0.25)
