"""Data sets as they are published: judgements of passages that are not there, queries among their own candidates, other headers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import small_collection as small
from conftest import SHARED, Zoo
from zoo.errors import InputError
from zoo.evaluation.datasets import Collection, DataRequest, find_layouts, open_collections

pytestmark = pytest.mark.lowest

MODEL = "zoo-reranker-tiny"


def opened(path: Path, **asked: object) -> Collection:
    request = DataRequest(data_path=path, **asked)  # type: ignore[arg-type]
    [collection] = open_collections(find_layouts(request), request)
    return collection


def add_judgement(path: Path, line: str) -> None:
    qrels = path / "qrels" / "test.tsv"
    qrels.write_text(qrels.read_text() + line + "\n")


def test_a_judged_passage_that_the_corpus_lacks_counts_as_not_found_and_is_reported(zoo: Zoo, tmp_path: Path) -> None:
    """ArguAna's judgements name passages that its corpus does not have; trec_eval's recall counts them."""
    path = small.beir(tmp_path)
    add_judgement(path, "q4\tgone\t1")
    assert opened(path).absent == ("gone",)
    result = zoo("run", MODEL, "--mode", "valid", "--data-path", path, "--json")
    assert result.exit_code == 0, result.stderr
    assert "1 judged passage is not in the corpus (the first is 'gone')" in result.stderr
    [found] = json.loads(result.stdout)["results"]
    assert found["judged_passages_not_in_the_corpus"] == ["gone"]
    assert found["reranked"]["recall@10"] == pytest.approx((1 + 1 + 1 + 0.5) / 4)


def with_query_as_candidate(tmp_path: Path) -> Path:
    path = small.beir(tmp_path)
    with (path / "corpus.jsonl").open("a", encoding="utf-8") as corpus:
        corpus.write(json.dumps({"_id": "q1", "title": "", "text": small.QUERIES["q1"]}) + "\n")
    stage = path / "small-test.json"
    content = json.loads(stage.read_text())
    content["search_results"]["q1"] = {"q1": 99.0, **content["search_results"]["q1"]}
    stage.write_text(json.dumps(content))
    return path


def test_the_query_itself_is_left_out_where_the_reference_leaves_it_out(zoo: Zoo, tmp_path: Path) -> None:
    path = with_query_as_candidate(tmp_path)
    collection = opened(path)
    assert list(collection.candidates["q1"]) == list(small.CANDIDATES["q1"])
    assert (collection.identical, collection.identical_left_out) == (1, True)
    result = zoo("run", MODEL, "--mode", "valid", "--data-path", path, "--output", "out")
    assert result.exit_code == 0, result.stderr
    assert "1 candidate had the id of its own query and was left out" in result.stderr
    assert "q1 Q0 q1" not in Path("out/small-test.reranked.trec").read_text()


def test_it_is_cut_out_after_the_best_candidates_are_chosen_as_the_reference_does(tmp_path: Path) -> None:
    """FlagEmbedding keeps the first ``rerank_top_k`` and skips the pair when it makes the pairs."""
    assert list(opened(with_query_as_candidate(tmp_path), top_k=2).candidates["q1"]) == ["p2"]


def test_the_query_itself_is_ranked_where_the_user_wants_it_and_that_is_reported(zoo: Zoo, tmp_path: Path) -> None:
    path = with_query_as_candidate(tmp_path)
    result = zoo(
        "run", MODEL, "--mode", "valid", "--data-path", path, "--keep-identical-ids", "--output", "out", "--json"
    )
    assert result.exit_code == 0, result.stderr
    assert "1 candidate had the id of its own query and was ranked with the others" in result.stderr
    assert json.loads(result.stdout)["results"][0]["identical_ids"] == {"candidates": 1, "left_out": False}
    assert "q1 Q0 q1" in Path("out/small-test.reranked.trec").read_text()
    other = zoo("run", MODEL, "--mode", "valid", "--data-path", path, "--ignore-identical-ids", "--output", "out")
    assert "identical ids: kept in the journal, left out now" in other.stderr


@pytest.mark.parametrize("layout", [small.mldr, small.trec], ids=lambda layout: layout.__name__)
def test_other_layouts_keep_it_as_the_reference_does(layout: object, tmp_path: Path) -> None:
    assert opened(layout(tmp_path)).identical_left_out is False  # type: ignore[operator]


@pytest.mark.parametrize(
    "header",
    [
        "query-id\tcorpus-id\tscore",
        "query_id\tcorpus_id\tscore",
        "Query-ID\tDoc-ID\tRelevance",
        "qid\tpid\tlabel",
        "qid\tdocid\trel",
    ],
)
def test_headers_of_judgements_are_known_in_the_spellings_that_are_published(header: str, tmp_path: Path) -> None:
    path = small.beir(tmp_path)
    qrels = path / "qrels" / "test.tsv"
    rows = qrels.read_text().split("\n", 1)[1]
    qrels.write_text(header + "\n" + rows)
    assert opened(path).qrels == small.QRELS


def test_a_first_line_that_is_no_header_is_not_taken_for_one(tmp_path: Path) -> None:
    path = small.beir(tmp_path)
    qrels = path / "qrels" / "test.tsv"
    qrels.write_text("q1\tp1\thigh\n" + qrels.read_text().split("\n", 1)[1])
    with pytest.raises(InputError, match=r"line 1: the relevance 'high'"):
        opened(path)


def test_trec_judgements_may_have_a_header_too(tmp_path: Path) -> None:
    path = small.trec(tmp_path)
    qrels = path / "qrels.txt"
    qrels.write_text("query-id iteration doc-id relevance\n" + qrels.read_text())
    assert opened(path).qrels == small.QRELS


def test_the_first_stage_of_raw_files_is_found_where_the_reference_puts_it(tmp_path: Path) -> None:
    path = small.hub(tmp_path)
    stage = (path / "en-test.json").rename(tmp_path / "en-test.json")
    assert opened(path).first_stage == stage
    data = path.rename(tmp_path / "data")
    assert opened(data).first_stage == stage
    place = tmp_path / "search_results" / "bge-m3" / "NoReranker" / "en-test.json"
    place.parent.mkdir(parents=True)
    stage.rename(place)
    assert opened(data).first_stage == place


@pytest.mark.parametrize("case", ["ident", "missingdoc"])
def test_the_cases_made_after_arguana_are_evaluated(case: str, zoo: Zoo) -> None:
    folder = SHARED / "cases" / "arguana" / case
    if not folder.is_dir():
        pytest.skip("the cases are not on this machine")
    result = zoo("run", MODEL, "--mode", "valid", "--data-path", folder, "--candidates", folder / "run.trec", "--json")
    assert result.exit_code == 0, result.stderr
    [found] = json.loads(result.stdout)["results"]
    if case == "ident":
        assert found["identical_ids"] == {"candidates": 1, "left_out": True}
        assert found["candidates"] == 8
    else:
        assert found["judged_passages_not_in_the_corpus"] == ["con03b"]
        assert found["reranked"]["recall@10"] == 0.75
