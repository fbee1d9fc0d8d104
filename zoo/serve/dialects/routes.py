"""Which dialect a path speaks. Some paths are used by several families; there the body tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoo.serve.dialects.base import Dialect
from zoo.serve.dialects.documents import COHERE_V2, DOCUMENTS, INFINITY, LLAMA_CPP, OVMS
from zoo.serve.dialects.others import ELASTIC, NIM, SCORE, WEAVIATE
from zoo.serve.dialects.tei import TEI


@dataclass(frozen=True)
class DialectRoute:
    """The dialects of a path: ``usual``, and those of bodies with ``texts`` or ``property``. ``unread`` is that of errors before that."""

    usual: Dialect
    texts: Dialect | None = None
    weaviate: Dialect | None = None
    unread: Dialect | None = None

    def dialect_of(self, content: Any) -> Dialect:
        """The dialect of a decoded body."""
        if not isinstance(content, dict):
            return self.unread or self.usual
        if self.weaviate is not None and "property" in content:
            return self.weaviate
        if self.texts is not None and "texts" in content and "documents" not in content:
            return self.texts
        return self.usual

    @property
    def dialects(self) -> list[Dialect]:
        """All of them."""
        return [each for each in (self.usual, self.texts, self.weaviate) if each is not None]


ROUTES: Mapping[str, DialectRoute] = {
    "/": DialectRoute(TEI),
    "/elastic/rerank": DialectRoute(ELASTIC),
    "/infinity/rerank": DialectRoute(INFINITY),
    "/invocations": DialectRoute(DOCUMENTS, texts=TEI, unread=TEI),
    "/rerank": DialectRoute(DOCUMENTS, texts=TEI, weaviate=WEAVIATE, unread=TEI),
    "/reranking": DialectRoute(LLAMA_CPP, texts=TEI),
    "/score": DialectRoute(SCORE),
    "/v1/ranking": DialectRoute(NIM),
    "/v1/rerank": DialectRoute(DOCUMENTS, texts=TEI),
    "/v1/reranking": DialectRoute(LLAMA_CPP, texts=TEI),
    "/v1/score": DialectRoute(SCORE),
    "/v2/rerank": DialectRoute(COHERE_V2),
    "/v3/rerank": DialectRoute(OVMS),
    "/v3/v1/rerank": DialectRoute(OVMS),
    "/v3/v2/rerank": DialectRoute(OVMS),
}
