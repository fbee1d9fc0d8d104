"""The adapter for LlamaIndex, as a query engine calls it."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("llama_index.core")

from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from adapted import QUERY, TEXTS
from zoo import Reranker
from zoo.integrations.llama_index import ZooRerank

pytestmark = pytest.mark.integrations


def nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text, id_=str(n)), score=0.5) for n, text in enumerate(TEXTS)]


def test_nodes_are_ordered_cut_and_scored(reranker: Reranker) -> None:
    kept = ZooRerank(reranker, top_n=2, keep_retrieval_score=True).postprocess_nodes(nodes(), query_str=QUERY)
    expected = reranker.rank(QUERY, TEXTS, 2, scores="probability")
    assert [int(each.node.node_id) for each in kept] == [found.index for found in expected]
    assert [each.score for each in kept] == pytest.approx([found.score for found in expected], abs=1e-5)
    assert [each.node.metadata["retrieval_score"] for each in kept] == [0.5, 0.5]


def test_the_asynchronous_call_gives_the_same(reranker: Reranker) -> None:
    postprocessor = ZooRerank(reranker)
    first = postprocessor.postprocess_nodes(nodes(), QueryBundle(QUERY))
    second = asyncio.run(postprocessor.apostprocess_nodes(nodes(), QueryBundle(QUERY)))
    assert [each.node.node_id for each in first] == [each.node.node_id for each in second]


def test_metadata_that_is_embedded_is_read_by_the_model_too(reranker: Reranker) -> None:
    node = NodeWithScore(node=TextNode(text="hi", metadata={"title": "panda"}))
    (found,) = ZooRerank(reranker, scores="logit").postprocess_nodes([node], query_str=QUERY)
    assert found.score == pytest.approx(float(reranker.score([(QUERY, "title: panda\n\nhi")])[0]), abs=1e-5)


def test_no_query_is_an_error_and_no_nodes_are_none(reranker: Reranker) -> None:
    with pytest.raises(ValueError, match="a query is needed"):
        ZooRerank(reranker).postprocess_nodes(nodes())
    assert ZooRerank(reranker).postprocess_nodes([], query_str=QUERY) == []


def test_those_who_listen_hear_of_the_reranking(reranker: Reranker) -> None:
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.event_handlers import BaseEventHandler

    heard: list[str] = []

    class Listener(BaseEventHandler):
        def handle(self, event: object, **kwargs: object) -> None:
            heard.append(type(event).__name__)

    listener = Listener()
    get_dispatcher().add_event_handler(listener)
    try:
        ZooRerank(reranker).postprocess_nodes(nodes(), query_str=QUERY)
    finally:
        get_dispatcher().event_handlers.remove(listener)
    assert heard == ["ReRankStartEvent", "ReRankEndEvent"]
