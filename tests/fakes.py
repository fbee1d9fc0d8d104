"""A model and a session that execute: the score of a pair is the number its passage spells."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from zoo import hookimpl
from zoo.registry.stages import Pipeline
from zoo.types import Encoding, Encodings, Pair, Scores, ShapeRule, Tensors

Work = Callable[[], None]

threads_before: frozenset[threading.Thread] = frozenset()
"""What ran when the current test began."""


def own_threads(prefix: str = "zoo-") -> list[str]:
    """The names of zoo's threads that the current test has started and that still run."""
    return [thread.name for thread in set(threading.enumerate()) - threads_before if thread.name.startswith(prefix)]


def nothing() -> None:
    """What a stage does beside its work, unless a test says otherwise."""


class NumberModel:
    """The passage is a number; its tokens are the number, as often as the query says."""

    def __init__(self, before_preprocess: Work = nothing, before_postprocess: Work = nothing) -> None:
        self.before_preprocess, self.before_postprocess = before_preprocess, before_postprocess

    @hookimpl
    def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
        self.before_preprocess()
        rows = [Encoding({"input_ids": [int(pair.passage)] * max(int(pair.query or 1), 1)}) for pair in pairs]
        return Encodings(rows, {"input_ids": 0})

    @hookimpl
    def postprocess(self, outputs: Tensors) -> Scores:
        self.before_postprocess()
        scores: Scores = outputs["score"]
        return scores


class NumberSession:
    """Gives back each row's first token. ``before_batch`` runs on the device's thread, before the batch it is told the number of."""

    input_names = ("input_ids", "attention_mask")

    def __init__(
        self, rule: ShapeRule | None = None, before_batch: Callable[[int], None] = lambda number: None
    ) -> None:
        self.shape_rule = rule or ShapeRule()
        self.shapes: list[tuple[int, ...]] = []
        self._before_batch = before_batch
        self._workers = ThreadPoolExecutor(
            max_workers=self.shape_rule.parallel_batches, thread_name_prefix="fake-device"
        )
        self._lock = threading.Lock()

    device_seconds = None

    def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
        return self._workers.submit(self._run, inputs)

    def _run(self, inputs: Tensors) -> Tensors:
        with self._lock:
            self.shapes.append(inputs["input_ids"].shape)
            number = len(self.shapes)
        self._before_batch(number)
        return {"score": inputs["input_ids"][:, 0].astype(np.float32)}

    def close(self) -> None:
        self._workers.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> NumberSession:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()


def pipeline_of(model: object) -> Pipeline:
    """A run of ``model`` alone."""
    return Pipeline([("model", model)])
