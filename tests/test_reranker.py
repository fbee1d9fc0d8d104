"""``zoo.Reranker``: the way in for programs."""

from __future__ import annotations

import inspect
import itertools
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

import zoo
from conftest import PANDA, ROOT, Zoo
from zoo import Ranked, Reranker
from zoo.errors import ClosedError, ZooError
from zoo.types import Pair

TOLERANCE = 1e-5
"""Sums are made in another order in another batch."""


@pytest.fixture(scope="module")
def reranker() -> Iterator[Reranker]:
    with Reranker.open("zoo-reranker-tiny", device="cpu", offline=True) as opened:
        yield opened


def test_scores_are_those_of_the_command(reranker: Reranker, zoo: Zoo) -> None:
    printed = [json.loads(line)["logit"] for line in zoo("run", "zoo-reranker-tiny", "--json").stdout.splitlines()]
    scores = reranker.score(PANDA)
    assert scores.dtype == np.float32
    assert scores.tolist() == pytest.approx(printed, abs=TOLERANCE)


def test_a_probability_is_the_sigmoid_of_the_logit(reranker: Reranker) -> None:
    logits = reranker.score(PANDA)
    probabilities = reranker.score(PANDA, scores="probability")
    assert probabilities.tolist() == pytest.approx([1 / (1 + math.exp(-logit)) for logit in logits], abs=1e-6)


def test_ranking_keeps_places_and_takes_the_best(reranker: Reranker) -> None:
    query, passages = "what is panda?", [PANDA[0][1], PANDA[1][1], "bamboo"]
    ranked = reranker.rank(query, passages)
    scores = reranker.score([(query, passage) for passage in passages]).tolist()
    order = sorted(range(3), key=lambda index: -scores[index])
    assert [found.index for found in ranked] == order
    assert [found.passage for found in ranked] == [passages[index] for index in order]
    assert reranker.rank(query, passages, top_k=1) == ranked[:1]
    assert isinstance(ranked[0], Ranked)


def test_of_equal_passages_the_first_comes_first(reranker: Reranker) -> None:
    assert [found.index for found in reranker.rank("panda", ["same"] * 5)] == [0, 1, 2, 3, 4]


def test_many_queries_are_ranked_each_on_its_own(reranker: Reranker) -> None:
    queries, passages = ["panda", "wine"], [["hi", "a panda", "wine"], ["grapes become wine"]]
    both = reranker.rank_many(queries, passages)
    for query, own, found in zip(queries, passages, both, strict=True):
        alone = reranker.rank(query, own)
        assert [each.index for each in found] == [each.index for each in alone]
        assert [each.score for each in found] == pytest.approx([each.score for each in alone], abs=TOLERANCE)
    with pytest.raises(ValueError, match="argument"):
        reranker.rank_many(["a", "b"], [["x"]])


def test_nothing_in_is_nothing_out(reranker: Reranker) -> None:
    assert reranker.score([]).shape == (0,)
    assert reranker.rank("panda", []) == []
    assert reranker.rank_many([], []) == []


def test_a_stream_may_be_endless(reranker: Reranker) -> None:
    taken = []

    def pairs() -> Iterator[tuple[str, str]]:
        for number in itertools.count():
            taken.append(number)
            yield "panda", f"passage {number % 7}"

    scores = list(itertools.islice(reranker.stream(pairs()), 100))
    assert scores[:93] == pytest.approx(scores[7:], abs=TOLERANCE)
    assert len(taken) < 5000, "only a few parts are read ahead"


@pytest.mark.parametrize("pair", [("only a query",), "a text", ("query", 7), None, ("a", "b", "c", "d")])
def test_what_is_not_a_pair_is_refused(reranker: Reranker, pair: object) -> None:
    with pytest.raises(ZooError, match="a pair must be two texts"):
        reranker.score([pair])  # type: ignore[list-item]


def test_other_mistakes_are_told(reranker: Reranker) -> None:
    with pytest.raises(ZooError, match="passages must be a list of texts"):
        reranker.rank("panda", "a single text")
    with pytest.raises(ZooError, match="top_k is 0"):
        reranker.rank("panda", ["x"], top_k=0)
    with pytest.raises(ZooError, match="must be 'logit' or 'probability'"):
        reranker.score([("a", "b")], scores="percent")  # type: ignore[arg-type]
    with pytest.raises(ZooError, match="Did you mean 'zoo-reranker-tiny'"):
        Reranker.open("zoo-reranker-tyni")


def test_any_number_of_threads_may_call_one_object(reranker: Reranker) -> None:
    passages = [f"passage number {number} about pandas " + "and bamboo " * (number % 40) for number in range(60)]
    expected = reranker.score([("panda", passage) for passage in passages]).tolist()
    found: dict[int, list[float]] = {}

    def work(number: int) -> None:
        own = [("panda", passage) for passage in passages[number::6]]
        found[number] = reranker.score(own).tolist()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for number in range(6):
        assert found[number] == pytest.approx(expected[number::6], abs=TOLERANCE)


def test_exclusive_use_keeps_to_the_budget_of_tokens_too() -> None:
    pairs = [Pair("what is panda?", "a bear of China " * 3)] * 20
    with Reranker.open("zoo-reranker-tiny", device="cpu", offline=True, batch_size=None, batch_tokens=64) as opened:
        with opened.exclusive() as scorer:
            scores = [logit for _, logit in scorer.score(pairs)]
        assert scorer.stats.slots / scorer.stats.batches <= 64
        assert scores == pytest.approx(opened.score(pairs).tolist(), abs=TOLERANCE)


def test_after_close_every_call_says_that_it_is_closed() -> None:
    before = set(threading.enumerate())
    opened = Reranker.open("zoo-reranker-tiny", device="cpu", offline=True)
    opened.score(PANDA)
    opened.close()
    opened.close()
    for call in (
        lambda: opened.score(PANDA),
        lambda: opened.rank("a", ["b"]),
        lambda: opened.submit(PANDA),
        lambda: opened.stream(PANDA),
    ):
        with pytest.raises(ClosedError, match="this reranker is closed"):
            call()
    assert set(threading.enumerate()) <= before


def test_importing_imports_nothing_heavy_and_opening_leaves_the_environment_alone() -> None:
    code = """
import sys, os
import zoo, zoo.api
heavy = {"numpy", "onnxruntime", "tokenizers", "click", "rich", "huggingface_hub"} & set(sys.modules)
assert not heavy, heavy
before = dict(os.environ)
with zoo.Reranker.open("zoo-reranker-tiny", device="cpu", offline=True) as reranker:
    reranker.score([("a", "b")])
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


def test_scores_do_not_depend_on_workers(reranker: Reranker) -> None:
    with Reranker.open("zoo-reranker-tiny", device="cpu", offline=True, workers=2, threads=2) as opened:
        assert opened.score(PANDA).tolist() == pytest.approx(reranker.score(PANDA).tolist(), abs=TOLERANCE)


PUBLIC = {
    "open", "from_settings", "score", "stream", "rank", "rank_many", "submit", "queued_tokens", "queued_pairs", "exclusive",
    "device_name", "device_details", "close", "expected_tokens", "silent_seconds", "on_batch",
}  # fmt: skip


def test_the_public_names_are_these_and_documented() -> None:
    """A change of them is a change for everybody who uses them."""
    assert zoo.__all__ == ["Architecture", "Pair", "Ranked", "Reranker", "ZooError", "__version__", "hookimpl"]
    assert {name for name in vars(Reranker) if not name.startswith("_")} == PUBLIC
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    for name in PUBLIC:
        assert inspect.getdoc(getattr(Reranker, name)), name
        assert f"`{name}" in page or f".{name}(" in page, f"docs/python.md does not mention {name}"


def test_all_of_zoo_api_can_be_imported() -> None:
    from zoo import api

    names = list(api.__all__)
    assert names == sorted(names)
    assert all(getattr(api, name) is not None for name in names)
    source = (ROOT / "zoo" / "api.py").read_text(encoding="utf-8")
    declared = {
        line.rpartition(" as ")[2] for line in source.splitlines() if line.startswith("    from zoo") and " as " in line
    }
    assert declared == set(names)
