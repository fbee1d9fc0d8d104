"""A recipe, step by step: each in a process of its own, each proven against the source before the next begins."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from zoo.errors import PluginError, ZooError
from zoo.types import Artifact, ExportRequest, StepReport
from zoo_onnx.process import Job, StepError, run
from zoo_onnx.requirements import found, versions

logger = logging.getLogger("zoo.export")

EXACT = 1e-4
"""Same arithmetic in another order: a full-size export differs from torch by 1.5e-5 on scores of several units."""
HALF = 0.02
"""Ten bits of mantissa through 24 layers: 0.024 was the largest difference measured on scores that spread by 2.6."""
INT8 = 0.5
"""Catches a broken graph, nothing more: random weights of full size moved scores by 1.5 of 5, with int8 weights alone by 2.5 of 7.7.
Quality is judged on labelled data."""

TOLERANCES = {
    "export": EXACT,
    "trim": EXACT,
    "flash": EXACT,
    "fuse": EXACT,
    "simplify": EXACT,
    "half": HALF,
    "quantise": INT8,
    "quantise-unsigned": INT8,
    "compress": INT8,
}
"""Largest difference from the source's scores allowed after a step, over the largest score of the source."""


@dataclass
class Progress:
    """The file as it stands, and what was done to it."""

    work: Path
    current: Path | None
    compared_with: str
    tolerance: float = EXACT
    reports: list[StepReport] = field(default_factory=list)


def run_recipe(request: ExportRequest) -> Artifact:
    """Do ``request.recipe``; the finished files are moved into ``request.folder``. Raises ZooError."""
    work = request.folder.resolve() / "work"
    work.mkdir()
    progress = Progress(
        work, request.source, "torch, float32" if request.source is None else "the file it was made from"
    )
    if request.source is not None:
        logger.info("computing what %s gives, to compare with", request.source.name)
        run(_job("reference", request, progress, work / "reference"))
    for number, step in enumerate(request.recipe, start=1):
        logger.info("step %d of %d: %s", number, len(request.recipe), step)
        _do(step, request, progress, work / f"{number}-{step}")
    if progress.current is None or progress.current == request.source:
        if request.source is None:
            raise PluginError(f"the recipe {', '.join(request.recipe)} makes no model file")
        return _unchanged(request, progress)
    for path in progress.current.parent.iterdir():
        path.rename(request.folder / path.name)
    shutil.rmtree(work)
    return Artifact(
        model=request.folder / progress.current.name,
        precision=request.precision,
        origin="exported now",
        steps=tuple(progress.reports),
        versions=versions(),
    )


def _do(step: str, request: ExportRequest, progress: Progress, target: Path) -> None:
    """One step and its proof. A simplification that dies is left out; everything else that fails ends the export."""
    try:
        if step == "simplify" and not found("onnxsim"):
            raise StepError("onnxsim is not installed (pip install onnxsim)")
        job = _job(step, request, progress, target)
        result = run(job)
    except StepError as death:
        if step != "simplify":
            raise
        logger.warning("onnxsim gave no result: %s. Going on with the graph as it was", death)
        progress.reports.append(StepReport(name=step, seconds=0.0, peak_memory=0, skipped=str(death)))
        shutil.rmtree(target, ignore_errors=True)
        return
    for scratch in progress.work.glob(f"{target.name}-*"):
        shutil.rmtree(scratch)
    before, progress.current = progress.current, job.output
    if before is not None and before != request.source:
        shutil.rmtree(before.parent)
    progress.tolerance = max(progress.tolerance, TOLERANCES[step])
    proof = run(_job("prove", request, progress, progress.work / f"{target.name}-proof"))
    report = StepReport(
        name=step,
        seconds=result["seconds"],
        peak_memory=result["peak_memory"],
        max_abs_error=proof["max_abs_error"],
        max_rel_error=proof["max_rel_error"],
        rank_correlation=proof["rank_correlation"],
        tolerance=progress.tolerance,
        compared_with=progress.compared_with,
        pairs=proof["pairs"],
        lengths=tuple(proof["lengths"]),
        note=result.get("note", ""),
    )
    _judge(report)
    progress.reports.append(report)


def _judge(report: StepReport) -> None:
    assert report.max_abs_error is not None
    assert report.max_rel_error is not None
    found_ = (
        f"largest difference from {report.compared_with}: {report.max_abs_error:.2g} absolute, {report.max_rel_error:.2g} of the "
        f"largest score, on {report.pairs} pairs of {min(report.lengths)} to {max(report.lengths)} tokens"
    )
    remark = f"; {report.note}" if report.note else ""
    # Written so that NaN fails too.
    if not report.max_rel_error <= (report.tolerance or 0.0):
        raise ZooError(
            f"the model file after '{report.name}' does not compute what its source does: {found_}; "
            f"allowed is {report.tolerance:g}. Nothing was kept{remark}"
        )
    logger.info(
        "%s: %.0f s, %.1f GB of memory; %s (allowed %g)%s",
        report.name, report.seconds, report.peak_memory / 1e9, found_, report.tolerance, remark,
    )  # fmt: skip


def _unchanged(request: ExportRequest, progress: Progress) -> Artifact:
    """Every step was left out: the artifact is the source itself, copied, so that it is not tried again on every run."""
    from zoo.checkpoints.files import model_files

    assert request.source
    for path in model_files(request.source):
        shutil.copyfile(path, request.folder / path.name)
    shutil.rmtree(progress.work)
    return Artifact(
        model=request.folder / request.source.name,
        precision=request.precision,
        origin="as it was",
        steps=tuple(progress.reports),
        versions=versions(),
    )


def _job(kind: str, request: ExportRequest, progress: Progress, target: Path) -> Job:
    return Job(
        kind=kind,
        model=progress.current.resolve() if progress.current else None,
        checkpoint=request.checkpoint.folder.resolve() if request.checkpoint else None,
        target=target,
        reference=progress.work / "reference.npz",
        task=request.task,
        options=dict(request.options),
    )
