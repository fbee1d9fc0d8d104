"""Long passages in chunks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import small_collection as small
from conftest import Zoo
from zoo import hookimpl
from zoo.errors import ZooError
from zoo.evaluation.longdoc import PIECE, Chunker, aggregate, spans
from zoo.registry.stages import Pipeline
from zoo.types import Encoding, Encodings, Pair


class Words:
    """A tokenizer of words: query, two special tokens, passage."""

    @hookimpl
    def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
        rows = [Encoding({"input_ids": [0] * (2 + len(p.query.split()) + len(p.passage.split()))}) for p in pairs]
        return Encodings(rows, {"input_ids": 0})


def chunks(query: str, passage: str, max_length: int = 20) -> list[Pair]:
    return Chunker(Pipeline([("words", Words())]), max_length).chunks(Pair(query, passage))


def test_a_passage_that_fits_is_left_whole() -> None:
    assert chunks("a query", "short passage") == [Pair("a query", "short passage")]
    assert chunks("a query", "") == [Pair("a query", "")]


def test_chunks_fit_cover_everything_and_overlap() -> None:
    words = [f"w{i}" for i in range(300)]
    found = [pair.passage.split() for pair in chunks("a query", " ".join(words), 68)]
    assert all(2 + 2 + len(chunk) <= 68 for chunk in found)
    assert found[0][0] == "w0"
    assert found[-1][-1] == "w299"
    for before, after in pairwise(found):
        assert before[-1] in after
        assert before[0] not in after


def test_a_query_that_leaves_no_room_says_what_to_do() -> None:
    with pytest.raises(ZooError, match="lower `query_max_length`"):
        chunks("q " * 30, "w " * 40)


@given(st.text(max_size=200))
def test_pieces_together_are_the_passage(text: str) -> None:
    assert "".join(PIECE.findall(text)) == text


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 30))
def test_spans_cover_every_piece_and_go_forward(costs: list[int], room: int) -> None:
    found = list(spans(costs, room))
    assert found[0][0] == 0
    assert found[-1][1] == len(costs)
    for (first, last), (following, further) in pairwise(found):
        assert first < following <= last < further
    for first, last in found:
        assert sum(costs[first:last]) <= room or last - first == 1 or sum(costs[first : last - 1]) <= room


def test_scores_of_chunks_are_put_together() -> None:
    assert aggregate([1.0, 3.0, 2.0], "max") == 3.0
    assert aggregate([1.0, 3.0, 2.0], "mean") == 2.0
    assert aggregate([1.5], "truncate") == 1.5


@pytest.mark.parametrize("how", ["max", "mean"])
def test_what_lies_past_the_limit_counts_and_its_cost_is_shown(how: str, zoo: Zoo, tmp_path: Path) -> None:
    data = small.mldr(tmp_path)
    common = ("run", "zoo-reranker-tiny", "--mode", "valid", "--data-path", data, "--shape", "64", "--json")
    cut = zoo(*common, "--output", tmp_path / "cut")
    whole = zoo(*common, "--output", tmp_path / "whole", "--long-doc", how)
    assert whole.exit_code == 0, whole.stderr
    before, after = json.loads(cut.stdout), json.loads(whole.stdout)
    assert before["truncation"]["passages_truncated"] == 2  # p6, twice a candidate
    assert after["truncation"]["passages_truncated"] == 0
    [result] = after["results"]
    assert result["scored_pairs"] > result["candidates"] == small.PAIRS
    assert f"{result['scored_pairs']} chunks" in whole.stderr
    assert "times the cost" in whole.stderr
