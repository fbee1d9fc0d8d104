"""LangChain: a cross-encoder and a document compressor. ``pip install 'zoo-runner[langchain]'``

from langchain_classic.retrievers import ContextualCompressionRetriever
from zoo.integrations.langchain import ZooReranker

ContextualCompressionRetriever(base_compressor=ZooReranker(reranker="bge-reranker-v2-m3"), base_retriever=retriever)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, field_validator

from zoo.integrations.shared import best, opened
from zoo.reranker import Reranker, Scale


class ZooCrossEncoder(BaseCrossEncoder):
    """``score`` gives logits, on which to rank; ``settings`` are those of ``Reranker.open``."""

    def __init__(self, reranker: Reranker | str, **settings: Any) -> None:
        self.reranker = opened(reranker, settings)

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """A logit for each pair of query and text, in order. Raises ZooError."""
        return [float(logit) for logit in self.reranker.score(text_pairs)]


class ZooReranker(BaseDocumentCompressor):
    """Keeps the best ``top_n`` documents (None: all), each a copy with its score in ``metadata["relevance_score"]``.

    Documents are ordered by their logits. ``scores`` is the scale of the score shown, and of ``score_threshold``.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    reranker: Any = Field(exclude=True)
    """An open ``Reranker``, or a model's name."""
    top_n: int | None = Field(default=3, ge=1)
    score_threshold: float | None = None
    scores: Scale = "probability"

    @field_validator("reranker")
    @classmethod
    def _opened(cls, value: Any) -> Reranker:
        return opened(value)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The best ``top_n`` of ``documents`` as copies, the most relevant first; ``callbacks`` are not called. Raises ZooError."""
        texts = [document.page_content for document in documents]
        return [
            documents[found.index].model_copy(
                update={"metadata": {**documents[found.index].metadata, "relevance_score": found.score}}
            )
            for found in best(self.reranker, query, texts, self.top_n, self.score_threshold, self.scores)
        ]
