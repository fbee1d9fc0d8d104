"""The contract of an export step, as tests. A plugin subclasses ``StepContract`` and gives it a step::

    class TestMyStep(StepContract):
        @pytest.fixture
        def step(self):
            return my_step

The step runs as in an export, in a child process, on a model file of a few kilobytes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.errors import PluginError, ZooError
from zoo.export import probes
from zoo.export.modules import missing_packages
from zoo.export.process import Job, run
from zoo.export.run_steps import DefaultExport
from zoo.export.steps import Steps
from zoo.registry.catalogue import NAME, Catalogue
from zoo.registry.participants import Offered, PluginRecord, load_object
from zoo.testing.base import Contract, told, within
from zoo.testing.toy import write_toy
from zoo.types import Artifact, ExportRequest, Step

FUNCTIONS = ("run", "reference", "evaluate")


class StepContract(Contract):
    """What every step on a model file must do. One that starts from another form overrides ``source`` and ``other``.

    ``before`` names steps that make what it needs from the source; ``others`` are steps that no installed plugin offers.
    """

    page = "docs/plugins.md, 'A step of an export'"
    before: Sequence[str] = ()
    others: Sequence[Step] = ()

    @pytest.fixture
    def step(self) -> Step:
        """The step under test: override it. Raises TypeError."""
        raise TypeError("give StepContract a fixture 'step'")

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        """The model file it starts from."""
        pytest.importorskip("onnx")
        folder = tmp_path / "source"
        folder.mkdir()
        return write_toy(folder / "toy.onnx")

    @pytest.fixture
    def other(self, tmp_path: Path) -> Path:
        """A file of the same form that computes something else."""
        pytest.importorskip("onnx")
        folder = tmp_path / "other"
        folder.mkdir()
        return write_toy(folder / "toy.onnx", seed=8)

    def known(self, step: Step) -> Steps:
        """The steps that installed plugins offer, ``others``, and the one under test."""
        offered = dict(Catalogue.installed().steps)
        own = {each.name: Offered(each, PluginRecord("under test")) for each in (*self.others, step)}
        return Steps({**offered, **own})

    def made(self, step: Step, source: Path, folder: Path) -> Artifact:
        """The artifact that an export makes of ``source`` with it. Raises ZooError."""
        folder.mkdir()
        request = ExportRequest(
            recipe=(*self.before, step.name), precision=step.lowers_to or "fp32", folder=folder, source=source
        )
        return DefaultExport(self.known(step)).export(request)

    def test_it_is_a_step_with_a_name_a_version_and_a_summary(self, step: Step) -> None:
        """A step is a ``zoo.api.Step``: a name that can be typed, a version, and one line that says what it does."""
        assert isinstance(step, Step), told("a zoo.api.Step", repr(step))
        assert NAME.fullmatch(step.name), told("a name of small letters, digits, '.', '_' and '-'", repr(step.name))
        assert step.version, told("a version", "none")
        assert step.summary and "\n" not in step.summary, told("a summary of one line", repr(step.summary))

    def test_its_functions_can_be_imported(self, step: Step) -> None:
        """``run``, ``reference`` and ``evaluate`` are written ``package.module:function``."""
        for name in FUNCTIONS:
            place = getattr(step, name)
            if not place and name != "run":
                continue
            assert place.count(":") == 1, told(f"{name} as package.module:function", repr(place))
            try:
                function = load_object(place, "the step")
            except PluginError as error:
                raise AssertionError(told(f"{name} can be imported", error)) from error
            assert callable(function), told(f"a function at '{place}'", repr(function))

    def test_its_tolerance_and_space_are_positive_numbers(self, step: Step) -> None:
        """``tolerance`` bounds the difference over the largest score, and ``space`` is a multiple of the weights."""
        assert 0 < step.tolerance <= 1 and math.isfinite(step.tolerance), told(
            "a tolerance above 0 and up to 1", step.tolerance
        )
        assert step.space > 0, told("space above 0", step.space)

    def test_what_it_needs_can_be_had(self, step: Step) -> None:
        """Every fact in ``needs`` is there at the start or given by a step before it."""
        try:
            self.known(step).check((*self.before, step.name), from_file=True)
        except PluginError as error:
            raise AssertionError(told("a recipe that can work", error)) from error

    def test_it_names_the_modules_it_needs(self, step: Step) -> None:
        """``modules`` names what it needs, so that a missing package is reported before anything is made."""
        missing = missing_packages(step.modules)
        assert not missing, told("the packages of its modules are installed, to run these tests", ", ".join(missing))

    def test_it_makes_a_file_that_computes_what_its_source_does(self, step: Step, source: Path, tmp_path: Path) -> None:
        """It writes ``job.output``, and what it makes computes what its source does, within its tolerance."""
        try:
            artifact = self.made(step, source, tmp_path / "made")
        except ZooError as error:
            raise AssertionError(told("a model file", error)) from error
        assert artifact.model.is_file(), told("a model file", "none")
        skipped = [report for report in artifact.steps if report.skipped]
        assert not skipped, told("a model file", f"left out: {skipped[0].skipped}" if skipped else "")

    def test_it_leaves_its_source_as_it_was(self, step: Step, source: Path, tmp_path: Path) -> None:
        """A step writes what is in ``job.target`` and nothing else: its source stays as it was."""
        before = digests(source.parent)
        job = self.job(step, source, tmp_path / "job")
        within(self.deadline, "the step", lambda: run(job))
        assert digests(source.parent) == before, told("the source's folder as it was", "another")

    def test_its_proof_sees_a_file_that_computes_something_else(
        self, step: Step, source: Path, other: Path, tmp_path: Path
    ) -> None:
        """``evaluate`` computes what the file gives: a wrong file does not pass for a right one."""
        if not (step.evaluate and step.reference):
            pytest.skip("it brings no way to evaluate its file and is reported as unproven")
        for name in ("job", "wrong"):
            (tmp_path / name).mkdir()
        reference = tmp_path / "job" / "reference.npz"
        run(self.job(step, source, tmp_path / "reference", "reference", step.reference, reference))
        assert reference.is_file(), told("the expected logits in job.reference", "no file")
        wrong = self.job(step, other, tmp_path / "step")
        run(wrong)
        evaluate: Any = load_object(step.evaluate, "the step")
        inputs, expected = probes.load(reference)
        proof = Job(name=step.name, target=tmp_path / "proof", reference=reference, model=wrong.output)
        outputs = within(self.deadline, "evaluate", lambda: list(evaluate(proof, inputs)))
        assert len(outputs) == len(inputs), told(f"outputs of {len(inputs)} batches", len(outputs))
        largest = max(float(np.abs(next(iter(each.values()))).max()) for each in expected)
        difference = max(
            float(np.abs(next(iter(a.values())) - next(iter(b.values()))).max())
            for a, b in zip(outputs, expected, strict=True)
        )
        assert difference > step.tolerance * largest, told(
            f"more than {step.tolerance * largest:.3g} between two files with other weights", f"{difference:.3g}"
        )

    def job(
        self,
        step: Step,
        source: Path,
        folder: Path,
        kind: Any = "run",
        function: str = "",
        reference: Path | None = None,
    ) -> Job:
        """What the child process gets; its files lie in ``folder``."""
        folder.mkdir(exist_ok=True)
        return Job(
            name=step.name,
            kind=kind,
            function=function or step.run,
            model=source,
            target=folder / "target",
            reference=reference or folder / "reference.npz",
            options={"timeout": int(self.deadline)},
        )


def digests(folder: Path) -> dict[str, str]:
    """What lies in ``folder``, by content."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
