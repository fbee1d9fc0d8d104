"""The ranker for Haystack, in a pipeline."""

from __future__ import annotations

import asyncio
import inspect
import time

import pytest

haystack = pytest.importorskip("haystack")

from haystack import Document, Pipeline  # noqa: E402

from adapted import MODEL, QUERY, TEXTS  # noqa: E402
from zoo import Reranker  # noqa: E402
from zoo.integrations.haystack import ZooRanker  # noqa: E402

pytestmark = pytest.mark.integrations
SETTINGS = {"device": "cpu", "offline": True}


def documents() -> list[Document]:
    return [Document(id=str(n), content=text, meta={"title": "t"}) for n, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def ranker() -> ZooRanker:
    return ZooRanker(MODEL, top_k=3, settings=SETTINGS)


def test_a_pipeline_ranks_documents_and_leaves_its_input_alone(ranker: ZooRanker, reranker: Reranker) -> None:
    pipeline = Pipeline()
    pipeline.add_component("ranker", ZooRanker(MODEL, top_k=3, settings=SETTINGS))
    given = documents()
    found = pipeline.run({"ranker": {"query": QUERY, "documents": given}})["ranker"]["documents"]
    expected = reranker.rank(QUERY, TEXTS, 3, scores="probability")
    assert [int(document.id) for document in found] == [each.index for each in expected]
    assert [document.score for document in found] == pytest.approx([each.score for each in expected], abs=1e-5)
    assert [document.score for document in given] == [None] * 4


def test_a_pipeline_survives_being_written_and_read(ranker: ZooRanker) -> None:
    pipeline = Pipeline()
    pipeline.add_component("ranker", ranker.from_dict(ranker.to_dict()))
    newer = "allowed_modules" in inspect.signature(Pipeline.loads).parameters
    read = Pipeline.loads(pipeline.dumps(), **({"allowed_modules": ["zoo.integrations.haystack"]} if newer else {}))
    assert read.get_component("ranker").to_dict() == ranker.to_dict()


def test_documents_of_one_id_count_once_and_none_are_none(ranker: ZooRanker) -> None:
    given = documents()
    found = ranker.run(QUERY, [given[1], given[0], given[1]], top_k=9)["documents"]
    assert sorted(document.id for document in found) == ["0", "1"]
    assert ranker.run(QUERY, []) == {"documents": []}


def test_meta_fields_are_read_and_logits_can_be_shown(reranker: Reranker) -> None:
    made = ZooRanker(MODEL, meta_fields_to_embed=["title"], scale_score=False, settings=SETTINGS)
    (found,) = made.run(QUERY, documents()[:1])["documents"]
    made.close()
    assert found.score == pytest.approx(float(reranker.score([(QUERY, "t\nhi")])[0]), abs=1e-5)


def test_the_asynchronous_call_gives_the_same(ranker: ZooRanker) -> None:
    assert asyncio.run(ranker.run_async(QUERY, documents())) == ranker.run(QUERY, documents())


def test_a_top_k_below_one_is_refused(ranker: ZooRanker) -> None:
    with pytest.raises(ValueError, match="top_k is 0"):
        ZooRanker(MODEL, top_k=0)
    with pytest.raises(ValueError, match="top_k is -1"):
        ranker.run(QUERY, documents(), top_k=-1)


def test_requests_at_the_same_time_open_one_model(reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def slowly(*given: object) -> Reranker:
        made.append(given)
        time.sleep(0.1)
        return reranker

    monkeypatch.setattr("zoo.integrations.haystack.opened", slowly)
    ranker = ZooRanker(MODEL, settings=SETTINGS)

    async def at_once() -> list[dict[str, list[Document]]]:
        return await asyncio.gather(*(ranker.run_async(QUERY, documents()) for _ in range(4)))

    answers = asyncio.run(at_once())
    assert len(made) == 1
    assert len({tuple(document.id for document in answer["documents"]) for answer in answers}) == 1
