"""LlamaIndex: a node postprocessor. ``pip install 'zoo-runner[llama-index]'``

from zoo.integrations.llama_index import ZooRerank

index.as_query_engine(similarity_top_k=50, node_postprocessors=[ZooRerank("bge-reranker-v2-m3", top_n=5)])
"""

from __future__ import annotations

from typing import Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from zoo.integrations.shared import best, opened
from zoo.reranker import Reranker, Scale

dispatcher = get_dispatcher(__name__)


class ZooRerank(BaseNodePostprocessor):
    """Keeps the best ``top_n`` nodes, ordered by their logits, with scores on the scale ``scores``.

    ``model`` is the name of the model, for events and logs; ``keep_retrieval_score`` keeps the score that a node came with in its metadata
    ``retrieval_score``. ``settings`` are those of ``Reranker.open``. Raises ValueError if there is no query.
    """

    model: str = Field(description="Name of the model.")
    top_n: int = Field(default=5, ge=1, description="Nodes that are kept.")
    scores: Scale = Field(default="probability", description="Scale of the scores: probability or logit.")
    keep_retrieval_score: bool = Field(
        default=False, description="Whether the score that a node came with is kept in metadata['retrieval_score']."
    )
    _reranker: Reranker = PrivateAttr()

    def __init__(
        self,
        reranker: Reranker | str,
        *,
        top_n: int = 5,
        scores: Scale = "probability",
        keep_retrieval_score: bool = False,
        **settings: Any,
    ) -> None:
        engine = opened(reranker, settings)
        super().__init__(model=engine.card.name, top_n=top_n, scores=scores, keep_retrieval_score=keep_retrieval_score)
        self._reranker = engine

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex stores the class."""
        return "ZooRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("a query is needed to rerank: give query_bundle or query_str")
        if not nodes:
            return []
        query = query_bundle.query_str
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=self.top_n, model_name=self.model))
        payload = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            texts = [each.node.get_content(metadata_mode=MetadataMode.EMBED) for each in nodes]
            kept = []
            for found in best(self._reranker, query, texts, self.top_n, None, self.scores):
                each = nodes[found.index]
                if self.keep_retrieval_score:
                    each.node.metadata["retrieval_score"] = each.score
                each.score = found.score
                kept.append(each)
            event.on_end(payload={EventPayload.NODES: kept})
        dispatcher.event(ReRankEndEvent(nodes=kept))
        return kept
