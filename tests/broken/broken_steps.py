"""Export steps with one fault each, and the test of ``StepContract`` that is meant to find it. A model file is an array here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.api import Step
from zoo.testing.contract import StepContract

FUNCTIONS = "broken_step_functions"
"""What the steps run; a child process imports it, and it is small so that eighty of them start quickly."""
MADE = (
    "test_it_makes_a_file_that_computes_what_its_source_does",
    "test_it_leaves_its_source_as_it_was",
    "test_its_proof_sees_a_file_that_computes_something_else",
)
"""The tests that run the step."""


GOOD = Step(
    name="broken", version="1", summary="copy the file", run=f"{FUNCTIONS}:run", needs=frozenset({"a model file"}),
    reference=f"{FUNCTIONS}:reference", evaluate=f"{FUNCTIONS}:evaluate",
)  # fmt: skip


class Good:
    meant = ""
    also: tuple[str, ...] = ()
    step = GOOD


class NameWithASpace(Good):
    meant = "test_it_is_a_step_with_a_name_a_version_and_a_summary"
    step = replace(GOOD, name="bro ken")


class NoVersion(NameWithASpace):
    step = replace(GOOD, version="")


class LongSummary(NameWithASpace):
    step = replace(GOOD, summary="copy\nthe file")


class FunctionThatIsNotThere(Good):
    meant = "test_its_functions_can_be_imported"
    also = MADE
    step = replace(GOOD, run=f"{FUNCTIONS}:rnu")


class PlaceWithADot(FunctionThatIsNotThere):
    step = replace(GOOD, run=f"{FUNCTIONS}.run")


class ToleranceThatAllowsAll(Good):
    meant = "test_its_tolerance_and_space_are_positive_numbers"
    also = ("test_its_proof_sees_a_file_that_computes_something_else",)
    step = replace(GOOD, tolerance=100.0)


class NeedsWhatNobodyGives(Good):
    meant = "test_what_it_needs_can_be_had"
    also = ("test_it_makes_a_file_that_computes_what_its_source_does",)
    step = replace(GOOD, needs=frozenset({"a modle file"}))


class ModuleThatIsNotInstalled(Good):
    meant = "test_it_names_the_modules_it_needs"
    also = ("test_it_makes_a_file_that_computes_what_its_source_does",)
    step = replace(GOOD, modules={"no_such_module": "no-such-package"})


class WritesNothing(Good):
    meant = "test_it_makes_a_file_that_computes_what_its_source_does"
    also = MADE
    step = replace(GOOD, run=f"{FUNCTIONS}:writes_nothing")


class Raises(WritesNothing):
    step = replace(GOOD, run=f"{FUNCTIONS}:raises")


class ComputesSomethingElse(WritesNothing):
    also = ()
    step = replace(GOOD, run=f"{FUNCTIONS}:computes_something_else")


class WritesBesideItsSource(Good):
    meant = "test_it_leaves_its_source_as_it_was"
    step = replace(GOOD, run=f"{FUNCTIONS}:writes_beside_its_source")


class ChangesItsSource(WritesBesideItsSource):
    step = replace(GOOD, run=f"{FUNCTIONS}:changes_its_source")


class BlindProof(Good):
    meant = "test_its_proof_sees_a_file_that_computes_something_else"
    step = replace(GOOD, evaluate=f"{FUNCTIONS}:blind")


class Suite(StepContract):
    broken: Any = Good

    @pytest.fixture
    def step(self) -> Step:
        return self.broken.step  # type: ignore[no-any-return]

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        return written(tmp_path / "source", 7)

    @pytest.fixture
    def other(self, tmp_path: Path) -> Path:
        return written(tmp_path / "other", 8)


def written(folder: Path, seed: int) -> Path:
    folder.mkdir()
    (folder / "model.bin").write_bytes(np.random.default_rng(seed).normal(size=4).tobytes())
    return folder / "model.bin"


BROKEN = [found for found in list(globals().values()) if isinstance(found, type) and hasattr(found, "meant")]
for _broken in BROKEN:
    _name = f"Test{_broken.__name__}"
    globals()[_name] = type(_name, (Suite,), {"broken": _broken, "__module__": __name__})
del _broken
