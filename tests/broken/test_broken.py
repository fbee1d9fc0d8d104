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
CASES = [
    (kind, broken.__name__, broken) for kind in KINDS for broken in importlib.import_module(f"broken_{kind}").BROKEN
]


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


@pytest.fixture(scope="module")
def results() -> dict[str, Recorder]:
    """Each kind's contract on its broken plugins, run in this process when the first test asks for it."""
    return {}


def results_of(kind: str, results: dict[str, Recorder]) -> Recorder:
    if kind not in results:
        recorder = Recorder()
        options = os.environ.pop("PYTEST_ADDOPTS", None)
        try:
            arguments = ["-q", "--no-header", "--no-summary", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=line"]
            pytest.main([str(HERE / f"broken_{kind}.py"), *arguments], plugins=[recorder])
        finally:
            if options is not None:
                os.environ["PYTEST_ADDOPTS"] = options
        results[kind] = recorder
    return results[kind]


@pytest.mark.parametrize(("kind", "name", "broken"), CASES, ids=[f"{kind}-{name}" for kind, name, _ in CASES])
def test_a_broken_plugin_fails_the_test_meant_for_it_and_no_other(
    kind: str, name: str, broken: type, results: dict[str, Recorder]
) -> None:
    found = results_of(kind, results)
    failed, passed = found.failed[f"Test{name}"], found.passed[f"Test{name}"]
    assert failed or passed, "nothing was run"
    meant = {broken.meant} - {""}
    assert meant <= set(failed), f"{meant} found nothing"
    assert set(failed) <= meant | set(broken.also), {
        test: failed[test] for test in set(failed) - meant - set(broken.also)
    }


def test_there_are_sixty_and_a_sound_one_of_each_kind() -> None:
    assert sum(bool(broken.meant) for _, _, broken in CASES) >= 60
    assert {kind for kind, _, broken in CASES if not broken.meant} == set(KINDS)
