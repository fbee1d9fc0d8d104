"""``report.json``: what a run of ``--mode valid`` has measured, and what it was measured with."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import zoo
from zoo.cpus import usable_threads
from zoo.evaluation.metrics import MAIN, PLACES
from zoo.evaluation.rerank import Result, improvement, overall
from zoo.evaluation.timing import BatchTime, Timing
from zoo.export.modules import versions
from zoo.scoring.scorer import RunStats
from zoo.statistics import PairedTest

PACKAGES = ("numpy", "onnxruntime", "pytrec_eval-terrier", "tokenizers", "bm25s")


def document(
    settings: Mapping[str, Any],
    results: Sequence[Result],
    checks: Sequence[Mapping[str, Any]],
    stats: RunStats,
    timing: Timing,
    batches: Sequence[BatchTime],
    device: Mapping[str, str],
    plugins: Mapping[str, str],
) -> dict[str, Any]:
    """``report.json``: everything that was measured, and what it was measured with."""
    return {
        "eval_metric": overall(results),
        "against_first_stage": _verdict(improvement(results)),
        "settings": dict(settings),
        "results": [_result(result) for result in results],
        "reference": list(checks),
        "truncation": {
            "pairs": stats.pairs,
            "passages_truncated": stats.passages_truncated,
            "queries_truncated": stats.queries_truncated,
        },
        "padding_ratio": round(stats.padding_ratio, PLACES),
        "timing": asdict(timing),
        "slowest_batches": [asdict(batch) for batch in sorted(batches, key=lambda b: -b.seconds)[:10]],
        "versions": {"zoo": zoo.__version__, "python": platform.python_version(), **versions(PACKAGES)},
        "plugins": dict(plugins),
        "device": dict(device),
        "host": {"platform": platform.platform(), "machine": platform.machine(), "threads": usable_threads()},
    }


def _result(result: Result) -> dict[str, Any]:
    collection = result.collection
    return {
        "dataset": collection.dataset,
        "language": collection.language,
        "split": collection.split,
        "retriever": collection.retriever,
        "first_stage_file": str(collection.first_stage),
        "queries": len(collection.queries),
        "queries_without_candidates": list(collection.missing),
        "identical_ids": {"candidates": collection.identical, "left_out": collection.identical_left_out},
        "judged_passages_not_in_the_corpus": list(collection.absent),
        "candidates": collection.pairs,
        "scored_pairs": result.chunks,
        "first_stage": dict(result.first_stage),
        "reranked": dict(result.reranked),
        "difference": {
            name: round(value - result.first_stage[name], PLACES)
            for name, value in result.reranked.items()
            if name in result.first_stage
        },
        "against_first_stage": _verdict(improvement([result])),
        "ties_in_top_10": asdict(result.ties),
        "tokens": result.reading.tokens,
        "unknown_share": round(result.reading.share, PLACES),
        "warnings": list(result.warnings),
        "per_query": {
            query: {
                "first_stage": result.first_per_query[query][MAIN],
                "reranked": values[MAIN],
                "unknown_share": round(result.reading.queries.get(query, 0.0), PLACES),
            }
            for query, values in result.per_query.items()
        },
    }


def _verdict(test: PairedTest) -> dict[str, Any]:
    interval = test.interval
    return {
        "metric": MAIN,
        "verdict": test.verdict,
        "queries": test.pairs,
        "difference": round(test.difference, PLACES),
        "low": None if interval is None else round(interval.low, PLACES),
        "high": None if interval is None else round(interval.high, PLACES),
        "p": test.p,
    }
