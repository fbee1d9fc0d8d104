"""Export steps with one fault each, and the test of ``StepContract`` that is meant to find it. A model file is an array here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.api import Job, Step, probes
from zoo.testing.contract import StepContract

MADE = (
    "test_it_makes_a_file_that_computes_what_its_source_does",
    "test_it_leaves_its_source_as_it_was",
    "test_its_proof_sees_a_file_that_computes_something_else",
)
"""The tests that run the step."""


def outputs(model: Path, inputs: Any) -> Any:
    weights = np.frombuffer(model.read_bytes(), dtype=np.float64)
    return [{"logits": batch["input_ids"] @ weights[:, None]} for batch in inputs]


def run(job: Job) -> dict[str, str]:
    job.output.write_bytes(job.model.read_bytes())  # type: ignore[union-attr]
    return {"note": "copied"}


def reference(job: Job) -> None:
    inputs = [{"input_ids": np.eye(4)}]
    probes.save(job.reference, inputs, outputs(job.model, inputs))  # type: ignore[arg-type]


def evaluate(job: Job, inputs: Any) -> Any:
    return outputs(job.model, inputs)  # type: ignore[arg-type]


def writes_nothing(job: Job) -> None:
    pass


def raises(job: Job) -> None:
    raise KeyError("layers")


def computes_something_else(job: Job) -> None:
    job.output.write_bytes((np.frombuffer(job.model.read_bytes()) * 1.01).tobytes())  # type: ignore[union-attr]


def writes_beside_its_source(job: Job) -> None:
    run(job)
    job.model.with_name("cache").write_text("x")  # type: ignore[union-attr]


def changes_its_source(job: Job) -> None:
    run(job)
    job.model.write_bytes(job.model.read_bytes() + bytes(8))  # type: ignore[union-attr]


def blind(job: Job, inputs: Any) -> Any:
    return probes.load(job.reference)[1]


GOOD = Step(
    name="broken", version="1", summary="copy the file", run=f"{__name__}:run", needs=frozenset({"a model file"}),
    reference=f"{__name__}:reference", evaluate=f"{__name__}:evaluate",
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
    step = replace(GOOD, run=f"{__name__}:rnu")


class PlaceWithADot(FunctionThatIsNotThere):
    step = replace(GOOD, run=f"{__name__}.run")


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
    step = replace(GOOD, run=f"{__name__}:writes_nothing")


class Raises(WritesNothing):
    step = replace(GOOD, run=f"{__name__}:raises")


class ComputesSomethingElse(WritesNothing):
    also = ()
    step = replace(GOOD, run=f"{__name__}:computes_something_else")


class WritesBesideItsSource(Good):
    meant = "test_it_leaves_its_source_as_it_was"
    step = replace(GOOD, run=f"{__name__}:writes_beside_its_source")


class ChangesItsSource(WritesBesideItsSource):
    step = replace(GOOD, run=f"{__name__}:changes_its_source")


class BlindProof(Good):
    meant = "test_its_proof_sees_a_file_that_computes_something_else"
    step = replace(GOOD, evaluate=f"{__name__}:blind")


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
