"""Pairs in, scores out, in order: the device works while the host prepares what comes next.

Pairs are read in windows, sorted and batched inside a window, and several batches are in flight at once; so memory is
bounded by the window whatever the input's size.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from zoo.batching import Batch, batches
from zoo.errors import ScoreError
from zoo.pipeline import Pipeline
from zoo.types import Pair, Scores, Session, Tensors

BATCHES_AHEAD = 2
"""Batches handed to the device beyond those it runs at once: one waits, one is being made."""

WINDOW_BATCHES, SMALLEST_WINDOW = 32, 64
"""Pairs are read ahead for sorting by this many batches: enough to make batches even, and few enough that results flow."""


@dataclass
class Tally:
    """What a run did, for its closing lines."""

    pairs: int = 0
    passages_truncated: int = 0
    queries_truncated: int = 0
    tokens: int = 0
    slots: int = 0
    batches: int = 0
    lowest: float = float("inf")
    highest: float = float("-inf")

    @property
    def padding_ratio(self) -> float:
        """Padded slots over real tokens: 0.25 means a quarter more was computed than was needed."""
        return self.slots / self.tokens - 1 if self.tokens else 0.0


@dataclass
class _Window:
    """Consecutive pairs and the scores that have come in for them."""

    pairs: list[Pair]
    scores: Scores
    missing: int


@dataclass
class Scorer:
    """Scores pairs through one session. ``tally`` grows as results are given out."""

    pipeline: Pipeline
    session: Session
    batch_size: int
    tally: Tally = field(default_factory=Tally)

    def score(self, pairs: Iterable[Pair]) -> Iterator[tuple[Pair, float]]:
        """Each pair with its logit, in the order of ``pairs``. Raises ScoreError naming a pair whose score is not finite."""
        source = iter(pairs)
        windows: deque[_Window] = deque()
        flying: deque[tuple[_Window, Batch, Future[Tensors]]] = deque()
        while chunk := list(itertools.islice(source, max(WINDOW_BATCHES * self.batch_size, SMALLEST_WINDOW))):
            window = _Window(chunk, np.full(len(chunk), np.nan, dtype=np.float32), len(chunk))
            windows.append(window)
            for batch in self._prepare(chunk):
                if len(flying) >= self.session.shape_rule.lanes + BATCHES_AHEAD:
                    self._collect(*flying.popleft())
                flying.append((window, batch, self.pipeline.infer(self.session, batch.inputs)))
            yield from self._finished(windows)
        while flying:
            self._collect(*flying.popleft())
            yield from self._finished(windows)

    def _prepare(self, pairs: list[Pair]) -> Iterator[Batch]:
        encodings = self.pipeline.preprocess(pairs)
        self.tally.passages_truncated += sum(row.passage_truncated for row in encodings.rows)
        self.tally.queries_truncated += sum(row.query_truncated for row in encodings.rows)
        return batches(encodings, self.session.shape_rule, self.batch_size, self.session.input_names)

    def _collect(self, window: _Window, batch: Batch, future: Future[Tensors]) -> None:
        scores = self.pipeline.postprocess(future.result())
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
        self.tally.batches += 1
        self.tally.tokens += batch.tokens
        self.tally.slots += batch.slots

    def _finished(self, windows: deque[_Window]) -> Iterator[tuple[Pair, float]]:
        while windows and not windows[0].missing:
            window = windows.popleft()
            self.tally.pairs += len(window.pairs)
            self.tally.lowest = min(self.tally.lowest, float(window.scores.min()))
            self.tally.highest = max(self.tally.highest, float(window.scores.max()))
            yield from zip(window.pairs, window.scores.tolist(), strict=True)


def _short(pair: Pair, limit: int = 200) -> str:
    return " / ".join(repr(text if len(text) <= limit else f"{text[:limit]}...") for text in pair)
