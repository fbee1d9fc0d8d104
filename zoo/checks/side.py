"""One side of a comparison: a model opened on a device, and what has been measured of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from zoo.checks.bounds import torch_scores
from zoo.evaluation.datasets import Collection
from zoo.evaluation.metrics import MetricHooks
from zoo.evaluation.rerank import collect, rerank
from zoo.registry.catalogue import Catalogue
from zoo.registry.participants import Participant
from zoo.registry.stages import Pipeline
from zoo.reranker import Reranker
from zoo.scoring.scorer import RunStats, Scorer
from zoo.settings import RunSettings
from zoo.types import Encodings, Head, Pair

logger = logging.getLogger(__name__)

Shown = Callable[[Iterator[Any], int, str], Iterator[Any]]
"""Passes items on, given how many there will be and what they are, and may show how far they are."""


@dataclass
class Side:
    """``scores`` are those of the pairs; ``reversed`` those of the pairs in reversed order, put back in order.

    The reversed pairs are scored one a batch if the session takes that, so that they stand beside others in a batch. ``exact`` holds
    PyTorch's scores of the same encodings, if it was asked. Metrics are by data set and language, as a card's references name them.
    """

    reranker: Reranker
    pipeline: Pipeline
    shown: Shown
    stats: RunStats = field(default_factory=RunStats)
    seconds: float = 0.0
    """Spent on scoring, without the reversed pairs and without PyTorch."""
    device_seconds: float | None = None
    """The same by the runtime's own counter."""
    exact_seconds: float = 0.0
    encodings: Encodings = field(init=False)
    scores: list[float] = field(init=False)
    reversed: list[float] = field(init=False)
    exact: list[float] | None = None
    metrics: dict[str, Mapping[str, float]] = field(default_factory=dict)
    exact_metrics: dict[str, Mapping[str, float]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The device's."""
        return self.reranker.device_name

    @property
    def _head(self) -> Head:
        return self.reranker.artifact.head if self.reranker.artifact else {}

    def score_pairs(self, pairs: Sequence[Pair]) -> None:
        """Score the pairs, and once more in reversed order. Raises ZooError."""
        self.encodings = self.pipeline.preprocess(pairs)
        with self._timed() as scorer:
            self.scores = [score for _, score in self.shown(scorer.score(pairs), len(pairs), f"pairs on {self.name}")]
        with self.reranker.exclusive(pipeline=self.pipeline, batch_size=1) as scorer:
            again = self.shown(scorer.score(reversed(pairs)), len(pairs), f"pairs in other batches on {self.name}")
            self.reversed = [score for _, score in again][::-1]
        self._describe()

    def score_pairs_in_torch(self) -> None:
        """Have PyTorch score the same encodings."""
        logger.info("scoring in PyTorch")
        started = time.perf_counter()
        self.exact = torch_scores(self.reranker.checkpoint.folder, self.encodings, self._head)
        self.exact_seconds = time.perf_counter() - started

    def judge(self, collection: Collection) -> None:
        """Rerank a collection whole and keep its metrics, by PyTorch too if it scored the pairs."""
        name = f"{collection.dataset}/{collection.language}"
        with self._timed() as scorer:
            scored = rerank(scorer, collection, "truncate", self.reranker.max_length)
            run, _ = collect(collection, self.shown(scored, collection.pairs, f"pairs of {name} on {self.name}"))
        self.metrics[name] = self.pipeline.evaluate(run, collection.qrels).metrics
        if self.exact is not None:
            self.exact_metrics[name] = self._judge_in_torch(collection)
        self._describe()

    def seconds_for(self, pairs: int) -> float:
        """How long that many pairs of full length are expected to take, by the speed of those that were scored."""
        slots = pairs * self.reranker.max_length
        tokens = sum(row.length for row in self.encodings.rows)
        return slots * (self.seconds / max(self.stats.slots, 1) + self.exact_seconds / max(tokens, 1))

    @contextmanager
    def _timed(self) -> Iterator[Scorer]:
        """A scorer whose work is added to the counts and times."""
        before, started = self.reranker.session.device_seconds, time.perf_counter()
        with self.reranker.exclusive(pipeline=self.pipeline) as scorer:
            yield scorer
        self.seconds += time.perf_counter() - started
        after = self.reranker.session.device_seconds
        if before is not None and after is not None:
            self.device_seconds = (self.device_seconds or 0.0) + after - before
        for name in ("pairs", "slots", "batches", "passages_truncated"):
            setattr(self.stats, name, getattr(self.stats, name) + getattr(scorer.stats, name))

    def _judge_in_torch(self, collection: Collection) -> Mapping[str, float]:
        """The same metrics from PyTorch's own scores of the same encodings."""
        names = [(query, passage) for query, passages in collection.candidates.items() for passage in passages]
        pairs = [Pair(collection.queries[query], collection.passages[passage]) for query, passage in names]
        logger.info("scoring %d pairs in PyTorch", len(pairs))
        run: dict[str, dict[str, float]] = {query: {} for query in collection.candidates}
        exact = torch_scores(self.reranker.checkpoint.folder, self.pipeline.preprocess(pairs), self._head)
        for (query, passage), score in zip(names, exact, strict=True):
            run[query][passage] = score
        return self.pipeline.evaluate(run, collection.qrels).metrics

    def _describe(self) -> None:
        """Facts for the report, which are asked for while the session is open."""
        reranker, artifact = self.reranker, self.reranker.artifact
        rows = reranker.session.shape_rule.rows or 0
        self.facts = {
            "name": self.name,
            "precision": reranker.precision,
            **({"precision_reason": reranker.precision_reason} if reranker.precision_reason else {}),
            "details": reranker.device_details(),
            "options": dict(reranker.device_options),
            "model_file": artifact.model.name if artifact else "none",
            "origin": artifact.origin if artifact else "none",
            "plugins": reranker.pipeline.owners,
            "max_length": reranker.max_length,
            "batches": self.stats.batches,
            "seconds": round(self.seconds, 6),
            "device_seconds": self.device_seconds,
            "pairs_per_second": round(self.stats.pairs / self.seconds, 3),
            # Tecorigin counts rows that only fill the last batch as samples; we do not.
            "vendor_samples_per_second": round(self.stats.batches * rows / self.seconds, 3) or None,
            "passages_truncated": self.stats.passages_truncated,
        }


@contextmanager
def open_side(catalogue: Catalogue, settings: RunSettings, shown: Shown, again: Side | None = None) -> Iterator[Side]:
    """Open what ``settings`` name; ``again`` is the same from before, which goes on. Its results outlive the block. Raises ZooError."""
    with Reranker.from_settings(settings, catalogue) as reranker:
        pipeline = reranker.pipeline.extended(Participant("metrics", MetricHooks()))
        if again is None:
            yield Side(reranker, pipeline, shown)
        else:
            again.reranker, again.pipeline = reranker, pipeline
            yield again


def affordable(collections: Sequence[Collection], sides: Sequence[Side], seconds: float) -> list[Collection]:
    """The collections, cut to as many queries as the slower side is expected to score in ``seconds``; one query at least."""
    pairs = sum(collection.pairs for collection in collections)
    if not pairs:
        return list(collections)
    share = seconds / max(max(side.seconds_for(pairs) for side in sides), 1e-9)
    if share >= 1:
        return list(collections)
    made = []
    for collection in collections:
        count = max(int(len(collection.candidates) * share), 1)
        logger.info(
            "%s %s: %d of %d queries, which are expected to take %.0f s",
            collection.dataset, collection.label, count, len(collection.candidates), seconds,
        )  # fmt: skip
        made.append(_first_queries(collection, count))
    return made


def _first_queries(collection: Collection, count: int) -> Collection:
    chosen = list(collection.candidates)[:count]
    return replace(
        collection,
        queries={query: collection.queries[query] for query in chosen},
        qrels={query: collection.qrels[query] for query in chosen},
        candidates={query: collection.candidates[query] for query in chosen},
        missing=(),
    )
