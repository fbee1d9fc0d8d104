"""Reranking whole collections with an open model, and the result of it."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import zoo
from zoo.checkpoints.digests import Digests
from zoo.checkpoints.files import fingerprint, weight_files
from zoo.evaluation import metrics
from zoo.evaluation.datasets import Collection, DataRequest
from zoo.evaluation.longdoc import Chunker, LongDoc, aggregate
from zoo.evaluation.reading import Reading, language_warnings
from zoo.paths import zoo_home
from zoo.registry.card import ModelCard
from zoo.registry.choose import of_device
from zoo.registry.stages import Pipeline
from zoo.reranker import Reranker
from zoo.scoring.scorer import Scorer
from zoo.statistics import PairedTest, paired_test
from zoo.types import Artifact, Pair, Run


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
    """Pairs the device scored: more than the candidates if passages were cut into chunks."""
    reading: Reading = field(default_factory=Reading)
    """How much of it the model's vocabulary knows."""
    warnings: tuple[str, ...] = ()
    """What kept a plugin's metrics out of it, and what the model could not read."""

    @property
    def gains(self) -> list[float]:
        """By how much each query's nDCG@10 is higher after reranking, in the order of ``per_query``."""
        return [
            values[metrics.MAIN] - self.first_per_query[query][metrics.MAIN] for query, values in self.per_query.items()
        ]


def overall(results: Sequence[Result], *, first_stage: bool = False) -> float:
    """nDCG@10, the mean over the languages, as Tecorigin's last line gives it."""
    figures = [(result.first_stage if first_stage else result.reranked)[metrics.MAIN] for result in results]
    return round(sum(figures) / len(figures), metrics.PLACES)


def improvement(results: Sequence[Result]) -> PairedTest:
    """Whether nDCG@10 is better reranked than by the first stage: a paired test over the queries, for the mean over the languages."""
    return paired_test([result.gains for result in results])


def rerank(scorer: Scorer, collection: Collection, long_doc: LongDoc, max_length: int) -> Iterator[Scored]:
    """Every candidate's logit, query by query in the first stage's order, as they come in."""
    waiting: deque[tuple[str, str, int]] = deque()
    chunker = None if long_doc == "truncate" else Chunker(scorer.pipeline, max_length)

    def pairs() -> Iterator[Pair]:
        for query, candidates in collection.candidates.items():
            for passage in candidates:
                pair = Pair(collection.queries[query], collection.passages[passage])
                chunks = chunker.chunks(pair) if chunker else [pair]
                waiting.append((query, passage, len(chunks)))
                yield from chunks

    logits: list[float] = []
    for _, logit in scorer.score(pairs()):
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


def judge(
    pipeline: Pipeline, collection: Collection, reranked: Run, chunks: int, reading: Reading, card: ModelCard
) -> Result:
    """Evaluate a reranked run beside the first stage's own scores of the same candidates."""
    before = pipeline.evaluate(collection.candidates, collection.qrels)
    after = pipeline.evaluate(reranked, collection.qrels)
    return Result(
        collection=collection,
        run=reranked,
        first_stage=before.metrics,
        reranked=after.metrics,
        first_per_query=metrics.per_query(collection.candidates, collection.qrels),
        per_query=metrics.per_query(reranked, collection.qrels),
        ties=metrics.ties(reranked, collection.qrels),
        chunks=chunks,
        reading=reading,
        warnings=tuple(
            dict.fromkeys(
                [
                    *reading.warnings(collection.label),
                    *language_warnings(card, collection.language, collection.label),
                    *before.warnings,
                    *after.warnings,
                ]
            )
        ),
    )


def identity(
    reranker: Reranker, rows: int | None, request: DataRequest, collections: Iterable[Collection], long_doc: LongDoc
) -> dict[str, Any]:
    """All that decides the scores: what a journal must have been written with to be continued."""
    collections = list(collections)
    return {
        **scores_identity(reranker, rows),
        "long documents": long_doc,
        "data set": collections[0].dataset,
        "languages": [collection.language for collection in collections],
        "split": request.split,
        "top k": request.top_k,
        "limit": request.limit,
        "identical ids": "left out" if collections[0].identical_left_out else "kept",
        **{
            f"{collection.label} {name}": digest
            for collection in collections
            for name, digest in collection.inputs.items()
        },
    }


def scores_identity(reranker: Reranker, rows: int | None) -> dict[str, Any]:
    """All but the pairs that decides a score; ``rows`` is that of the batches, None if the device chooses."""
    digests = Digests(zoo_home() / "digests.json")
    tokenizer = reranker.checkpoint.folder / "tokenizer.json"
    return {
        "zoo": zoo.__version__,
        "model": reranker.card.name,
        "revision": reranker.checkpoint.revision or "none",
        "model options": dict(reranker.model_options),
        "weights": weights_hash(reranker.artifact, digests),
        "tokenizer": digests.of(tokenizer) if tokenizer.is_file() else "none",
        "device": reranker.device_name,
        "device options": {
            **{name: str(value) for name, value in of_device(reranker.card, reranker.device_name).items()},
            **reranker.settings.device_options,
        },
        "precision": reranker.precision,
        "batch size": rows or "auto",
        "max length": reranker.max_length,
        "query max length": reranker.settings.query_max_length,
        **{f"plugin ({part})": owner for part, owner in reranker.pipeline.owners.items()},
    }


def weights_hash(artifact: Artifact | None, digests: Digests) -> str:
    """sha256 over what the device has opened, whatever form it has, and the files it borrows weights from."""
    if artifact is None:
        return "none"
    if artifact.is_checkpoint:
        parts = [digests.of(path) for path in weight_files(artifact.model)]
    elif artifact.borrowed:
        parts = [digests.of(artifact.model), *(digests.of(path) for path in artifact.borrowed.values())]
    else:
        return fingerprint(artifact.model, digests)
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()
