"""The family of Cohere, Jina, vLLM, infinity, Xinference, llama.cpp and OVMS: ``query`` and ``documents`` in, ``results`` out.

Their answers do not contradict each other, so one object has what each of them reads: ``results`` for all, ``usage`` for Jina and vLLM,
``meta`` for Cohere and Xinference. Only infinity's documents are texts, which are given at a path of its own. The same holds for
errors: ``error`` for vLLM and infinity, ``detail`` for older clients of theirs, ``message`` and ``id`` for Cohere.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

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

ERROR_TYPES = {
    401: "AuthenticationError",
    404: "NotFoundError",
    408: "TimeoutError",
    413: "RequestEntityTooLargeError",
    429: "RateLimitError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
    504: "TimeoutError",
}
"""OpenAI's words, which vLLM and infinity use; the others are ``BadRequestError``."""


class DocumentsRequest(Request, kw_only=True):
    """Score each of ``documents`` for ``query``: texts, or objects with a ``text`` or with ``rank_fields``."""

    query: Text
    documents: str | list[Text]
    top_n: Count = None
    """Null and 0 give all."""
    return_documents: bool | None = None
    rank_fields: list[str] | None = None
    """Fields of object documents that are scored, in this order."""
    max_tokens_per_doc: Limit = None
    max_tokens_per_query: Limit = None
    max_chunks_per_doc: Limit = None
    """At most so many chunks of a passage, if ``long_doc`` is not ``truncate``."""
    truncate_prompt_tokens: Limit = None
    truncation_side: str | None = None
    raw_scores: bool | None = None
    """True gives logits in place of scores between 0 and 1."""
    use_activation: bool | None = None
    """False gives logits in place of scores between 0 and 1."""
    instruction: str | None = None


class RerankResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One document in its place."""

    index: int
    relevance_score: float
    document: dict[str, Any] | None = None


class InfinityResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One document in its place, as infinity gives it: a text, which its clients do not take as an object."""

    index: int
    relevance_score: float
    document: str | None = None


class Usage(msgspec.Struct, kw_only=True):
    """Tokens that were read, query and special tokens included for every pair."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


class RerankResponse(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The documents, the most relevant first."""

    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    usage: Usage | None = None
    meta: dict[str, Any] | None = None
    results: list[RerankResult]


class InfinityResponse(RerankResponse, omit_defaults=True, kw_only=True):
    """The documents, the most relevant first."""

    results: list[InfinityResult]  # type: ignore[assignment]


class ErrorDetail(msgspec.Struct, kw_only=True):
    """An error as OpenAI's clients read it."""

    message: str
    type: str
    param: str | None
    code: int


class RerankError(msgspec.Struct, kw_only=True):
    """What was wrong, under each of the names that clients look for."""

    error: ErrorDetail
    message: str
    detail: str
    id: str


def reader(
    *, raw: bool = False, documents: bool = True, version: str = "1", bare: bool = False, long_doc: str = ""
) -> Callable[[Any], ParsedRequest]:
    """How a route of the family reads a body.

    ``raw`` gives logits unless it is asked otherwise, ``documents`` gives the documents back unless it is asked otherwise; ``version`` is
    that of Cohere's API; ``bare`` gives nothing but results; ``long_doc`` is the route's own way with long passages.
    """

    def read(content: Any) -> ParsedRequest:
        request = converted(content, DocumentsRequest)
        given = [request.documents] if isinstance(request.documents, str) else request.documents
        query = text_of(request.query, "query")
        fields = request.rank_fields
        texts = [_document_text(each, f"documents[{n}]", fields) for n, each in enumerate(given)]
        top = request.top_n or None
        gives_documents = documents if request.return_documents is None else request.return_documents
        logits = raw if (request.raw_scores, request.use_activation) == (None, None) else _wants_logits(request)
        job = _job(request, [Pair(query, text) for text in texts], long_doc)

        def answer(scored: Scored) -> RerankResponse:
            scores = scored.scores(raw=logits)
            results = [
                RerankResult(
                    index=n,
                    relevance_score=scores[n],
                    document=_as_object(given[n], texts[n]) if gives_documents else None,
                )
                for n in scored.ranking()[:top]
            ]
            return RerankResponse(results=results) if bare else _response(scored, results, version)

        return ParsedRequest(job, answer)

    return read


def read_infinity(content: Any) -> ParsedRequest:
    """A body of ``/infinity/rerank``: documents come back if they are asked for, as texts."""
    parsed = reader(documents=False)(content)

    def answer(scored: Scored) -> InfinityResponse:
        given: RerankResponse = parsed.answer(scored)
        results = [
            InfinityResult(
                index=each.index,
                relevance_score=each.relevance_score,
                document=None if each.document is None else each.document["text"],
            )
            for each in given.results
        ]
        return InfinityResponse(**{**msgspec.structs.asdict(given), "results": results})

    return ParsedRequest(parsed.job, answer)


def refuse(refusal: Refusal) -> RerankError:
    """An error that every client of the family can read."""
    detail = ErrorDetail(
        message=refusal.message,
        type=ERROR_TYPES.get(refusal.status, "BadRequestError"),
        param=refusal.param,
        code=refusal.status,
    )
    return RerankError(error=detail, message=refusal.message, detail=refusal.message, id=uuid.uuid4().hex)


def _job(request: DocumentsRequest, pairs: Sequence[Pair], long_doc: str) -> Job:
    if request.instruction:
        raise Refusal(
            "invalid",
            "an instruction for a single request is not supported; the server's model has its own",
            param="instruction",
        )
    how: Any = request.long_doc or long_doc or None
    return Job(
        pairs=pairs,
        model=request.model,
        long_doc=how,
        max_chunks=limit(request.max_chunks_per_doc),
        passage_tokens=limit(request.max_tokens_per_doc),
        query_tokens=limit(request.max_tokens_per_query),
        pair_tokens=limit(request.truncate_prompt_tokens),
        cuts_left=cuts_left(request.truncation_side, "truncation_side"),
    )


def _wants_logits(request: DocumentsRequest) -> bool:
    return bool(request.raw_scores) or request.use_activation is False


def _document_text(document: Text, where: str, fields: Sequence[str] | None) -> str:
    """The text that is scored. Several fields are put together as Cohere advises for structured data, one ``name: value`` a line."""
    if isinstance(document, str) or not fields:
        return text_of(document, where)
    present = {name: document[name] for name in fields if document.get(name) is not None}
    if not present:
        return text_of(document, where)
    values = {name: v if isinstance(v, str) else msgspec.json.encode(v).decode() for name, v in present.items()}
    return "\n".join(f"{name}: {v}" for name, v in values.items()) if len(fields) > 1 else next(iter(values.values()))


def _as_object(document: Text, text: str) -> dict[str, Any]:
    """A document as clients read it: always an object with ``text``, beside whatever else it came with."""
    return {"text": text} if isinstance(document, str) else {"text": text, **document}


def _response(scored: Scored, results: list[RerankResult], version: str) -> RerankResponse:
    return RerankResponse(
        id=f"rerank-{uuid.uuid4().hex}",
        object="rerank",
        created=int(time.time()),
        model=scored.model,
        usage=usage(scored),
        meta={
            "api_version": {"version": version, "is_experimental": False},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": scored.tokens, "output_tokens": 0},
        },
        results=results,
    )


def usage(scored: Scored) -> Usage:
    """The tokens of a job."""
    return Usage(prompt_tokens=scored.tokens, total_tokens=scored.tokens)


SHAPES = (DocumentsRequest, RerankResponse, RerankError)
DOCUMENTS = Dialect("documents", reader(), refuse, *SHAPES)
COHERE_V2 = Dialect("cohere-v2", reader(documents=False, version="2"), refuse, *SHAPES)
INFINITY = Dialect("infinity", read_infinity, refuse, DocumentsRequest, InfinityResponse, RerankError)
LLAMA_CPP = Dialect("llama.cpp", reader(raw=True, documents=False), refuse, *SHAPES)
OVMS = Dialect("ovms", reader(documents=False, bare=True, long_doc="max"), refuse, *SHAPES)
