"""Metrics with one fault each, and the test of ``MetricContract`` that is meant to find it."""

from __future__ import annotations

from typing import Any

import pytest

from zoo.api import hookimpl
from zoo.testing.contract import MetricContract

EVERYTHING = tuple(name for name in vars(MetricContract) if name.startswith("test_"))


class Good:
    """The share of queries whose first passage is relevant."""

    meant = ""
    also: tuple[str, ...] = ()
    name = "hit@1"
    expected: Any = None

    @hookimpl
    def evaluate(self, run: Any, qrels: Any) -> Any:
        return {self.name: sum(self.value(run[query], qrels[query]) for query in run) / len(run)}

    def value(self, scores: Any, judged: Any) -> float:
        return float(judged.get(self.first(scores), 0) > 0)

    def first(self, scores: Any) -> Any:
        return max(scores, key=lambda passage: (scores[passage], passage))


class GivesNothing(Good):
    meant = "test_it_gives_finite_numbers_by_names_without_spaces"

    @hookimpl
    def evaluate(self, run: Any, qrels: Any) -> Any:
        return {}


class NameWithSpaces(GivesNothing):
    name = "hits at 1"

    @hookimpl
    def evaluate(self, run: Any, qrels: Any) -> Any:
        return super().evaluate(run, qrels)


class NotANumber(Good):
    meant = "test_it_gives_finite_numbers_by_names_without_spaces"
    also = EVERYTHING

    def value(self, scores: Any, judged: Any) -> float:
        return float("nan")


class GivesText(NotANumber):
    @hookimpl
    def evaluate(self, run: Any, qrels: Any) -> Any:
        return {"hit@1": "0.5"}


class NameOfZoosOwn(Good):
    meant = "test_its_names_are_its_own"
    name = "ndcg@10"


class EmptiesTheRun(Good):
    meant = "test_it_changes_neither_the_run_nor_the_judgements"

    @hookimpl
    def evaluate(self, run: Any, qrels: Any) -> Any:
        found = super().evaluate(run, qrels)
        run.clear()
        return found


class ChangesTheJudgements(EmptiesTheRun):
    @hookimpl
    def evaluate(self, run: Any, qrels: Any) -> Any:
        for judged in qrels.values():
            judged.update({passage: int(grade > 0) for passage, grade in judged.items()})
        return super(EmptiesTheRun, self).evaluate(run, qrels)


class NamesByTheRun(Good):
    meant = "test_its_names_are_the_same_for_every_run"
    also = ("test_it_is_a_mean_over_the_queries",)

    @hookimpl
    def evaluate(self, run: Any, qrels: Any) -> Any:
        return {f"hit@1-of-{len(run)}": super().evaluate(run, qrels)["hit@1"]}


class FirstAsItComes(Good):
    meant = "test_it_does_not_depend_on_the_order_of_entries"
    also = ("test_equal_scores_do_not_make_it_depend_on_that_order",)

    def first(self, scores: Any) -> Any:
        return next(iter(scores))


class TiesAsTheyCome(Good):
    meant = "test_equal_scores_do_not_make_it_depend_on_that_order"

    def first(self, scores: Any) -> Any:
        return max(scores, key=scores.get)


class SumInPlaceOfMean(Good):
    meant = "test_it_is_a_mean_over_the_queries"

    @hookimpl
    def evaluate(self, run: Any, qrels: Any) -> Any:
        return {"hits": sum(self.value(run[query], qrels[query]) for query in run)}


class WorstPassageFirst(Good):
    meant = "test_a_perfect_ranking_is_not_worse_than_the_reverse"

    def first(self, scores: Any) -> Any:
        return min(scores, key=lambda passage: (scores[passage], passage))


class DividesByTheRelevant(Good):
    meant = "test_it_bears_queries_without_a_relevant_passage"

    def value(self, scores: Any, judged: Any) -> float:
        return super().value(scores, judged) / sum(grade > 0 for grade in judged.values())


class NotWhatIsExpected(Good):
    meant = "test_its_values_are_those_expected"
    expected = {"hit@1": 0.9}


class Suite(MetricContract):
    deadline = 30.0
    broken: Any = Good

    @pytest.fixture
    def metric(self) -> Any:
        return self.broken()

    @pytest.fixture
    def expected(self) -> Any:
        return self.broken.expected


BROKEN = [found for found in list(globals().values()) if isinstance(found, type) and hasattr(found, "meant")]
for _broken in BROKEN:
    _name = f"Test{_broken.__name__}"
    globals()[_name] = type(_name, (Suite,), {"broken": _broken, "__module__": __name__})
del _broken
