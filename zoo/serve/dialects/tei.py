"""Text Embeddings Inference 1.9: ``query`` and ``texts`` in, a bare array out, sorted by falling score."""

from __future__ import annotations

from typing import Any

import msgspec

from zoo.serve.dialects.base import Count, Dialect, ParsedRequest, Request, converted, cuts_left
from zoo.serve.job import Job, Scored
from zoo.serve.refusal import Refusal
from zoo.types import Pair

ERROR_TYPES = {
    "empty": "Empty",
    "busy": "Overloaded",
    "late": "Overloaded",
    "not_ready": "Unhealthy",
    "device": "Unhealthy",
    "failed": "Backend",
}
"""TEI's own words; the others are ``Validation``."""


class TeiRequest(Request, kw_only=True):
    """Score each of ``texts`` for ``query``."""

    query: str
    texts: list[str]
    truncate: bool | None = None
    """False refuses a text that is too long; the default cuts it."""
    truncation_direction: str | None = None
    raw_scores: bool | None = None
    """True gives logits in place of scores between 0 and 1."""
    return_text: bool | None = None
    top_n: Count = None


class TeiResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One text in its place."""

    index: int
    text: str | None = None
    score: float


class TeiError(msgspec.Struct, kw_only=True):
    """What was wrong."""

    error: str
    error_type: str


def read(content: Any) -> ParsedRequest:
    """A body of ``/rerank`` with ``texts``."""
    request = converted(content, TeiRequest)
    left = cuts_left(request.truncation_direction, "truncation_direction")
    top = request.top_n or None

    def answer(scored: Scored) -> list[TeiResult]:
        scores = scored.scores(raw=bool(request.raw_scores))
        texts = request.texts if request.return_text else [None] * len(scores)
        return [TeiResult(index=n, text=texts[n], score=scores[n]) for n in scored.ranking()[:top]]

    return ParsedRequest(
        Job(
            pairs=[Pair(request.query, text) for text in request.texts],
            model=request.model,
            truncate=request.truncate is not False,
            long_doc=request.long_doc,
            cuts_left=left,
        ),
        answer,
    )


def refuse(refusal: Refusal) -> TeiError:
    """An error as TEI words it."""
    return TeiError(error=refusal.message, error_type=ERROR_TYPES.get(refusal.kind, "Validation"))


TEI = Dialect(
    "tei",
    read,
    refuse,
    TeiRequest,
    list[TeiResult],
    TeiError,
    {"invalid": 422, "too_many": 422, "too_long": 422, "failed": 424},
    timings=True,
)
