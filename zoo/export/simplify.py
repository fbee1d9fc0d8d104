"""``zoo simplify``: any ONNX file through the step ``simplify``, outside the cache."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

from zoo.checkpoints.files import model_files
from zoo.errors import ZooError
from zoo.export.run_steps import DefaultExport
from zoo.export.steps import Steps
from zoo.registry.catalogue import Catalogue
from zoo.types import ExportRequest, StepReport

logger = logging.getLogger(__name__)


def simplify(
    catalogue: Catalogue, source: Path, target: Path, *, external_data: bool, timeout: int, memory: int
) -> StepReport:
    """Write the simplified, proven graph to ``target``; ``timeout`` in seconds, ``memory`` in bytes.

    Raises ZooError, and writes nothing then.
    """
    if not source.is_file():
        raise ZooError(f"there is no model file {source}")
    if target.is_dir():
        raise ZooError(f"{target} (`save_name`) is a folder; it must be the name of a file")
    steps = Steps(catalogue.steps)
    steps.check_modules(("simplify",))
    exporter = DefaultExport(steps)
    needed = 2 * sum(path.stat().st_size for path in model_files(source))
    aside: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(target.parent).free
        if free < needed:
            raise ZooError(
                f"simplifying takes about {needed / 1e9:.2f} GB beside {target}, and {free / 1e9:.2f} GB are free"
            )
        aside = Path(tempfile.mkdtemp(prefix=f"{target.name}.partial-", dir=target.parent)).resolve()
        options: dict[str, str | int | bool] = {"timeout": timeout, "memory": memory, "file_name": target.name}
        if external_data:
            options["external_data"] = True
        made = exporter.export(
            ExportRequest(
                source=source.absolute(), recipe=("simplify",), precision="fp32", folder=aside, options=options
            )
        )
        report = made.steps[-1]
        if report.skipped:
            raise ZooError(f"{source} was not simplified: {report.skipped}. The file can be run as it is")
        for path in sorted(aside.iterdir(), key=lambda path: path.name == target.name):  # the weights before the graph
            path.chmod(0o644)
            path.replace(target.parent / path.name)
    except OSError as error:
        raise ZooError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        if aside:
            shutil.rmtree(aside, ignore_errors=True)
    return report
