"""The contract of a metric, as tests. A plugin subclasses ``MetricContract`` and gives it whoever implements ``evaluate``::

class TestMyMetric(MetricContract):
    @pytest.fixture
    def metric(self):
        return my_package  # the module, or an object

It is asked for the metrics of a small run whose right order is known.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from numbers import Real
from typing import Any, TypeVar

import pytest

from zoo.api import hookimpl
from zoo.evaluation.metrics import MetricHooks
from zoo.registry.stages import Pipeline
from zoo.testing.base import Contract, given, told
from zoo.types import Qrels, Run

Number = TypeVar("Number", int, float)

RUN: Run = {
    "q1": {"p1": 3.5, "p2": 2.25, "p3": -1.0, "p4": 0.5},
    "q2": {"p1": -2.0, "p5": 4.0, "p6": 3.0},
    "q3": {"p7": 1.5, "p8": 1.25, "p9": 1.0},
    "q4": {"p2": 0.5},
}
QRELS: Qrels = {
    "q1": {"p1": 1, "p3": 2, "p4": 0},
    "q2": {"p1": 1},
    "q3": {"p8": 1, "p7": 0},
    "q4": {"p2": 1},
}
"""Four judged queries: one of graded relevance, one whose relevant passage is last, one of a single passage."""
PERFECT: Run = {
    query: {p: float(judged.get(p, 0)) - n / 100 for n, p in enumerate(sorted(RUN[query]))}
    for query, judged in QRELS.items()
}
REVERSED: Run = {query: {p: -score for p, score in scores.items()} for query, scores in PERFECT.items()}
NAME = re.compile(r"\S+")
ROUNDING = 2e-5
"""Metrics are rounded to five places, each query's and the mean."""


class MetricContract(Contract):
    """What every metric must do. Its values are means over the queries; set ``higher_is_better`` to None if neither is."""

    page = "docs/plugins.md, 'A stage for every run'"
    higher_is_better: bool | None = True

    @pytest.fixture
    def metric(self) -> object:
        """The module or object that implements ``evaluate``: override it. Raises TypeError."""
        raise TypeError("give MetricContract a fixture 'metric': the module or object that implements evaluate")

    @pytest.fixture
    def expected(self) -> Mapping[str, float] | None:
        """The right values of ``RUN`` and ``QRELS`` by an independent implementation, if you have one."""
        return None

    def values(self, metric: object, run: Run = RUN, qrels: Qrels = QRELS) -> Mapping[str, float]:
        """What it gives for a run. It gets copies."""
        pipeline = Pipeline([], [("metric under test", metric)])
        found = pipeline.evaluate(copied(run), copied(qrels))
        assert not found.warnings, told("metrics", "; ".join(found.warnings))
        return found.metrics

    def test_it_gives_finite_numbers_by_names_without_spaces(self, metric: object) -> None:
        """``evaluate`` gives finite numbers by name, such as ``ndcg@10``."""
        found: Mapping[Any, Any] = self.values(metric)
        assert found, told("at least one metric", "none")
        for name, value in found.items():
            assert isinstance(name, str) and NAME.fullmatch(name), told("a name without spaces", repr(name))
            finite = type(value) is not bool and isinstance(value, Real) and math.isfinite(value)
            assert finite, told(f"a finite number for '{name}'", repr(value))

    def test_its_names_are_its_own(self, metric: object) -> None:
        """Two that give one name are an error: zoo's own metrics have theirs."""
        taken = set(MetricHooks().evaluate(copied(RUN), copied(QRELS))) & set(self.values(metric))
        assert not taken, told("names that zoo's own metrics do not have", ", ".join(sorted(taken)))

    def test_it_changes_neither_the_run_nor_the_judgements(self, metric: object) -> None:
        """Neither argument may be changed."""
        run, qrels = copied(RUN), copied(QRELS)
        Pipeline([], [("metric under test", _Watched(metric, run, qrels))]).evaluate(RUN, QRELS)
        assert run == RUN, told("the run as it was", "another")
        assert qrels == QRELS, told("the judgements as they were", "others")

    def test_its_names_are_the_same_for_every_run(self, metric: object) -> None:
        """A report has a row for each name: the names do not depend on the run."""
        names = set(self.values(metric))
        for run in (PERFECT, REVERSED, {"q4": RUN["q4"]}):
            found = set(self.values(metric, run, {query: QRELS[query] for query in run}))
            assert found == names, told(f"{sorted(names)}", sorted(found))

    def test_it_does_not_depend_on_the_order_of_entries(self, metric: object) -> None:
        """A run is a mapping: the order of its entries means nothing."""
        wanted, found = self.values(metric), self.values(metric, backwards(RUN), backwards(QRELS))
        equal_values(found, wanted, "with entries in reverse order")

    def test_equal_scores_do_not_make_it_depend_on_that_order(self, metric: object) -> None:
        """Passages of equal score are ranked by a rule, trec_eval's for example, and not as they come."""
        tied: Run = {query: dict.fromkeys(scores, 1.0) for query, scores in RUN.items()}
        wanted, found = self.values(metric, tied), self.values(metric, backwards(tied), backwards(QRELS))
        equal_values(found, wanted, "equal scores with entries in reverse order")

    def test_it_is_a_mean_over_the_queries(self, metric: object) -> None:
        """Metrics are means over the evaluated queries."""
        whole = self.values(metric)
        single = [self.values(metric, {query: RUN[query]}, {query: QRELS[query]}) for query in RUN]
        means = {name: sum(each[name] for each in single) / len(single) for name in whole}
        equal_values(whole, means, "the mean of the queries one by one")

    def test_a_perfect_ranking_is_not_worse_than_the_reverse(self, metric: object) -> None:
        """A metric tells a good ranking from a bad one."""
        if self.higher_is_better is None:
            pytest.skip("neither is better")
        best, worst = self.values(metric, PERFECT), self.values(metric, REVERSED)
        for name in best:
            better = best[name] >= worst[name] if self.higher_is_better else best[name] <= worst[name]
            way = "no less" if self.higher_is_better else "no more"
            assert better, told(
                f"'{name}' is {way} for a perfect ranking than for its reverse, {worst[name]}", best[name]
            )

    def test_it_bears_queries_without_a_relevant_passage(self, metric: object) -> None:
        """A query may have no relevant passage, or none among its candidates."""
        qrels = {"q1": {"p1": 0}, "q2": {"elsewhere": 1}, "q3": {"p8": 1}}
        found = self.values(metric, {query: RUN[query] for query in qrels}, qrels)
        for name, value in found.items():
            assert math.isfinite(value), told(f"a finite number for '{name}'", value)

    def test_its_values_are_those_expected(self, metric: object, expected: Mapping[str, float] | None) -> None:
        """Values are those of an independent implementation."""
        equal_values(self.values(metric), given(expected, "MetricContract", "expected"), "the expected values")


class _Watched:
    """Passes one run and its judgements to a metric, so that what it does to them is seen."""

    def __init__(self, metric: object, run: Run, qrels: Qrels) -> None:
        arguments = {"run": run, "qrels": qrels}

        def evaluate(run: Run, qrels: Qrels) -> Mapping[str, float] | None:
            function = metric.evaluate  # type: ignore[attr-defined]
            names = function.__code__.co_varnames[: function.__code__.co_argcount]
            found: Mapping[str, float] = function(**{name: arguments[name] for name in names if name in arguments})
            return found

        self.evaluate = hookimpl(evaluate)


def copied(run: Mapping[str, Mapping[str, Number]]) -> dict[str, dict[str, Number]]:
    return {query: dict(scores) for query, scores in run.items()}


def backwards(run: Mapping[str, Mapping[str, Number]]) -> dict[str, dict[str, Number]]:
    """The same run, queries and passages in reverse order."""
    return {query: dict(reversed(list(scores.items()))) for query, scores in reversed(list(run.items()))}


def equal_values(found: Mapping[str, float], wanted: Mapping[str, float], what: str) -> None:
    """Raises AssertionError naming the first metric that differs by more than its rounding."""
    for name, value in wanted.items():
        assert name in found, told(f"the metric '{name}'", ", ".join(found))
        assert abs(found[name] - value) <= ROUNDING, told(f"{what}: {value:.6f} for '{name}'", f"{found[name]:.6f}")
