"""A reranking task of mteb gives what valid mode gives on the same candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mteb")

import datasets
import mteb
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

import small_collection as small
from zoo import Reranker
from zoo.evaluation import DataRequest, EvaluationRequest, evaluate
from zoo.integrations.mteb import ZooCrossEncoder
from zoo.settings import RunSettings

pytestmark = [
    pytest.mark.integrations,
    pytest.mark.filterwarnings("ignore"),  # mteb's and its dependencies' own
]


class SmallReranking(AbsTaskRetrieval):
    metadata = TaskMetadata(
        name="SmallReranking",
        dataset={"path": "none/none", "revision": "1"},
        description="The small collection.",
        reference="https://example.org",
        type="Reranking",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        date=("2026-01-01", "2026-01-02"),
        domains=["Written"],
        task_subtypes=[],
        license="cc0-1.0",
        annotations_creators="human-annotated",
        dialect=[],
        sample_creation="created",
        bibtex_citation="",
    )

    def load_data(self, *args: Any, **kwargs: Any) -> None:
        table = datasets.Dataset.from_list
        split = {
            "corpus": table([{"id": key, "title": "", "text": text} for key, text in small.PASSAGES.items()]),
            "queries": table([{"id": key, "text": text} for key, text in small.QUERIES.items()]),
            "relevant_docs": small.QRELS,
            "top_ranked": {query: [*found] for query, found in small.CANDIDATES.items()},
        }
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


def test_a_reranking_task_equals_valid_mode_on_the_same_candidates(reranker: Reranker, tmp_path: Path) -> None:
    data = small.mldr(tmp_path)
    ours = evaluate(
        RunSettings(model="zoo-reranker-tiny", target="cpu", batch_size=32, offline=True),
        EvaluationRequest(data=DataRequest(data_path=data), output=tmp_path / "out"),
    )
    (result,) = mteb.evaluate(ZooCrossEncoder(reranker), SmallReranking(), cache=None).task_results
    theirs = result.scores["test"][0]
    # mteb rounds to five digits.
    assert theirs["ndcg_at_10"] == pytest.approx(ours.ndcg_at_10, abs=1e-5)


def test_pairs_keep_the_order_of_the_loaders(reranker: Reranker) -> None:
    queries = [{"text": ["a", "b"]}, {"text": ["c"]}]
    documents = [{"text": ["1", "2"]}, {"text": ["3"]}]
    found = ZooCrossEncoder(reranker).predict(queries, documents)
    assert found == pytest.approx(reranker.score([("a", "1"), ("b", "2"), ("c", "3")]), abs=1e-5)


def test_instructions_are_given_apart_only_if_that_is_wanted(reranker: Reranker) -> None:
    batch = {"text": ["q do this"], "query": ["q"], "instruction": ["do this"]}
    assert list(ZooCrossEncoder(reranker)._queries([batch])) == [("q do this", "")]
    assert list(ZooCrossEncoder(reranker, instructions=True)._queries([batch])) == [("q", "do this")]


def test_the_model_is_described_by_its_card(reranker: Reranker) -> None:
    meta = ZooCrossEncoder(reranker).mteb_model_meta
    assert meta.name == "zoo/zoo-reranker-tiny"
    assert meta.model_type == ["cross-encoder"]
