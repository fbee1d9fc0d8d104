"""From a checkpoint to the file a device opens."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from zoo.pipeline import Pipeline
from zoo.resources import zoo_home
from zoo.types import Artifact, Checkpoint, ExportRequest, Precision
from zoo.weights import onnx_file

logger = logging.getLogger(__name__)


def obtain(
    pipeline: Pipeline, checkpoint: Checkpoint, task: str, recipe: tuple[str, ...], precision: Precision
) -> Artifact:
    """The file inside the checkpoint where it is what the recipe asks for, else one the ``export`` hook makes."""
    exported = onnx_file(checkpoint.folder)
    if exported and recipe == ("export",):
        return Artifact(model=exported, precision=precision, origin=f"in the checkpoint, {checkpoint.served_by}")
    artifacts = zoo_home() / "artifacts"
    artifacts.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="making-", dir=artifacts))
    request = ExportRequest(checkpoint=checkpoint, task=task, recipe=recipe, precision=precision, folder=folder)
    return pipeline.export(request)
