"""What ``zoo verify`` does: the same pairs and data sets on the device, on the CPU and in PyTorch, and what that says."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from io import BytesIO
from pathlib import Path
from typing import Any

import zoo
from zoo.checks.bounds import (
    DEMO,
    DEVICE_METRIC_BOUND,
    TORCH_METRIC_BOUND,
    Check,
    card_checks,
    metric_checks,
    output_check,
    torch_scores,
)
from zoo.checks.machine import examine
from zoo.errors import NotInstalledError, ZooError
from zoo.evaluation.datasets import MINIATURE, Collection, DataRequest, find_layouts, open_collections
from zoo.evaluation.metrics import MAIN, MetricHooks
from zoo.evaluation.rerank import collect, rerank
from zoo.pairs import read_pairs
from zoo.paths import bundled
from zoo.registry.card import ModelCard
from zoo.registry.catalogue import Catalogue
from zoo.registry.participants import Participant
from zoo.registry.stages import Pipeline
from zoo.reranker import Reranker
from zoo.scoring.scorer import RunStats, Scorer
from zoo.settings import RunSettings
from zoo.types import Encodings, Pair

logger = logging.getLogger(__name__)

PAIRS = "verify.jsonl"
DEMO_LINES = 2
"""The bundled pairs begin with the demo's."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The scores and metrics of one device."""

    scores: list[float]
    metrics: dict[str, Mapping[str, float]]
    """By data set and language, as a card's references name them."""
    facts: dict[str, Any]
    encodings: Encodings
    reversed: list[float]
    """The scores of the pairs in reversed order, one a batch if the session takes that, put back in order."""
    exact: list[float] | None = None
    """PyTorch's scores of the same encodings, where it was asked as well."""
    exact_metrics: dict[str, Mapping[str, float]] = field(default_factory=dict)


def verify(
    catalogue: Catalogue,
    settings: RunSettings,
    data_path: str | None,
    *,
    torch: bool | None,
    pairs_only: bool,
    limit: int | None,
) -> dict[str, Any]:
    """Score, compare, report; the report's ``passed`` is the verdict. Raises ZooError if something cannot be run at all."""
    card = catalogue.card(settings.model)
    if torch:
        _need_torch()
    folder = Path(data_path) if data_path and Path(data_path).is_dir() else None
    own_pairs = None if folder else data_path
    pairs = golden_pairs(own_pairs)
    with tempfile.TemporaryDirectory(prefix="zoo-verify-") as work:
        request = DataRequest(data_path=folder, limit=limit, offline=settings.offline, work=Path(work))
        wanted = not pairs_only and (folder is not None or (own_pairs is None and _on_miniature(card)))
        collections = open_collections(find_layouts(request), request) if wanted else []
        device = _score(catalogue, settings, pairs, collections)
        reference = _score(catalogue, _on_cpu(settings), pairs, collections, torch=torch, exact=True)
    name = device.facts["name"]
    precision = device.facts["precision"]
    checks = [
        output_check(f"{name} against ONNX Runtime", device.scores, reference.scores, precision),
        # Both sides share the model's stages: what they get wrong in a padded batch shows only beside another batch.
        output_check(f"{name}, batches against other batches", device.scores, device.reversed, precision),
    ]
    if reference.exact is not None:
        checks.append(output_check("ONNX Runtime against PyTorch", reference.scores, reference.exact, "fp32"))
    if own_pairs is None:
        demo = {f"score@{line}": device.scores[line - 1] for line in range(1, DEMO_LINES + 1)}
        checks += card_checks(card, DEMO, demo)
    for dataset, metrics in device.metrics.items():
        checks += metric_checks(
            f"{name} against ONNX Runtime, {dataset}", metrics, reference.metrics[dataset], DEVICE_METRIC_BOUND, [MAIN]
        )
        if dataset in reference.exact_metrics:
            against = f"ONNX Runtime against PyTorch, {dataset}"
            exact = reference.exact_metrics[dataset]
            checks += metric_checks(against, reference.metrics[dataset], exact, TORCH_METRIC_BOUND, [MAIN])
        if limit is None:  # the card's values are for all queries
            checks += card_checks(card, dataset, metrics)
    return _report(catalogue, settings, pairs, device, reference, checks)


def _on_miniature(card: ModelCard) -> bool:
    """Whether the card gives values for the data set that is bundled."""
    return any(entry.dataset.partition("/")[0] == MINIATURE for entry in card.reference)


def golden_pairs(data_path: str | None) -> list[Pair]:
    """The pairs of ``data_path``, or the bundled ones and one that is too long for any limit."""
    source = read_pairs(data_path or str(bundled("datas") / PAIRS), BytesIO())
    source.check()
    pairs = [pair for record in source for pair in record.pairs]
    if data_path is None:
        everything = " ".join(pair.passage for pair in pairs)
        pairs.append(Pair(pairs[1].query, " ".join([everything] * 20)))
    return pairs


def _score(
    catalogue: Catalogue,
    settings: RunSettings,
    pairs: Sequence[Pair],
    collections: Sequence[Collection],
    *,
    torch: bool | None = None,
    exact: bool = False,
) -> Scored:
    with Reranker.from_settings(settings, catalogue) as reranker:
        pipeline = reranker.pipeline.extended(Participant("metrics", MetricHooks()))
        encodings = pipeline.preprocess(pairs)
        with reranker.exclusive(pipeline=pipeline) as scorer:
            started = time.perf_counter()
            scores = [score for _, score in scorer.score(pairs)]
            metrics = {f"{c.dataset}/{c.language}": judge_all(scorer, c, reranker.max_length) for c in collections}
            facts = _facts(reranker, scorer.stats, time.perf_counter() - started)
        with reranker.exclusive(pipeline=pipeline, batch_size=1) as scorer:
            backwards = [score for _, score in scorer.score(reversed(pairs))][::-1]
        scored = Scored(scores=scores, metrics=metrics, facts=facts, encodings=encodings, reversed=backwards)
        folder = reranker.checkpoint.folder
        if not exact or not _in_torch(folder, torch):
            return scored
        logger.info("scoring in PyTorch")
        return replace(
            scored,
            exact=torch_scores(folder, encodings),
            exact_metrics={f"{c.dataset}/{c.language}": judge_in_torch(pipeline, folder, c) for c in collections},
        )


def judge_all(scorer: Scorer, collection: Collection, max_length: int) -> Mapping[str, float]:
    """The metrics of a collection reranked whole."""
    logger.info("reranking %s %s: %d pairs", collection.dataset, collection.label, collection.pairs)
    scores, _ = collect(collection, rerank(scorer, collection, "truncate", max_length))
    return scorer.pipeline.evaluate(scores, collection.qrels).metrics


def judge_in_torch(pipeline: Pipeline, folder: Path, collection: Collection) -> Mapping[str, float]:
    """The same metrics from PyTorch's own scores of the same encodings."""
    names = [(query, passage) for query, passages in collection.candidates.items() for passage in passages]
    pairs = [Pair(collection.queries[query], collection.passages[passage]) for query, passage in names]
    reranked: dict[str, dict[str, float]] = {query: {} for query in collection.candidates}
    for (query, passage), score in zip(names, torch_scores(folder, pipeline.preprocess(pairs)), strict=True):
        reranked[query][passage] = score
    return pipeline.evaluate(reranked, collection.qrels).metrics


def _on_cpu(settings: RunSettings) -> RunSettings:
    """The same model by ONNX Runtime in float32; an engine file is the device's alone, so there the checkpoint is exported."""
    ckpt = settings.ckpt if settings.ckpt and settings.ckpt.suffix == ".onnx" else None
    return replace(settings, target="cpu", precision="fp32", ckpt=ckpt, device_options={})


def _facts(reranker: Reranker, stats: RunStats, seconds: float) -> dict[str, Any]:
    artifact = reranker.artifact
    return {
        "name": reranker.device_name,
        "precision": reranker.precision,
        **({"precision_reason": reranker.precision_reason} if reranker.precision_reason else {}),
        "details": reranker.device_details(),
        "model_file": artifact.model.name if artifact else "none",
        "origin": artifact.origin if artifact else "none",
        "plugins": reranker.pipeline.owners,
        "max_length": reranker.max_length,
        "batches": stats.batches,
        "seconds": round(seconds, 6),
        "device_seconds": reranker.session.device_seconds,
        "pairs_per_second": round(stats.pairs / seconds, 3),
        # Tecorigin counts rows that only fill the last batch as samples; we do not.
        "vendor_samples_per_second": round(stats.batches * (reranker.session.shape_rule.rows or 0) / seconds, 3)
        or None,
        "passages_truncated": stats.passages_truncated,
    }


def _in_torch(folder: Path, asked: bool | None) -> bool:
    """Whether PyTorch is asked for or can be had. Raises ZooError where it is asked for and the weights are not there."""
    weights = any(folder.glob("*.safetensors"))
    if asked and not weights:
        raise ZooError(
            f"comparing with PyTorch (`torch`) needs *.safetensors, and {folder} has none: name a whole checkpoint"
        )
    there = weights and all(importlib.util.find_spec(module) for module in ("torch", "transformers"))
    return bool(asked) or (asked is None and there)


def _need_torch() -> None:
    for module in ("torch", "transformers"):
        if importlib.util.find_spec(module) is None:
            raise NotInstalledError(
                f"comparing with PyTorch (`torch`) needs the Python module '{module}': pip install 'zoo-runner[export]'"
            )


def _report(
    catalogue: Catalogue,
    settings: RunSettings,
    pairs: Sequence[Pair],
    device: Scored,
    reference: Scored,
    checks: Sequence[Check],
) -> dict[str, Any]:
    exact = reference.exact
    rows = zip(pairs, device.encodings.rows, device.scores, reference.scores, strict=True)
    return {
        "zoo": zoo.__version__,
        "made_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model": settings.model,
        "passed": all(check.passed for check in checks),
        "checks": [{**asdict(check), "passed": check.passed} for check in checks],
        "largest_difference": max(abs(a - b) for a, b in zip(device.scores, reference.scores, strict=True)),
        "pairs_in_another_order": _swaps(device.scores, reference.scores),
        "metrics": {
            name: {
                "device": dict(device.metrics[name]),
                "cpu": dict(reference.metrics[name]),
                **({"torch": dict(reference.exact_metrics[name])} if name in reference.exact_metrics else {}),
            }
            for name in device.metrics
        },
        "device": device.facts,
        "reference": reference.facts,
        "settings": {
            "target": settings.target,
            "batch_size": settings.batch_size,
            "device_options": dict(settings.device_options),
        },
        "pairs": [
            {
                "query": pair.query,
                "passage": pair.passage[:200],
                "tokens": row.length,
                "device": score,
                "cpu": expected,
                **({} if exact is None else {"torch": exact[number]}),
            }
            for number, (pair, row, score, expected) in enumerate(rows)
        ],
        "machine": examine(catalogue, offline=True),
    }


def _swaps(scores: Sequence[float], reference: Sequence[float]) -> int:
    """How many two pairs the device ranks the other way round; a tie on the device that the reference has not is none."""
    count = range(len(scores))
    return sum((scores[i] - scores[j]) * (reference[i] - reference[j]) < 0 for i in count for j in count if i < j)
