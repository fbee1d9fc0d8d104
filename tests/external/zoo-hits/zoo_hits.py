"""A metric: the share of queries whose first passage is relevant."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.api import Qrels, Run, hookimpl


@hookimpl
def evaluate(run: Run, qrels: Qrels) -> Mapping[str, float]:
    hits = [qrels[query].get(max(scores, key=lambda p: (scores[p], p)), 0) > 0 for query, scores in run.items()]
    return {"hits@1": sum(hits) / max(len(hits), 1)}
