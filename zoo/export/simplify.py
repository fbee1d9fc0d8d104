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
from zoo.files import destination, make_folder, put_in_place
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
    place = destination(target)
    special = isinstance(place, int) or (place.exists() and not place.is_file())
    beside = Path(tempfile.gettempdir()) if isinstance(place, int) or special else place.parent
    name = target.name if isinstance(place, int) else place.name
    steps = Steps(catalogue.steps)
    steps.check_modules(("simplify",))
    exporter = DefaultExport(steps)
    needed = 2 * sum(path.stat().st_size for path in model_files(source))
    aside: Path | None = None
    try:
        make_folder(beside)
        free = shutil.disk_usage(beside).free
        if free < needed:
            raise ZooError(
                f"simplifying takes about {needed / 1e9:.2f} GB in {beside}, and {free / 1e9:.2f} GB are free"
            )
        aside = Path(tempfile.mkdtemp(prefix="zoo-partial-", dir=beside)).resolve()
        options: dict[str, str | int | bool] = {"timeout": timeout, "memory": memory, "file_name": name}
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
        files = sorted(aside.iterdir(), key=lambda path: path.name == name)  # the weights before the graph
        if len(files) > 1 and (special or place != target):
            raise ZooError(
                f"{target} (`save_name`) is not a regular file, and the weights, which are in a file of their own, are looked for "
                "beside it: name a file that is not a link"
            )
        for path in files:
            path.chmod(0o644)
            put_in_place(path, target if path.name == name else beside / path.name)
    except OSError as error:
        raise ZooError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        if aside:
            shutil.rmtree(aside, ignore_errors=True)
    return report
