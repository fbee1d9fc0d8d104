"""Whether a difference is more than chance: against published figures, and against chance itself."""

from __future__ import annotations

import random

import pytest

from zoo.statistics import Interval, bootstrap, paired_test, t_tails

pytestmark = pytest.mark.lowest

SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
"""Student's own example (Biometrika 6, 1908): hours of sleep gained with one drug over the other, by patient."""


def test_students_own_example_gives_the_published_figures() -> None:
    found = paired_test([SLEEP])
    assert found.interval is not None
    assert found.p == pytest.approx(0.002833, abs=1e-6)  # R: t.test(extra ~ group, data = sleep, paired = TRUE)
    assert found.interval == pytest.approx((0.7001142, 2.4598858), abs=1e-7)
    assert found.verdict == "better"
    assert paired_test([[-each for each in SLEEP]]).verdict == "worse"


@pytest.mark.parametrize(("freedom", "t"), [(1, 12.7062), (5, 2.5706), (10, 2.2281), (30, 2.0423), (120, 1.9799)])
def test_the_tails_are_those_of_the_table(freedom: int, t: float) -> None:
    assert t_tails(t, freedom) == pytest.approx(0.05, abs=1e-5)


def test_chance_alone_is_called_a_difference_in_one_case_of_twenty() -> None:
    source = random.Random(5)
    called = 0
    for _ in range(2000):
        groups = [[source.gauss(0, spread) for _ in range(size)] for spread, size in ((1.0, 12), (3.0, 20))]
        called += paired_test(groups).verdict != "within noise"
    assert 70 <= called <= 130  # 100 are expected, with a deviation of 10


def test_groups_count_the_same_whatever_their_size() -> None:
    assert paired_test([[1.0, 2.0, 3.0], [5.0] * 30]).difference == pytest.approx(3.5)


@pytest.mark.parametrize("groups", [[], [[]], [[0.4] * 5], [[0.4] * 20, [0.1]]])
def test_a_few_queries_tell_nothing(groups: list[list[float]]) -> None:
    found = paired_test(groups)
    assert (found.verdict, found.interval, found.p) == ("too few to tell", None, None)


def test_equal_differences_leave_no_doubt() -> None:
    assert paired_test([[0.0] * 8]).verdict == "within noise"
    assert paired_test([[0.1] * 8]).verdict == "better"


def test_a_bootstrap_gives_the_same_interval_each_time_and_holds_the_mean() -> None:
    def mean(source: random.Random) -> float:
        return sum(source.choices(SLEEP, k=len(SLEEP))) / len(SLEEP)

    found = bootstrap(mean)
    assert found == bootstrap(mean)
    assert found.low < sum(SLEEP) / len(SLEEP) < found.high
    # The deviation of the mean is 0.37, and 1.96 of it is on each side; the percentile interval of so few is a little narrower.
    assert 1.1 < found.high - found.low < 1.6


def test_an_interval_is_on_a_side_only_if_all_of_it_is() -> None:
    assert [Interval(*ends).side_of(1) for ends in ((0.2, 0.9), (1.1, 2.0), (0.9, 1.1), (1.0, 2.0))] == [-1, 1, 0, 0]
