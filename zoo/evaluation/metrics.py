"""Retrieval metrics: trec_eval's own through pytrec_eval, and BEIR's mean reciprocal rank and capped recall.

What decides figures (pytrec_eval-terrier 0.5.11): nDCG has linear gain and log2(rank + 1); scores are compared as float32; of equal
scores the larger passage id (byte order) ranks first; a query without a relevant passage counts 0; a judged query that the run lacks
drops out of the mean. BEIR's two keep ties in order of appearance and divide by all judged queries.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from zoo.errors import ScoreError
from zoo.registry.markers import hookimpl
from zoo.types import Qrels, Run

CUTOFFS = (10, 100)
MAIN = "ndcg@10"
"""The metric of Tecorigin's page."""
TREC = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P"}
"""Our name of a metric to trec_eval's."""
PLACES = 5
"""The reference rounds means to this many places."""


class MetricHooks:
    """The reference's metrics as a participant of a run."""

    @hookimpl(trylast=True)
    def evaluate(self, run: Run, qrels: Qrels) -> dict[str, float]:
        return evaluate(run, qrels)


def evaluate(run: Run, qrels: Qrels) -> dict[str, float]:
    """The reference's metrics at 10 and 100, means over the queries, rounded to five places. Raises ScoreError on NaN."""
    queries = per_query(run, qrels)
    means = {
        name: round(sum(values[name] for values in queries.values()) / max(len(queries), 1), PLACES)
        for name in _names()
    }
    return {**means, **_beir(run, qrels)}


def per_query(run: Run, qrels: Qrels) -> dict[str, dict[str, float]]:
    """trec_eval's metrics of each query that is both judged and in the run, in the run's order."""
    import pytrec_eval

    _refuse_nan(run)
    measures = {f"{measure}.{','.join(map(str, CUTOFFS))}" for measure in TREC.values()}
    known = {query: dict(scores) for query, scores in run.items() if query in qrels}
    # A grade below 0 is not relevant to trec_eval, as 0 is; pytrec_eval counts grades in a table, and wrote before its beginning.
    judged = {query: {passage: max(grade, 0) for passage, grade in qrels[query].items()} for query in known}
    found = pytrec_eval.RelevanceEvaluator(judged, measures).evaluate(known)
    return {
        query: {
            f"{name}@{k}": found[query][f"{measure}_{k}"] for name, measure in TREC.items() for k in CUTOFFS
        }
        for query in known
    }  # fmt: skip


def ranked(scores: Mapping[str, float]) -> list[str]:
    """Passages as trec_eval ranks them: by float32 score, of equal ones the larger id first."""
    return sorted(scores, key=lambda passage: (_float32(scores[passage]), passage.encode()), reverse=True)


def appearing(scores: Mapping[str, float]) -> list[str]:
    """Passages as BEIR's own metrics rank them: by score, ties in order of appearance."""
    return sorted(scores, key=scores.__getitem__, reverse=True)


def _names() -> list[str]:
    return [f"{name}@{k}" for name in TREC for k in CUTOFFS]


def _beir(run: Run, qrels: Qrels) -> dict[str, float]:
    """BEIR's ``custom_metrics``: MRR and recall capped at the cutoff. A query without a relevant passage counts 0."""
    totals = {f"{name}@{k}": 0.0 for name in ("mrr", "recall_cap") for k in CUTOFFS}
    for query, scores in run.items():
        relevant = {passage for passage, grade in qrels.get(query, {}).items() if grade > 0}
        order = appearing(scores)
        for k in CUTOFFS:
            hits = [rank for rank, passage in enumerate(order[:k], start=1) if passage in relevant]
            totals[f"mrr@{k}"] += 1.0 / hits[0] if hits else 0.0
            totals[f"recall_cap@{k}"] += len(hits) / min(len(relevant), k) if relevant else 0.0
    return {name: round(total / max(len(qrels), 1), PLACES) for name, total in totals.items()}


def _refuse_nan(run: Run) -> None:
    for query, scores in run.items():
        for passage, score in scores.items():
            if not math.isfinite(score):
                raise ScoreError(
                    f"the score of passage '{passage}' for query '{query}' is {score}; metrics need finite scores"
                )


def _float32(score: float) -> float:
    import numpy as np

    return float(np.float32(score))


@dataclass(frozen=True)
class Ties:
    """Equal scores that touch the first ten ranks, and what nDCG@10 could be by the order among them."""

    scores: int = 0
    """Passages with a rank in the first ten whose score another passage of the query has too."""
    queries: int = 0
    best: float | None = None
    worst: float | None = None


def ties(run: Run, qrels: Qrels, depth: int = 10) -> Ties:
    """Count ties in the top ``depth``; where there are some, evaluate the kindest and the unkindest order among equals."""
    tied = {query: _tied(scores, depth) for query, scores in run.items()}
    if not any(tied.values()):
        return Ties()
    kind, unkind = (_mean(_reordered(run, qrels, best), qrels) for best in (True, False))
    return Ties(sum(tied.values()), sum(map(bool, tied.values())), kind, unkind)


def _tied(scores: Mapping[str, float], depth: int) -> int:
    values = [_float32(score) for score in scores.values()]
    shared = {value for value, count in _counts(values).items() if count > 1}
    return sum(value in shared for value in sorted(values, reverse=True)[:depth])


def _counts(values: Sequence[float]) -> dict[float, int]:
    counts: dict[float, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts


def _reordered(run: Run, qrels: Qrels, best: bool) -> Run:
    """The run with its ties broken for or against the relevant passages, ranks in place of scores."""
    sign = 1 if best else -1
    return {
        query: _as_scores(
            sorted(scores, key=lambda p: (_float32(scores[p]), sign * qrels.get(query, {}).get(p, 0)), reverse=True)
        )
        for query, scores in run.items()
    }


def _as_scores(order: Iterable[str]) -> dict[str, float]:
    return {passage: -float(rank) for rank, passage in enumerate(order)}


def _mean(run: Run, qrels: Qrels) -> float:
    queries = per_query(run, qrels)
    return round(sum(values[MAIN] for values in queries.values()) / max(len(queries), 1), PLACES)
