"""Metrics: the facts that decide figures, and equality with an independent computation."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path

import pytest

import zoo_cpu
import zoo_cross_encoder
import zoo_direct
import zoo_onnx
from zoo import hookimpl
from zoo.errors import ScoreError
from zoo.evaluation import DataRequest, EvaluationRequest, evaluate, metrics
from zoo.registry.catalogue import Catalogue
from zoo.registry.participants import Participant
from zoo.registry.stages import Evaluation, Pipeline
from zoo.settings import RunSettings
from zoo.types import Qrels, Run

pytestmark = [pytest.mark.parity, pytest.mark.lowest]


def ndcg(run: Run, qrels: Qrels, k: int = 10) -> float:
    """nDCG from its definition: linear gain, log2(rank + 1), ties by the larger id, the mean over judged queries of the run."""
    values = []
    for query, scores in run.items():
        judged = qrels[query]
        order = sorted(scores, key=lambda p: (scores[p], p), reverse=True)
        gain = sum(max(judged.get(p, 0), 0) / math.log2(rank + 1) for rank, p in enumerate(order[:k], start=1))
        best = sorted((grade for grade in judged.values() if grade > 0), reverse=True)
        ideal = sum(grade / math.log2(rank + 1) for rank, grade in enumerate(best[:k], start=1))
        values.append(gain / ideal if ideal else 0.0)
    return round(sum(values) / len(values), 5)


def random_case(seed: int) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, int]]]:
    """A run and judgements with ties, grades, queries that lack a run and queries without a relevant passage."""
    chance = random.Random(seed)
    qrels, run = {}, {}
    for number in range(chance.randint(3, 12)):
        passages = [f"p{i}" for i in chance.sample(range(300), chance.randint(3, 150))]
        judged = [*chance.sample(passages, min(len(passages), 6)), "never-found"]
        qrels[f"q{number}"] = {p: chance.choice([0, 0, 1, 2, 3]) for p in judged}
        if number % 4 != 3:
            run[f"q{number}"] = {p: round(chance.uniform(-5, 5), 1) for p in passages}
    qrels["empty"] = {"p1": 0}
    run["empty"] = {"p1": 1.0, "p2": 0.5}
    return run, qrels


@pytest.mark.parametrize("seed", range(20))
def test_ndcg_equals_its_definition(seed: int) -> None:
    run, qrels = random_case(seed)
    assert metrics.evaluate(run, qrels)["ndcg@10"] == pytest.approx(ndcg(run, qrels), abs=1.01e-5)


def test_the_names_are_those_of_the_reference() -> None:
    names = metrics.evaluate({"q": {"p": 1.0}}, {"q": {"p": 1}})
    assert list(names) == [
        f"{metric}@{k}"
        for metric in ("ndcg", "map", "recall", "precision", "mrr", "recall_cap")
        for k in (10, 100)
    ]  # fmt: skip


def test_of_equal_scores_the_larger_id_ranks_first() -> None:
    run = {"q": {"b": 1.0, "a": 1.0}}
    assert metrics.evaluate(run, {"q": {"b": 1}})["ndcg@10"] == 1.0
    assert metrics.evaluate(run, {"q": {"a": 1}})["ndcg@10"] == 0.63093


def test_scores_are_compared_as_float32() -> None:
    run = {"q": {"b": 1.0, "a": 1.0 + 1e-12}}
    assert metrics.evaluate(run, {"q": {"b": 1}})["ndcg@10"] == 1.0
    assert metrics.ranked(run["q"]) == ["b", "a"]


def test_beirs_metrics_keep_ties_in_order_of_appearance() -> None:
    assert metrics.evaluate({"q": {"a": 1.0, "b": 1.0}}, {"q": {"a": 1}})["mrr@10"] == 1.0
    assert metrics.evaluate({"q": {"b": 1.0, "a": 1.0}}, {"q": {"a": 1}})["mrr@10"] == 0.5


def test_a_query_without_candidates_leaves_the_mean_but_not_beirs() -> None:
    figures = metrics.evaluate({"q": {"a": 1.0}}, {"q": {"a": 1}, "lost": {"a": 1}})
    assert figures["ndcg@10"] == 1.0
    assert figures["mrr@10"] == 0.5


def test_a_query_without_a_relevant_passage_counts_nothing() -> None:
    figures = metrics.evaluate({"q": {"a": 1.0}, "r": {"a": 1.0}}, {"q": {"a": 1}, "r": {"a": 0}})
    assert figures["ndcg@10"] == 0.5
    assert figures["recall_cap@10"] == 0.5


def test_capped_recall_divides_by_what_fits() -> None:
    scores = {f"p{i:02}": float(-i) for i in range(20)}
    figures = metrics.evaluate({"q": scores}, {"q": dict.fromkeys(scores, 1)})
    assert figures["recall_cap@10"] == 1.0
    assert figures["recall@10"] == 0.5


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_refused(score: float) -> None:
    with pytest.raises(ScoreError, match="passage 'p' for query 'q'"):
        metrics.evaluate({"q": {"p": score}}, {"q": {"p": 1}})


def test_ties_in_the_top_ten_are_counted_and_bounded() -> None:
    run = {"q": {"a": 2.0, "b": 1.0, "c": 1.0, "d": 0.0}, "r": {"a": 1.0, "b": 0.0}}
    qrels = {"q": {"b": 1}, "r": {"a": 1}}
    found = metrics.ties(run, qrels)
    assert (found.scores, found.queries) == (2, 1)
    assert found.best == round((1 / math.log2(3) + 1) / 2, 5)
    assert found.worst == round((1 / math.log2(4) + 1) / 2, 5)
    assert found.worst <= metrics.evaluate(run, qrels)["ndcg@10"] <= found.best


def test_ties_below_the_top_ten_do_not_count() -> None:
    run = {"q": {f"p{i}": float(-min(i, 11)) for i in range(15)}}
    assert metrics.ties(run, {"q": {"p0": 1}}) == metrics.Ties()


# The hook


class Extra:
    def __init__(self, name: str, value: object) -> None:
        self.name, self.value = name, value

    @hookimpl
    def evaluate(self, run: Run, qrels: Qrels) -> dict[str, object]:
        return {self.name: self.value}


CASE: tuple[Run, Qrels] = {"q": {"p": 1.0}}, {"q": {"p": 1}}


def evaluated(observer: object) -> Evaluation:
    """The metrics of a run with the reference's and an observer's."""
    pipeline = Pipeline([], [Participant("observer", observer, "'mine' (my-package 1.0)")])
    return pipeline.extended(Participant("metrics", metrics.MetricHooks())).evaluate(*CASE)


def test_an_observers_metric_stands_beside_ours() -> None:
    figures = evaluated(Extra("depth@1", 7.0)).metrics
    assert figures["ndcg@10"] == 1.0
    assert figures["depth@1"] == 7.0


def test_of_two_metrics_of_one_name_the_reference_stays() -> None:
    found = evaluated(Extra("ndcg@10", 0.5))
    assert found.metrics["ndcg@10"] == 1.0
    assert "the plugin 'mine' (my-package 1.0) gives the metric ndcg@10, which" in found.warnings[0]


@pytest.mark.parametrize("value", [math.nan, "0.5", None, True])
def test_a_metric_that_is_not_a_number_costs_itself_and_is_reported(value: object) -> None:
    found = evaluated(Extra("depth@1", value))
    assert set(found.metrics) == set(evaluated(object()).metrics)
    assert "my-package 1.0" in found.warnings[0]
    assert "'depth@1'" in found.warnings[0]


def test_a_metric_that_cannot_take_part_is_named_in_the_report(tmp_path: Path) -> None:
    """pluggy refuses an implementation with an argument that its hook does not have."""

    class Wrong:
        @hookimpl
        def evaluate(self, run: object, judgements: object) -> dict[str, float]:
            return {"mine": 1.0}

    catalogue = Catalogue.of(wrong=Wrong(), cpu=zoo_cpu, cards=zoo_cross_encoder, direct=zoo_direct, steps=zoo_onnx)
    settings = RunSettings(model="zoo-reranker-tiny", target="cpu", batch_size=32, offline=True)
    data = DataRequest(limit=1, top_k=2, offline=True)
    found = evaluate(settings, EvaluationRequest(data=data, output=tmp_path / "out"), catalogue=catalogue)
    said = "the plugin 'wrong' takes no part: .*judgements"
    assert re.search(said, "\n".join(found.lines))
    assert re.search(said, (tmp_path / "out" / "report.json").read_text())
    assert found.ndcg_at_10 > 0


def test_an_evaluator_may_have_nothing_to_say() -> None:
    class Silent:
        @hookimpl
        def evaluate(self, run: Run, qrels: Qrels) -> None:
            return None

    found = evaluated(Silent())
    assert found.metrics["ndcg@10"] == 1.0
    assert found.warnings == ()
