"""Pairs in, scores out, in order: every stage works at the same time, so that the device never waits for the host.

Reading, tokenising, batching, inference and postprocessing are threads with bounded queues between them (see
``zoo.scoring.stage_threads``). Pairs are read in windows and sorted by length inside a window, so that memory is bounded by a few
windows whatever the input's size.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

from zoo.registry.stages import Pipeline
from zoo.scoring.batch_runner import BatchRunner
from zoo.scoring.batching import Features
from zoo.scoring.stage_threads import Recall as Recall
from zoo.scoring.stage_threads import StageThreads, Window
from zoo.types import Pair, Session

MUCH_UNKNOWN = 0.05
"""Share of a run's tokens, or of one query's, from which on a warning says that the model cannot read them."""
MUCH_OF_A_PAIR = 0.25
"""The same of one pair: of a few words one may be an emoji."""


class ScoredPair(NamedTuple):
    """A pair with its logit. ``truncated`` tells whether its passage or its query was cut."""

    pair: Pair
    logit: float
    truncated: bool


@dataclass
class RunStats:
    """What a run did, for its closing lines.

    ``by_query`` counts unknown tokens and all tokens by the query's text if it is not None: that takes as much memory as queries.
    """

    pairs: int = 0
    passages_truncated: int = 0
    queries_truncated: int = 0
    tokens: int = 0
    slots: int = 0
    batches: int = 0
    lowest: float = float("inf")
    highest: float = float("-inf")
    unknown: int = 0
    """Tokens that the model's vocabulary does not know."""
    read: int = 0
    """Tokens of all pairs."""
    unreadable_pairs: int = 0
    worst_pair: tuple[float, Pair] | None = None
    """The largest share of unknown tokens in a pair, and the pair."""
    by_query: dict[str, tuple[int, int]] | None = None

    @property
    def padding_ratio(self) -> float:
        """Padded slots over real tokens: 0.25 means a quarter more was computed than was needed."""
        return self.slots / self.tokens - 1 if self.tokens else 0.0

    @property
    def unknown_share(self) -> float:
        return self.unknown / self.read if self.read else 0.0

    def add(self, window: Window) -> None:
        """Count a finished window."""
        self.pairs += len(window.pairs)
        self.passages_truncated += window.passages_truncated
        self.queries_truncated += window.queries_truncated
        self.tokens += window.tokens
        self.slots += window.slots
        self.batches += window.batches
        self.lowest = min(self.lowest, float(window.scores.min()))
        self.highest = max(self.highest, float(window.scores.max()))
        self._count_unknown(window)

    def _count_unknown(self, window: Window) -> None:
        self.read += sum(window.lengths)
        self.unknown += sum(window.unknown)
        if not any(window.unknown) and self.by_query is None:
            return
        for pair, unknown, length in zip(window.pairs, window.unknown, window.lengths, strict=True):
            share = unknown / length if length else 0.0
            if share > MUCH_OF_A_PAIR:
                self.unreadable_pairs += 1
                if self.worst_pair is None or share > self.worst_pair[0]:
                    self.worst_pair = (share, pair)
            if self.by_query is not None:
                before = self.by_query.get(pair.query, (0, 0))
                self.by_query[pair.query] = (before[0] + unknown, before[1] + length)


@dataclass
class Scorer:
    """Scores pairs through one session. ``stats`` grows as results are given out.

    ``batch_size`` is rows a batch; None leaves them to the session's token budget, or to ``batch_tokens`` in its place. ``repeatable``
    batches the same pairs the same way in every run; otherwise windows follow the device's speed. The first windows have the ``sizes``
    that are given. ``recall`` knows the scores of batches that were computed before and is told those of new ones.
    """

    pipeline: Pipeline
    session: Session
    batch_size: int | None = 1
    features: Features = field(default_factory=Features)
    repeatable: bool = False
    recall: Recall | None = None
    sizes: Sequence[int] = ()
    batch_tokens: int | None = None
    stats: RunStats = field(default_factory=RunStats)
    _running: list[StageThreads] = field(default_factory=list, repr=False)

    @property
    def runner(self) -> BatchRunner:
        """What computes a batch, with the settings as they are now."""
        return BatchRunner(self.pipeline, self.session, self.batch_size, self.features, self.batch_tokens)

    def score(self, pairs: Iterable[Pair]) -> Iterator[tuple[Pair, float]]:
        """Each pair with its logit, in the order of ``pairs``.

        ``pairs`` is iterated in another thread. The first failure of any stage ends the run: results that were complete before it
        are given out, then it is raised (a score that is not finite as a ScoreError naming its pair). Closing the iterator stops
        every stage.
        """
        with closing(self._windows(pairs)) as windows:
            for window in windows:
                yield from zip(window.pairs, window.scores.tolist(), strict=True)

    def score_marked(self, pairs: Iterable[Pair]) -> Iterator[ScoredPair]:
        """The same, with a mark at each pair that was cut to the length limits."""
        with closing(self._windows(pairs)) as windows:
            for window in windows:
                yield from map(ScoredPair, window.pairs, window.scores.tolist(), window.truncated)

    def _windows(self, pairs: Iterable[Pair]) -> Generator[Window, None, None]:
        """Finished windows, each counted and, after the caller has asked for the next one, released."""
        with StageThreads(
            self.runner, pairs, repeatable=self.repeatable, sizes=self.sizes, recall=self.recall
        ) as threads:
            self._running.append(threads)
            try:
                for window in threads.finished():
                    self.stats.add(window)
                    yield window
                    threads.release(window)
            finally:
                self._running.remove(threads)

    def close(self) -> None:
        """Stop what an iterator that nobody closed has left running."""
        for threads in self._running:
            threads.stop()
