"""The transformer for PyTerrier, in its pipelines. No Java is needed for them."""

from __future__ import annotations

import pytest

pytest.importorskip("pyterrier")

import pandas as pd
import pyterrier as pt

from adapted import QUERY, TEXTS
from zoo import Reranker
from zoo.integrations.pyterrier import ZooReranker

pytestmark = [
    pytest.mark.integrations,
    pytest.mark.filterwarnings("ignore:The inplace keyword"),  # PyTerrier's own use of pandas
]


def frame() -> pd.DataFrame:
    rows = [
        {"qid": qid, "query": query, "docno": f"d{n}", "text": text, "score": float(-n), "rank": n, "url": "kept"}
        for qid, query in (("1", QUERY), ("2", "wine"))
        for n, text in enumerate(TEXTS)
    ]
    return pd.DataFrame(rows)


def test_each_query_is_ranked_by_the_logits(reranker: Reranker) -> None:
    found = ZooReranker(reranker)(frame())
    for query, rows in found.groupby("query"):
        expected = reranker.rank(str(query), TEXTS)
        ranked = rows.sort_values("rank")
        assert ranked["docno"].tolist() == [f"d{each.index}" for each in expected]
        assert ranked["score"].tolist() == pytest.approx([each.score for each in expected], abs=1e-5)
        assert ranked["rank"].tolist() == [0, 1, 2, 3]
    assert set(found["url"]) == {"kept"}


def test_it_stands_in_pipelines_and_answers_an_empty_frame(reranker: Reranker) -> None:
    pipeline = pt.Transformer.from_df(frame(), uniform=True) >> ZooReranker(reranker) % 1
    assert len(pipeline(frame()[["qid", "query"]].drop_duplicates())) == 2
    empty = ZooReranker(reranker)(frame().head(0))
    assert len(empty) == 0
    assert {"score", "rank", "docno"} <= set(empty.columns)
    assert "score" in pt.inspect.transformer_outputs(ZooReranker(reranker), ["qid", "query", "docno", "text"])


def test_a_frame_without_text_is_refused(reranker: Reranker) -> None:
    with pytest.raises(pt.validate.InputValidationError):
        ZooReranker(reranker)(frame().drop(columns="text"))
