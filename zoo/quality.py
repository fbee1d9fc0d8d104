"""What a lower precision does to a model's scores on a labelled collection: deviation, rank correlation, nDCG@10 before and after.

The collection is a folder in BEIR's layout (``queries.jsonl``, ``corpus.jsonl``, ``qrels/*.tsv``) with first-stage candidates beside
them, a JSON file with the key ``search_results``: query id to passage id to score.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from zoo.catalogue import Catalogue
from zoo.errors import InputError, NotInstalledError, ZooError
from zoo.ranks import spearman
from zoo.runner import open_run
from zoo.settings import RunSettings
from zoo.types import Pair, Precision, Qrels, Run

logger = logging.getLogger(__name__)

DEPTH = 20
"""Candidates of a query that are scored, the first stage's best: nDCG@10 has room to move among them."""


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Queries with their candidates and judgements; a query without a relevant passage is left out."""

    pairs: Mapping[str, Mapping[str, Pair]]
    """query id -> passage id -> texts"""
    qrels: Qrels


@dataclass(frozen=True, kw_only=True)
class Quality:
    """A precision beside float32 on the same pairs. Deviations are of logits; times are those of scoring alone, in seconds."""

    precision: Precision
    collection: str
    queries: int
    pairs: int
    max_deviation: float
    rms_deviation: float
    spread: float
    """Standard deviation of the float32 scores, to hold the deviations against."""
    spearman: float
    """Mean over the queries of the rank correlation between both."""
    ndcg_at_10_fp32: float
    ndcg_at_10: float
    seconds_fp32: float
    seconds: float


def measure(catalogue: Catalogue, settings: RunSettings, folder: Path, limit: int) -> Quality:
    """Score the first ``limit`` queries' candidates in both precisions. Raises ZooError."""
    try:
        import pytrec_eval  # noqa: F401  # said before an hour of scoring, not after
    except ImportError as error:
        raise NotInstalledError("nDCG is computed by pytrec_eval: pip install pytrec_eval-terrier") from error
    if settings.precision in (None, "fp32"):
        raise ZooError("a quality report compares a precision with fp32: name it with --precision fp16 or int8")
    collection = read(folder, limit)
    before, seconds_before = _scored(catalogue, replace(settings, precision="fp32"), collection)
    after, seconds_after = _scored(catalogue, settings, collection)
    both = [([before[q][p] for p in before[q]], [after[q][p] for p in before[q]]) for q in before]
    first, second = (np.concatenate([pair[side] for pair in both]) for side in (0, 1))
    assert settings.precision
    return Quality(
        precision=settings.precision,
        collection=folder.name,
        queries=len(before),
        pairs=len(first),
        max_deviation=float(np.abs(first - second).max()),
        rms_deviation=float(np.sqrt(np.mean((first - second) ** 2))),
        spread=float(first.std()),
        spearman=float(np.mean([spearman(*pair) for pair in both if len(pair[0]) > 1])),
        ndcg_at_10_fp32=_ndcg(before, collection.qrels),
        ndcg_at_10=_ndcg(after, collection.qrels),
        seconds_fp32=round(seconds_before, 2),
        seconds=round(seconds_after, 2),
    )


def read(folder: Path, limit: int) -> Collection:
    """The first ``limit`` judged queries of a collection. Raises InputError naming the file that is wrong or missing."""
    qrels = _qrels(folder)
    candidates = _candidates(folder)
    chosen = [query for query in candidates if any(grade > 0 for grade in qrels.get(query, {}).values())][:limit]
    best = {
        query: sorted(candidates[query], key=candidates[query].__getitem__, reverse=True)[:DEPTH] for query in chosen
    }
    needed = {passage for passages in best.values() for passage in passages}
    queries = {query: text for query, text in _texts(folder / "queries.jsonl") if query in best}
    corpus = {passage: text for passage, text in _texts(folder / "corpus.jsonl") if passage in needed}
    for kind, wanted, found in (("queries", set(best), queries), ("corpus", needed, corpus)):
        if absent := sorted(wanted - found.keys()):
            raise InputError(folder / f"{kind}.jsonl", None, f"lacks '{absent[0]}', which the candidates name")
    if not best:
        raise InputError(folder, None, "has no query with both candidates and a relevant passage")
    pairs = {q: {p: Pair(queries[q], corpus[p]) for p in passages} for q, passages in best.items()}
    return Collection(pairs=pairs, qrels={query: qrels[query] for query in best})


def _scored(catalogue: Catalogue, settings: RunSettings, collection: Collection) -> tuple[Run, float]:
    ids = [(query, passage) for query, passages in collection.pairs.items() for passage in passages]
    run: dict[str, dict[str, float]] = {query: {} for query in collection.pairs}
    with open_run(catalogue, settings) as opened:
        logger.info("scoring %d pairs in %s", len(ids), opened.precision)
        started = time.monotonic()
        scores = opened.scorer.score(collection.pairs[query][passage] for query, passage in ids)
        for (query, passage), (_, score) in zip(ids, scores, strict=True):
            run[query][passage] = score
    return run, time.monotonic() - started


def _ndcg(run: Run, qrels: Qrels) -> float:
    import pytrec_eval

    judged = {query: dict(grades) for query, grades in qrels.items()}
    found = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.10"}).evaluate({q: dict(s) for q, s in run.items()})
    return round(float(np.mean([values["ndcg_cut_10"] for values in found.values()])), 5)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8") as handle:
            yield from ((number, line) for number, line in enumerate(handle, start=1) if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, None, f"cannot be read: {error}") from error


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in _lines(path):
        try:
            entry = json.loads(line)
            yield str(entry["_id"]), f"{entry.get('title') or ''} {entry['text']}".strip()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(path, number, "is no object with '_id' and 'text'") from error


def _qrels(folder: Path) -> Qrels:
    files = sorted((folder / "qrels").glob("*.tsv"))
    path = next((file for file in files if file.stem == "test"), files[0] if files else None)
    if path is None:
        raise InputError(folder, None, "has no qrels/*.tsv: it takes a collection in BEIR's layout")
    qrels: dict[str, dict[str, int]] = {}
    for number, line in _lines(path):
        fields = line.rstrip("\n").split("\t")
        if number == 1 and not fields[-1].lstrip("-").isdigit():
            continue  # the heading
        try:
            query, passage, grade = fields
            qrels.setdefault(query, {})[passage] = int(grade)
        except ValueError as error:
            raise InputError(path, number, "is not query, passage and grade between tabs") from error
    return qrels


def _candidates(folder: Path) -> Mapping[str, Mapping[str, float]]:
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(path, None, f"is not JSON: {error}") from error
        if isinstance(content, dict) and isinstance(content.get("search_results"), dict):
            results: Mapping[str, Mapping[str, float]] = content["search_results"]
            return results
    raise InputError(folder, None, "has no first-stage candidates: a JSON file with the key 'search_results'")
