"""What a lower precision does to a model's scores on labelled data: deviation, rank correlation, nDCG@10 before and after."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

import zoo
from zoo import precision as precisions
from zoo.errors import ZooError
from zoo.evaluation import metrics
from zoo.evaluation.datasets import Collection, DataRequest, find_layouts, open_collections
from zoo.evaluation.rerank import collect, rerank
from zoo.export.modules import versions
from zoo.precision import Quality, Report
from zoo.registry.catalogue import Catalogue
from zoo.reranker import Reranker
from zoo.settings import RunSettings
from zoo.statistics import spearman
from zoo.types import Artifact, Precision, Run

logger = logging.getLogger(__name__)

RUNTIMES = ("onnxruntime", "openvino")
"""What may have computed the scores."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A report, the file it is kept in, and the model file that was measured."""

    report: Report
    path: Path
    artifact: Artifact


def measure(catalogue: Catalogue, settings: RunSettings, request: DataRequest) -> Measured:
    """Score every collection of ``request`` in float32 and in the settings' precision, and keep the result. Raises ZooError."""
    if settings.precision in (None, "fp32", "auto"):
        raise ZooError(
            "a quality report compares a precision with fp32: name another precision (`precision`): fp16, bf16 or int8"
        )
    collections = open_collections(find_layouts(request), request)
    for collection in collections:
        if not collection.pairs:
            raise ZooError(
                f"{collection.dataset}/{collection.label} has no candidates for the queries that were chosen (the first is "
                f"'{next(iter(collection.queries))}'): choose more queries, or data whose first stage has them"
            )
    _, before = _scored(catalogue, replace(settings, precision="fp32"), collections)
    opened, after = _scored(catalogue, settings, collections)
    report = Report(
        model=opened.card.name,
        device=opened.device_name,
        precision=opened.precision,
        files=precisions.identity(opened.checkpoint),
        collections=[
            _compared(opened.precision, collection, *both, *other)
            for collection, both, other in zip(collections, before, after, strict=True)
        ],
        max_length=opened.max_length,
        details=opened.device_details(),
        versions={"zoo": zoo.__version__, **versions(RUNTIMES)},
        made_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    path = precisions.keep(report)
    verdict = (
        f"outside the bound of precision 'auto': {', '.join(report.faults)}"
        if report.faults
        else "inside the bound of precision 'auto'"
    )
    logger.info("quality report: %s (%s)", path, verdict)
    assert opened.artifact
    return Measured(report=report, path=path, artifact=opened.artifact)


def _scored(
    catalogue: Catalogue, settings: RunSettings, collections: Sequence[Collection]
) -> tuple[Reranker, list[tuple[Run, float]]]:
    """The run, closed, and of each collection the scores and the seconds they took."""
    results = []
    with Reranker.from_settings(settings, catalogue) as opened, opened.exclusive() as scorer:
        for collection in collections:
            logger.info("scoring the %d pairs of %s in %s", collection.pairs, collection.label, opened.precision)
            started = time.monotonic()
            run, _ = collect(collection, rerank(scorer, collection, "truncate", opened.max_length))
            results.append((run, time.monotonic() - started))
    return opened, results


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
