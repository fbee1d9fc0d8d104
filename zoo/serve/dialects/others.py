"""Smaller families: vLLM's scores of pairs, NVIDIA's ranking, Weaviate's reranker module, and Elasticsearch's inference API."""

from __future__ import annotations

import time
import uuid
from typing import Any

import msgspec

from zoo.serve.dialects import documents, tei
from zoo.serve.dialects.base import (
    Count,
    Dialect,
    Limit,
    ParsedRequest,
    Request,
    Text,
    converted,
    cuts_left,
    limit,
    text_of,
)
from zoo.serve.job import Job, Scored
from zoo.serve.refusal import Refusal
from zoo.types import Pair

# -- vLLM /score -------------------------------------------------------------------------------------------------------

Texts = str | dict[str, Any] | list[Text]


class ScoreRequest(Request, kw_only=True):
    """Score pairs: one text with one, one with each of many, or two lists of equal length element by element.

    One of the pairs of fields must be there: ``text_1`` and ``text_2``, ``queries`` and ``documents`` (or ``items``), ``data_1`` and
    ``data_2``.
    """

    text_1: Texts | None = None
    text_2: Texts | None = None
    queries: Texts | None = None
    documents: Texts | None = None
    items: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None
    truncate_prompt_tokens: Limit = None
    truncation_side: str | None = None
    use_activation: bool | None = None
    """False gives logits in place of scores between 0 and 1."""


class PairScore(msgspec.Struct, kw_only=True):
    """The score of one pair."""

    index: int
    object: str = "score"
    score: float


class ScoreResponse(msgspec.Struct, kw_only=True):
    """Scores in the order of the pairs."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[PairScore]
    usage: documents.Usage


SIDES = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))


def read_score(content: Any) -> ParsedRequest:
    """A body of ``/score``."""
    request = converted(content, ScoreRequest)
    sides = next((both for both in SIDES if all(getattr(request, name) is not None for name in both)), None)
    if sides is None:
        raise Refusal(
            "invalid", "two sides are needed: text_1 and text_2, or queries and documents, or data_1 and data_2"
        )
    left, right = (_listed(getattr(request, name), name) for name in sides)
    if len(left) == 1:
        left *= len(right)
    elif len(right) != len(left):
        raise Refusal(
            "invalid",
            f"{sides[0]} has {len(left)} texts and {sides[1]} has {len(right)}; the first must have 1 or as many",
        )
    job = Job(
        pairs=[Pair(*both) for both in zip(left, right, strict=True)],
        model=request.model,
        long_doc=request.long_doc,
        pair_tokens=limit(request.truncate_prompt_tokens),
        cuts_left=cuts_left(request.truncation_side, "truncation_side"),
    )

    def answer(scored: Scored) -> ScoreResponse:
        scores = scored.scores(raw=request.use_activation is False)
        return ScoreResponse(
            id=f"score-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=scored.model,
            data=[PairScore(index=n, score=score) for n, score in enumerate(scores)],
            usage=documents.usage(scored),
        )

    return ParsedRequest(job, answer)


def _listed(value: Texts, name: str) -> list[str]:
    return [text_of(each, name) for each in value] if isinstance(value, list) else [text_of(value, name)]


SCORE = Dialect("score", read_score, documents.refuse, ScoreRequest, ScoreResponse, documents.RerankError)

# -- NVIDIA NeMo Retriever ---------------------------------------------------------------------------------------------


class RankingRequest(Request, kw_only=True):
    """Rank ``passages`` for ``query``."""

    query: Text
    passages: list[Text]
    truncate: str | None = None
    """END cuts what is too long, NONE refuses it."""


class Ranking(msgspec.Struct, kw_only=True):
    """One passage in its place."""

    index: int
    logit: float


class RankingResponse(msgspec.Struct, kw_only=True):
    """The passages, the most relevant first."""

    rankings: list[Ranking]
    usage: documents.Usage


def read_ranking(content: Any) -> ParsedRequest:
    """A body of ``/v1/ranking``."""
    request = converted(content, RankingRequest)
    truncate = (request.truncate or "END").upper()
    if truncate not in ("END", "NONE"):
        raise Refusal("invalid", "truncate must be END or NONE", param="truncate")
    query = text_of(request.query, "query")
    pairs = [Pair(query, text_of(passage, f"passages[{n}]")) for n, passage in enumerate(request.passages)]

    def answer(scored: Scored) -> RankingResponse:
        rankings = [Ranking(index=n, logit=scored.logits[n]) for n in scored.ranking()]
        return RankingResponse(rankings=rankings, usage=documents.usage(scored))

    return ParsedRequest(
        Job(pairs=pairs, model=request.model, truncate=truncate == "END", long_doc=request.long_doc), answer
    )


NIM = Dialect(
    "nim",
    read_ranking,
    documents.refuse,
    RankingRequest,
    RankingResponse,
    documents.RerankError,
    {"invalid": 422, "empty": 422, "too_many": 422},
)

# -- Weaviate ----------------------------------------------------------------------------------------------------------


class WeaviateRequest(Request, kw_only=True):
    """Score ``documents`` for ``query``. ``property`` tells this form from the others, and is usually empty."""

    query: str
    documents: list[str]
    property: str | None


class WeaviateScore(msgspec.Struct, kw_only=True):
    """The score of one document."""

    document: str
    score: float


class WeaviateResponse(msgspec.Struct, kw_only=True):
    """Scores in the order of the documents."""

    query: str
    scores: list[WeaviateScore]


def read_weaviate(content: Any) -> ParsedRequest:
    """A body of ``/rerank`` with ``property``."""
    request = converted(content, WeaviateRequest)

    def answer(scored: Scored) -> WeaviateResponse:
        scores = zip(request.documents, scored.scores(raw=False), strict=True)
        return WeaviateResponse(
            query=request.query, scores=[WeaviateScore(document=text, score=score) for text, score in scores]
        )

    pairs = [Pair(request.query, text) for text in request.documents]
    return ParsedRequest(Job(pairs=pairs, model=request.model, long_doc=request.long_doc), answer)


# It reads a string `error`, which TEI's errors have.
WEAVIATE = Dialect("weaviate", read_weaviate, tei.refuse, WeaviateRequest, WeaviateResponse, tei.TeiError)

# -- Elasticsearch -----------------------------------------------------------------------------------------------------


class ElasticRequest(Request, kw_only=True):
    """Score ``documents`` for ``query``."""

    query: str
    documents: list[str]
    top_n: Count = None
    return_documents: bool | None = None
    max_chunks_per_doc: Limit = None


class ElasticResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One document in its place. Elasticsearch refuses an answer with any other key."""

    index: int
    relevance_score: float
    text: str | None = None


def read_elastic(content: Any) -> ParsedRequest:
    """A body of ``/elastic/rerank``: what Elasticsearch's service ``hugging_face`` sends, and the array that it expects."""
    request = converted(content, ElasticRequest)
    top = request.top_n or None

    def answer(scored: Scored) -> list[ElasticResult]:
        scores = scored.scores(raw=False)
        texts = request.documents if request.return_documents else [None] * len(scores)
        return [ElasticResult(index=n, relevance_score=scores[n], text=texts[n]) for n in scored.ranking()[:top]]

    return ParsedRequest(
        Job(
            pairs=[Pair(request.query, text) for text in request.documents],
            model=request.model,
            long_doc=request.long_doc,
            max_chunks=limit(request.max_chunks_per_doc),
        ),
        answer,
    )


ELASTIC = Dialect("elasticsearch", read_elastic, tei.refuse, ElasticRequest, list[ElasticResult], tei.TeiError)
