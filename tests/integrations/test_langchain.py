"""The adapters for LangChain, in LangChain's own retriever."""

from __future__ import annotations

import asyncio

import pytest

core = pytest.importorskip("langchain_core")

from langchain_core.documents import Document  # noqa: E402

from adapted import QUERY, TEXTS  # noqa: E402
from zoo import Reranker  # noqa: E402
from zoo.integrations.langchain import ZooCrossEncoder, ZooReranker  # noqa: E402

pytestmark = pytest.mark.integrations
DOCUMENTS = [Document(page_content=text, metadata={"place": n}) for n, text in enumerate(TEXTS)]


def test_the_cross_encoder_gives_logits_in_order(reranker: Reranker) -> None:
    found = ZooCrossEncoder(reranker).score([(QUERY, text) for text in TEXTS])
    assert found == pytest.approx(reranker.score([(QUERY, text) for text in TEXTS]).tolist(), abs=1e-5)
    assert all(type(score) is float for score in found)


def test_the_compressor_keeps_the_best_with_their_scores_and_copies_them(reranker: Reranker) -> None:
    kept = ZooReranker(reranker=reranker, top_n=2).compress_documents(DOCUMENTS, QUERY)
    expected = reranker.rank(QUERY, TEXTS, 2, scores="probability")
    assert [document.metadata["place"] for document in kept] == [found.index for found in expected]
    assert [d.metadata["relevance_score"] for d in kept] == pytest.approx([f.score for f in expected], abs=1e-5)
    assert all("relevance_score" not in document.metadata for document in DOCUMENTS)


def test_a_threshold_leaves_out_what_is_below_it(reranker: Reranker) -> None:
    scores = sorted(found.score for found in reranker.rank(QUERY, TEXTS))
    compressor = ZooReranker(reranker=reranker, top_n=None, scores="logit", score_threshold=(scores[1] + scores[2]) / 2)
    assert len(compressor.compress_documents(DOCUMENTS, QUERY)) == 2
    assert list(compressor.compress_documents([], QUERY)) == []


def test_the_asynchronous_call_gives_the_same(reranker: Reranker) -> None:
    compressor = ZooReranker(reranker=reranker)
    found = asyncio.run(compressor.acompress_documents(DOCUMENTS, QUERY))
    assert [d.page_content for d in found] == [d.page_content for d in compressor.compress_documents(DOCUMENTS, QUERY)]


def test_langchains_own_compressor_and_retriever_take_them(reranker: Reranker) -> None:
    pytest.importorskip("langchain_classic")
    from langchain_classic.retrievers import ContextualCompressionRetriever
    from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
    from langchain_core.retrievers import BaseRetriever

    class Everything(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: object) -> list[Document]:
            return DOCUMENTS

    compressors = (CrossEncoderReranker(model=ZooCrossEncoder(reranker), top_n=3), ZooReranker(reranker=reranker))
    theirs, ours = (
        ContextualCompressionRetriever(base_compressor=each, base_retriever=Everything()).invoke(QUERY)
        for each in compressors
    )
    assert [d.page_content for d in ours] == [d.page_content for d in theirs]
    assert len(ours) == 3
