"""Reranking whole collections with an open run, and what came of it."""

from __future__ import annotations

import hashlib
import mmap
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import zoo
from zoo.checkpoints.digests import Digests
from zoo.evaluation import metrics
from zoo.evaluation.datasets import Collection, DataRequest
from zoo.evaluation.longdoc import Chunker, LongDoc, aggregate
from zoo.paths import zoo_home
from zoo.registry.stages import Pipeline
from zoo.reranker import OpenRun
from zoo.settings import RunSettings
from zoo.types import Pair, Run


class Scored(NamedTuple):
    """One candidate with its logit."""

    query: str
    passage: str
    logit: float
    chunks: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """One collection reranked. ``run`` keeps the first stage's order; metrics are by name, ``per_query`` those of each query."""

    collection: Collection
    run: Run
    first_stage: Mapping[str, float]
    reranked: Mapping[str, float]
    first_per_query: Mapping[str, Mapping[str, float]]
    per_query: Mapping[str, Mapping[str, float]]
    ties: metrics.Ties
    chunks: int
    """Pairs the device scored: more than the candidates where passages were cut into chunks."""


def rerank(run: OpenRun, collection: Collection, long_doc: LongDoc) -> Iterator[Scored]:
    """Every candidate's logit, query by query in the first stage's order, as they come in."""
    waiting: deque[tuple[str, str, int]] = deque()
    chunker = None if long_doc == "truncate" else Chunker(run.pipeline, run.max_length)

    def pairs() -> Iterator[Pair]:
        for query, candidates in collection.candidates.items():
            for passage in candidates:
                pair = Pair(collection.queries[query], collection.passages[passage])
                chunks = chunker.chunks(pair) if chunker else [pair]
                waiting.append((query, passage, len(chunks)))
                yield from chunks

    logits: list[float] = []
    for _, logit in run.scorer.score(pairs()):
        logits.append(logit)
        if len(logits) == waiting[0][2]:
            query, passage, count = waiting.popleft()
            yield Scored(query, passage, aggregate(logits, long_doc), count)
            logits = []


def collect(collection: Collection, scored: Iterable[Scored]) -> tuple[Run, int]:
    """The reranked run, and how many pairs the device scored for it."""
    run: dict[str, dict[str, float]] = {query: {} for query in collection.candidates}
    chunks = 0
    for query, passage, logit, count in scored:
        run[query][passage] = logit
        chunks += count
    return run, chunks


def judge(pipeline: Pipeline, collection: Collection, reranked: Run, chunks: int) -> Result:
    """Evaluate a reranked run beside the first stage's own scores of the same candidates."""
    return Result(
        collection=collection,
        run=reranked,
        first_stage=pipeline.evaluate(collection.candidates, collection.qrels),
        reranked=pipeline.evaluate(reranked, collection.qrels),
        first_per_query=metrics.per_query(collection.candidates, collection.qrels),
        per_query=metrics.per_query(reranked, collection.qrels),
        ties=metrics.ties(reranked, collection.qrels),
        chunks=chunks,
    )


def identity(
    run: OpenRun, settings: RunSettings, request: DataRequest, collections: Iterable[Collection], long_doc: LongDoc
) -> dict[str, Any]:
    """All that decides the scores: what a journal must have been written with to be gone on with."""
    collections = list(collections)
    digests = Digests(zoo_home() / "digests.json")
    return {
        "zoo": zoo.__version__,
        "model": run.card.name,
        "weights": weights_hash(run.artifact.model, digests),
        "tokenizer": digests.of(run.checkpoint.folder / "tokenizer.json"),
        "device": run.device.name,
        "device options": dict(settings.device_options),
        "precision": run.precision,
        "batch size": run.scorer.batch_size or "auto",
        "max length": run.max_length,
        "query max length": settings.query_max_length,
        "long documents": long_doc,
        "data set": collections[0].dataset,
        "languages": [collection.language for collection in collections],
        "split": request.split,
        "top k": request.top_k,
        "limit": request.limit,
        **{
            f"{collection.label} {name}": digest
            for collection in collections
            for name, digest in collection.inputs.items()
        },
    }


def weights_hash(model: Path, digests: Digests) -> str:
    """sha256 over a model file and the files beside it that it names (external data)."""
    digest = hashlib.sha256(digests.of(model).encode())
    with model.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for path in sorted(model.parent.iterdir()):
            if path != model and path.is_file() and content.find(path.name.encode()) >= 0:
                digest.update(f"{path.name} {digests.of(path)}".encode())
    return digest.hexdigest()
