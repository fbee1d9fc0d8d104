"""What a lower precision does to a model's scores on labelled data: deviation, rank correlation, nDCG@10 before and after."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from zoo import metrics
from zoo.catalogue import Catalogue
from zoo.datasets import Collection, DataRequest, find_layouts, open_collections
from zoo.errors import ZooError
from zoo.evaluation import collect, rerank
from zoo.ranks import spearman
from zoo.runner import open_run
from zoo.settings import RunSettings
from zoo.types import Precision, Run

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Quality:
    """A precision beside float32 on the same pairs of one collection.

    Deviations are of logits, to be held against ``spread``, the standard deviation of the float32 ones; ``spearman`` is the mean
    over the queries. Seconds are those of scoring alone.
    """

    precision: Precision
    collection: str
    queries: int
    pairs: int
    max_deviation: float
    rms_deviation: float
    spread: float
    spearman: float
    ndcg_at_10_fp32: float
    ndcg_at_10: float
    seconds_fp32: float
    seconds: float


def measure(catalogue: Catalogue, settings: RunSettings, request: DataRequest) -> list[Quality]:
    """Score every collection of ``request`` in float32 and in the settings' precision. Raises ZooError."""
    if settings.precision in (None, "fp32"):
        raise ZooError("a quality report compares a precision with fp32: name it with --precision fp16 or int8")
    collections = open_collections(find_layouts(request), request)
    before = _scored(catalogue, replace(settings, precision="fp32"), collections)
    after = _scored(catalogue, settings, collections)
    assert settings.precision
    return [
        _compared(settings.precision, collection, *both, *other)
        for collection, both, other in zip(collections, before, after, strict=True)
    ]


def _scored(catalogue: Catalogue, settings: RunSettings, collections: Sequence[Collection]) -> list[tuple[Run, float]]:
    """Each collection's run, and the seconds it took."""
    results = []
    with open_run(catalogue, settings) as opened:
        for collection in collections:
            logger.info("scoring the %d pairs of %s in %s", collection.pairs, collection.label, opened.precision)
            started = time.monotonic()
            run, _ = collect(collection, rerank(opened, collection, "truncate"))
            results.append((run, time.monotonic() - started))
    return results


def _compared(
    precision: Precision, collection: Collection, before: Run, seconds_before: float, after: Run, seconds: float
) -> Quality:
    both = [(list(before[q].values()), [after[q][p] for p in before[q]]) for q in before if before[q]]
    first, second = (np.concatenate([pair[side] for pair in both]) for side in (0, 1))
    return Quality(
        precision=precision,
        collection=f"{collection.dataset}/{collection.label}",
        queries=len(both),
        pairs=len(first),
        max_deviation=float(np.abs(first - second).max()),
        rms_deviation=float(np.sqrt(np.mean((first - second) ** 2))),
        spread=float(first.std()),
        spearman=float(np.mean([spearman(*pair) for pair in both])),
        ndcg_at_10_fp32=metrics.evaluate(before, collection.qrels)[metrics.MAIN],
        ndcg_at_10=metrics.evaluate(after, collection.qrels)[metrics.MAIN],
        seconds_fp32=round(seconds_before, 2),
        seconds=round(seconds, 2),
    )
