"""A recipe, step by step: each proven against the source before the next begins, and in a process of its own unless it is small."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from zoo.checkpoints.files import model_files, weight_files
from zoo.errors import PluginError, ZooError
from zoo.export.child import run_here
from zoo.export.modules import missing_packages, versions
from zoo.export.process import Job, StepError, run, run_all
from zoo.export.steps import EXPORT, Steps
from zoo.registry.markers import hookimpl
from zoo.types import Artifact, ExportRequest, Step, StepReport

logger = logging.getLogger("zoo.export")

SMALL = 64 << 20
"""Bytes of weights that a model is small with: a light step is done in the process that asks, in less time than another takes to start."""


class DefaultExport:
    """The stage ``export`` for everybody who does not replace it: the steps that plugins offer, in the recipe's order."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    @hookimpl(trylast=True)
    def export(self, request: ExportRequest) -> Artifact:
        self._steps.check(request.recipe, from_file=request.source is not None)
        plan = plan_of(self._steps, request)
        self._steps.check_modules([name for name in request.recipe if name not in plan.covered])
        return Recipe(self._steps, request, plan).run()


@dataclass(frozen=True)
class Plan:
    """The steps that are done, in order, and those of the recipe that the exporter does itself.

    ``custom`` is the plugin that makes the file in place of all steps, if there is one.
    """

    steps: tuple[Step, ...]
    covered: tuple[str, ...] = ()
    custom: str = ""

    @property
    def exporter(self) -> str:
        """Who makes the file of the checkpoint; empty if the steps start from a file."""
        return self.custom or next((step.exporter for step in self.steps if step.exporter), "")


def plan_of(steps: Steps, request: ExportRequest) -> Plan:
    """Who does what. Raises ZooError if nobody can export the checkpoint."""
    names = list(steps.named(request.recipe))
    if EXPORT not in names:
        return Plan(tuple(step for name in names if (step := steps.step(name))))
    exporter, offer = steps.exporter(request)
    names.remove(EXPORT)
    # An exporter covers steps from the front: one behind a step that it does not do is done on the file.
    covered: list[str] = []
    while names and names[0] in steps.named(offer.covers):
        covered.append(names.pop(0))
    return Plan((exporter, *(step for name in names if (step := steps.step(name)))), tuple(covered))


@dataclass
class _File:
    """The model file as it stands, and what has been done to it."""

    model: Path | None
    weights_folder: Path | None = None
    borrowed: Mapping[str, Path] = field(default_factory=dict)
    compared_with: str = ""
    tolerance: float = 0.0
    reports: list[StepReport] = field(default_factory=list)


class Recipe:
    """One run of a recipe in ``request.folder``."""

    def __init__(self, steps: Steps, request: ExportRequest, plan: Plan) -> None:
        self._steps, self._request, self._plan = steps, request, plan
        self._work = request.folder.resolve() / "work"
        self._reference = self._work / "reference.npz"
        self._file = _File(request.source)
        self._early: dict[str, dict[str, Any]] = {}

    def run(self) -> Artifact:
        """Do every step; the finished files are moved into the request's folder. Raises ZooError."""
        request, file = self._request, self._file
        self._work.mkdir()
        if request.source is not None:
            self._refer(self._plan.steps[0], "the file it was made from")
        for number, step in enumerate(self._plan.steps, start=1):
            logger.info("step %d of %d: %s", number, len(self._plan.steps), _title(step))
            self._do(step, self._work / f"{number}-{step.name}")
        if file.model is None:
            raise PluginError(f"the recipe {', '.join(request.recipe)} makes no model file")
        if file.model == request.source:
            # Every step was left out; a copy is kept, so that they are not tried again on every run.
            for path in model_files(request.source):
                shutil.copyfile(path, request.folder / path.name)
        else:
            for path in file.model.parent.iterdir():
                path.rename(request.folder / path.name)
        shutil.rmtree(self._work)
        packages = {package for step in self._plan.steps for package in step.modules.values()}
        return Artifact(
            model=request.folder / file.model.name,
            precision=request.precision,
            origin="as it was" if file.model == request.source else "exported now",
            head=request.head,
            weights_folder=file.weights_folder,
            borrowed=file.borrowed,
            steps=tuple(file.reports),
            versions=versions(sorted({*packages, "numpy", "onnxruntime", "zoo-runner"})),
        )

    def _refer(self, step: Step, compared_with: str) -> None:
        """Record what the source gives, if the step knows how."""
        if step.reference and ("reference" in self._early or not self._reference.exists()):
            logger.info("computing what the source gives, to compare with")
            answer = self._answer(step, self._reference_job(step))
            self._file.compared_with = str(answer.get("compared_with") or compared_with)

    def _do(self, step: Step, target: Path) -> None:
        """One step and its proof. One that may fail is left out if it does; everything else that fails ends the export."""
        file = self._file
        try:
            missing = missing_packages(step.modules) if step.may_fail else []
            if missing:
                raise StepError(f"{', '.join(missing)} is not installed (pip install {' '.join(missing)})")
            job = self._job(step, "run", step.run, target)
            result = self._answer(step, job)
            if not job.output.is_file():
                raise PluginError(f"{self._owner(step)} wrote no file {job.output.name}")
        except StepError as death:
            if not step.may_fail:
                raise
            logger.warning("'%s' gave no result: %s. Going on with the file as it was", step.name, death)
            file.reports.append(
                StepReport(name=step.name, version=step.version, seconds=0.0, peak_memory=0, skipped=str(death))
            )
            shutil.rmtree(target, ignore_errors=True)
            return
        for scratch in self._work.glob(f"{target.name}-*"):
            shutil.rmtree(scratch)
        before, file.model = file.model, job.output
        if before is not None and before != self._request.source:
            shutil.rmtree(before.parent)
        file.borrowed = {name: Path(path) for name, path in result.get("borrowed", {}).items()}
        file.weights_folder = Path(result["weights_folder"]) if result.get("weights_folder") else None
        file.compared_with = str(result.get("compared_with") or file.compared_with)
        if step.name == EXPORT:
            self._refer(step, "an independent computation")
        covered = [other.tolerance for name in self._plan.covered if (other := self._steps.step(name))]
        file.tolerance = max(file.tolerance, step.tolerance, *(covered if step.name == EXPORT else []))
        file.reports.append(self._proven(step, self._report(step, result), target))

    def _report(self, step: Step, result: Mapping[str, Any]) -> StepReport:
        covered = (
            f"it does {' and '.join(self._plan.covered)} itself" if step.name == EXPORT and self._plan.covered else ""
        )
        return StepReport(
            name=_title(step),
            version=step.version,
            plugin=self._steps.owner(step),
            seconds=result["seconds"],
            peak_memory=result["peak_memory"],
            note="; ".join(filter(None, [covered, result.get("note", "")])),
        )

    def _proven(self, step: Step, report: StepReport, target: Path) -> StepReport:
        """The report with the comparison in it. Raises ZooError if the file does not compute what its source does."""
        if not step.evaluate or not self._reference.exists():
            report = replace(
                report,
                note="; ".join(filter(None, [report.note, "UNPROVEN: the step brings no way to evaluate its file"])),
            )
            logger.warning("%s: %s", report.name, report.note)
            return report
        proof = self._answer(step, self._proof_job(step, target))
        report = replace(
            report,
            max_abs_error=proof["max_abs_error"],
            max_rel_error=proof["max_rel_error"],
            rank_correlation=proof["rank_correlation"],
            tolerance=self._file.tolerance,
            compared_with=self._file.compared_with,
            pairs=proof["pairs"],
            lengths=tuple(proof["lengths"]),
        )
        _judge(report)
        return report

    def _owner(self, step: Step) -> str:
        return f"the step '{step.name}' of the plugin {self._steps.owner(step)}"

    def _answer(self, step: Step, job: Job) -> dict[str, Any]:
        """The job's result. A light step's three are done at once, here if the model is small; what comes early waits to be asked for."""
        if known := self._early.pop(job.kind, None):
            return known
        checkpoint = self._request.checkpoint
        # A time limit can be kept with another process alone.
        if not (step.light and checkpoint and step.reference and step.evaluate) or "timeout" in job.options:
            return run(job)
        if sum(path.stat().st_size for path in weight_files(checkpoint.folder)) <= SMALL:
            return run_here(job)
        if job.kind != "run":
            return run(job)
        others = [
            replace(each, model=job.output) for each in (self._reference_job(step), self._proof_job(step, job.target))
        ]
        first, *rest = run_all([job, *others])
        self._early = {other.kind: result for other, result in zip(others, rest, strict=True)}
        return first

    def _reference_job(self, step: Step) -> Job:
        return self._job(step, "reference", step.reference, self._work / "reference")

    def _proof_job(self, step: Step, target: Path) -> Job:
        return self._job(step, "prove", step.evaluate, self._work / f"{target.name}-proof")

    def _job(self, step: Step, kind: Literal["run", "reference", "prove"], function: str, target: Path) -> Job:
        request, file = self._request, self._file
        return Job(
            name=step.name,
            kind=kind,
            function=function,
            model=file.model.absolute() if file.model else None,
            checkpoint=request.checkpoint.folder.absolute() if request.checkpoint else None,
            target=target,
            reference=self._reference,
            task=request.task,
            head=dict(request.head),
            options=dict(request.options),
            covered=list(self._plan.covered) if step.name == EXPORT else [],
            following=[each.name for each in self._plan.steps[self._plan.steps.index(step) + 1 :]],
            weights_folder=file.weights_folder,
        )


def _title(step: Step) -> str:
    return f"{step.name} ({step.exporter})" if step.exporter else step.name


def _judge(report: StepReport) -> None:
    assert report.max_abs_error is not None
    assert report.max_rel_error is not None
    found = (
        f"largest difference from {report.compared_with}: {report.max_abs_error:.2g} absolute, {report.max_rel_error:.2g} of the "
        f"largest score, on {report.pairs} pairs of {min(report.lengths)} to {max(report.lengths)} tokens"
    )
    remark = f"; {report.note}" if report.note else ""
    # Written so that NaN fails too.
    if not report.max_rel_error <= (report.tolerance or 0.0):
        raise ZooError(
            f"the model file after '{report.name}' does not compute what its source does: {found}; "
            f"allowed is {report.tolerance:g}. Nothing was kept{remark}"
        )
    logger.info(
        "%s: %.0f s, %.1f GB of memory; %s (allowed %g)%s",
        report.name, report.seconds, report.peak_memory / 1e9, found, report.tolerance, remark,
    )  # fmt: skip
