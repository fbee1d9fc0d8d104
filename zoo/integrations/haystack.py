"""Haystack: a ranker. ``pip install 'zoo-runner[haystack]'``

from zoo.integrations.haystack import ZooRanker

pipeline.add_component("ranker", ZooRanker("bge-reranker-v2-m3", top_k=5))
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from threading import Lock
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict

from zoo.integrations.shared import best, opened
from zoo.reranker import Reranker, Scale

OPENING = Lock()
"""``run_async`` calls from several threads open one model. Not a ranker's own: a lock cannot be copied, and rankers are."""


@component
class ZooRanker:
    """Orders documents by their logits and keeps the best ``top_k``. The model is opened by ``warm_up``, or by the first ``run``.

    ``settings`` are those of ``Reranker.open``. ``scale_score`` shows sigmoid(logit), between 0 and 1, and ``score_threshold`` is on the
    scale shown. ``meta_fields_to_embed`` are put before a document's content. Raises ValueError for a ``top_k`` below 1.
    """

    def __init__(
        self,
        model: str,
        *,
        top_k: int = 10,
        scale_score: bool = True,
        score_threshold: float | None = None,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.top_k = model, _positive(top_k)
        self.scale_score, self.score_threshold = scale_score, score_threshold
        self.meta_fields_to_embed = list(meta_fields_to_embed or [])
        self.embedding_separator = embedding_separator
        self.settings = dict(settings or {})
        self._reranker: Reranker | None = None

    def to_dict(self) -> dict[str, Any]:
        """The component as Haystack writes it into a pipeline file: the settings, and no open model."""
        made: dict[str, Any] = default_to_dict(
            self,
            model=self.model,
            top_k=self.top_k,
            scale_score=self.scale_score,
            score_threshold=self.score_threshold,
            meta_fields_to_embed=self.meta_fields_to_embed,
            embedding_separator=self.embedding_separator,
            settings=self.settings,
        )
        return made

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ZooRanker:
        """The component that ``to_dict`` described. The model is opened by ``warm_up`` or the first ``run``."""
        made: ZooRanker = default_from_dict(cls, data)
        return made

    def warm_up(self) -> None:
        """Open the model, if it is not open yet. Raises ZooError."""
        self._opened()

    def _opened(self) -> Reranker:
        with OPENING:
            if self._reranker is None:
                self._reranker = opened(self.model, self.settings)
            return self._reranker

    def close(self) -> None:
        """Release the model. The next ``run`` opens it again."""
        with OPENING:
            reranker, self._reranker = self._reranker, None
        if reranker is not None:
            reranker.close()

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        scale_score: bool | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, list[Document]]:
        """The best of ``documents``, as new objects with their scores; of those with one id the first counts.

        Raises ZooError, and ValueError for a ``top_k`` below 1.
        """
        most = self.top_k if top_k is None else _positive(top_k)
        scaled = self.scale_score if scale_score is None else scale_score
        threshold = self.score_threshold if score_threshold is None else score_threshold
        by_id: dict[str, Document] = {}
        for document in documents:
            by_id.setdefault(document.id, document)
        different = list(by_id.values())
        if not different:
            return {"documents": []}
        scale: Scale = "probability" if scaled else "logit"
        found = best(self._opened(), query, [self._text(each) for each in different], most, threshold, scale)
        return {"documents": [replace(different[each.index], score=each.score) for each in found]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        scale_score: bool | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, list[Document]]:
        """``run`` in a thread. Raises what ``run`` raises."""
        return await asyncio.to_thread(self.run, query, documents, top_k, scale_score, score_threshold)

    def _text(self, document: Document) -> str:
        fields = [str(document.meta[name]) for name in self.meta_fields_to_embed if document.meta.get(name)]
        return self.embedding_separator.join([*fields, document.content or ""])


def _positive(top_k: int) -> int:
    if top_k < 1:
        raise ValueError(f"top_k is {top_k}; it must be 1 or more")
    return top_k
