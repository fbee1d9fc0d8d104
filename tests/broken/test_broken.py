"""A test of the contracts: each plugin with one fault fails the test that is meant to find it, and no other.

``also`` of a broken plugin names tests that cannot pass without what it breaks.
"""

from __future__ import annotations

import importlib
import os
from collections import defaultdict
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KINDS = ("devices", "architectures", "metrics", "steps", "commands")
CASES = {
    kind: {broken.__name__: broken for broken in importlib.import_module(f"broken_{kind}").BROKEN} for kind in KINDS
}
"""The broken plugins of each kind, by name."""


class Recorder:
    """Which tests of which class failed, and why."""

    def __init__(self) -> None:
        self.failed: dict[str, dict[str, str]] = defaultdict(dict)
        self.passed: dict[str, set[str]] = defaultdict(set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        _, owner, test = report.nodeid.rsplit("::", 2)
        if report.failed:
            self.failed[owner][test] = str(report.longrepr)
        elif report.when == "call" and report.passed:
            self.passed[owner].add(test)


def results_of(kind: str) -> Recorder:
    """The contract of a kind on its broken plugins, run in this process."""
    recorder = Recorder()
    options = os.environ.pop("PYTEST_ADDOPTS", None)
    try:
        arguments = ["-q", "--no-header", "--no-summary", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=line"]
        pytest.main([str(HERE / f"broken_{kind}.py"), *arguments], plugins=[recorder])
    finally:
        if options is not None:
            os.environ["PYTEST_ADDOPTS"] = options
    return recorder


@pytest.mark.parametrize("kind", KINDS)
def test_each_broken_plugin_fails_the_test_meant_for_it_and_no_other(kind: str) -> None:
    """One test for a kind, so that workers that run tests side by side do not run all its plugins each."""
    found = results_of(kind)
    faults: dict[str, object] = {}
    for name, broken in CASES[kind].items():
        failed, passed = found.failed[f"Test{name}"], found.passed[f"Test{name}"]
        meant = {broken.meant} - {""}
        if not (failed or passed):
            faults[name] = "nothing was run"
        elif missed := meant - set(failed):
            faults[name] = f"{missed} found nothing"
        elif others := set(failed) - meant - set(broken.also):
            faults[name] = {test: failed[test] for test in others}
    assert not faults


def test_there_are_sixty_and_a_sound_one_of_each_kind() -> None:
    everything = [(kind, broken) for kind, named in CASES.items() for broken in named.values()]
    assert sum(bool(broken.meant) for _, broken in everything) >= 60
    assert {kind for kind, broken in everything if not broken.meant} == set(KINDS)
