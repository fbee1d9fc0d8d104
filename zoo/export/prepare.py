"""``zoo export``: a checkpoint's model file for a device, into the cache and, where asked for, into a folder of its own."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from zoo import precision as precisions
from zoo.checkpoints.files import TOKENIZER_PATTERNS, has_pickled, has_safetensors, onnx_file
from zoo.checkpoints.sources import Requirements, find_checkpoint
from zoo.errors import ZooError
from zoo.export import build
from zoo.export import steps as recipes
from zoo.export.build import BuildRequest
from zoo.registry.catalogue import Catalogue
from zoo.registry.stages import Pipeline
from zoo.reranker import check_exporter, choose_precision
from zoo.settings import PrecisionChoice
from zoo.types import Artifact, Checkpoint, Device, Precision

logger = logging.getLogger(__name__)

GRAPHS = {"none": ((), {}), "O1": ((), {"optimize": "O1"}), "O2": (("fuse",), {})}
"""``--optimize``: the steps it stands for, and what optimum is told. Optimum's O2 and the step fuse make the same graph."""


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What a user asked for. ``shapes`` are those of the trace, as optimum names them; ``optimize`` None is the device's own recipe."""

    model: str
    config_path: Path | None = None
    output: Path | None = None
    target: str | None = None
    precision: PrecisionChoice | None = None
    optimize: str | None = None
    shapes: Mapping[str, str | int | bool] = field(default_factory=dict)
    offline: bool = False
    allow_pickle: bool = False


def export(catalogue: Catalogue, settings: ExportSettings) -> Artifact:
    """The model file, made or found in the cache. The device need not be here. Raises ZooError."""
    card = catalogue.card(settings.model)
    architecture = catalogue.architecture(card.architecture)
    device = catalogue.device(settings.target.partition(":")[0]) if settings.target else catalogue.default_device()
    precision = (
        precisions.exact(device) if settings.precision == "auto" else choose_precision(device, settings.precision)
    )
    recipe, options = _recipe(device, precision, settings)
    recipes.check(recipe)
    if settings.output is not None:
        _check_output(settings.output)
    if settings.config_path is None:  # before gigabytes are fetched
        check_exporter(catalogue, device, architecture, recipe)

    want = Requirements(weights=True, offline=settings.offline, pickled=settings.allow_pickle)
    checkpoint = find_checkpoint(card, want, settings.config_path)
    if settings.precision == "auto":
        precision, reason = precisions.choose(card.name, checkpoint, device)
        logger.info("precision: %s", reason)
        recipe, options = _recipe(device, precision, settings)
        recipes.check(recipe)
    length = min(512, card.max_length)
    model = architecture(card, checkpoint, max_length=length, query_max_length=length)
    pipeline = Pipeline.of(catalogue, device, model)
    order = BuildRequest(
        name=settings.model, checkpoint=checkpoint, task=model.task, recipe=recipe, precision=precision, options=options
    )
    order = order if _has_weights(checkpoint.folder, settings) else _from_file(order, checkpoint)
    check_exporter(catalogue, device, architecture, order.recipe)
    artifact = build.make(pipeline, order)
    return _copy(artifact, checkpoint, settings.output) if settings.output else artifact


def _recipe(
    device: Device, precision: Precision, settings: ExportSettings
) -> tuple[tuple[str, ...], dict[str, str | int | bool]]:
    recipe, options = device.recipe(precision), dict(settings.shapes)
    if settings.optimize is not None:
        steps, told = GRAPHS[settings.optimize]
        recipe = ("export", *steps, *(step for step in recipe if step in recipes.CHANGES_PRECISION))
        options |= told
    return recipe, options


def _has_weights(folder: Path, settings: ExportSettings) -> bool:
    return has_safetensors(folder) or (settings.allow_pickle and has_pickled(folder))


def _from_file(order: BuildRequest, checkpoint: Checkpoint) -> BuildRequest:
    """The same from the model file inside the checkpoint, which has no weights of its own."""
    steps = tuple(step for step in order.recipe if step != "export")
    if not steps:
        raise ZooError(f"{checkpoint.folder} holds an exported model and no weights: there is nothing to export")
    return replace(order, source=onnx_file(checkpoint.folder), recipe=steps)


def _check_output(output: Path) -> None:
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ZooError(f"--output {output}: exists and is not an empty folder. Name a new one")


def _copy(artifact: Artifact, checkpoint: Checkpoint, output: Path) -> Artifact:
    """The artifact with the tokenizer's files beside it, so that the folder is a checkpoint to run from. It appears when it is whole."""
    files = [path for path in artifact.model.parent.iterdir() if path.is_file()]
    files += [path for name in TOKENIZER_PATTERNS if (path := checkpoint.folder / name).is_file()]
    needed = sum(path.stat().st_size for path in files)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(output.parent).free
        if free < needed:
            raise ZooError(f"--output {output} takes {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free there")
        aside = Path(tempfile.mkdtemp(prefix=f"{output.name}.partial-", dir=output.parent))
        try:
            for path in files:
                shutil.copyfile(path, aside / path.name)
            aside.chmod(0o755)
            aside.replace(output)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise ZooError(f"cannot write --output {output}: {error.strerror or error}") from error
    logger.info("copied to %s", output)
    return replace(artifact, model=output / artifact.model.name)
