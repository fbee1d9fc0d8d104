"""A checkpoint's model file for a device, into the cache and, if asked for, into a folder of its own."""

from __future__ import annotations

import filecmp
import logging
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from zoo.checkpoints.files import TOKENIZER_FILES, has_pickled, has_safetensors, onnx_file
from zoo.errors import ZooError
from zoo.export import manifest
from zoo.export.build import BuildRequest
from zoo.export.obtain import obtain
from zoo.export.prepare import Preparation
from zoo.export.steps import EXPORT
from zoo.files import reason, resolved
from zoo.registry.catalogue import Catalogue
from zoo.settings import ExportSettings
from zoo.types import Artifact, Checkpoint, Device, Precision

logger = logging.getLogger(__name__)

GRAPHS: Mapping[str, tuple[tuple[str, ...], Mapping[str, str]]] = {
    "none": ((), {}),
    "O1": ((), {"optimize": "O1"}),
    "O2": (("fuse",), {}),
}
"""Graph levels: the steps each stands for, and what optimum is told. Optimum's O2 and the step fuse make the same graph."""


def export(catalogue: Catalogue, settings: ExportSettings) -> Artifact:
    """The model file, made or found in the cache. The device need not be here. Raises ZooError."""
    if settings.output is not None:
        settings = replace(settings, output=_checked_output(settings.output))
    told = GRAPHS[settings.optimize][1] if settings.optimize else {}
    exporter = settings.exporter or ("optimum" if settings.optimize or settings.shapes else "")
    asked = replace(settings, exporter=exporter)
    preparation = Preparation(catalogue, asked, device_here=False, options={**settings.shapes, **told})

    def recipe_of(device: Device, precision: Precision, checkpoint: Checkpoint | None) -> tuple[str, ...]:
        recipe = device.recipe(precision, checkpoint)
        if settings.optimize is None:
            return recipe
        return (EXPORT, *GRAPHS[settings.optimize][0], *preparation.steps.lowering(recipe))

    prepared = preparation.prepared(recipe_of)
    with closing(prepared.model):
        if prepared.device is None:
            raise ZooError(f"'{prepared.card.name}' has no model file: there is nothing to export")
        request, folder = prepared.request, prepared.checkpoint.folder
        if not (has_safetensors(folder) or (settings.allow_pickle and has_pickled(folder))):
            request = _from_file(request, folder)
        if settings.output is None:
            return prepared.builder.make(request) if request.recipe else obtain(prepared.builder, request)
        if _is_empty(settings.output):
            artifact = prepared.builder.make(request) if request.recipe else obtain(prepared.builder, request)
            return _copy(artifact, folder, settings.output, link=settings.link)
        # An export that was killed after its folder had appeared has nothing left to do.
        kept = prepared.builder.kept(request) if request.recipe else None
        if kept is None or not _holds(settings.output, _files(kept, folder)):
            raise _not_empty(settings.output)
        logger.info("%s holds it already", settings.output)
        return _in(settings.output, kept)


def _from_file(request: BuildRequest, folder: Path) -> BuildRequest:
    """The same from the model file inside the checkpoint, which has no weights of its own."""
    steps = tuple(step for step in request.recipe if step != EXPORT)
    if not steps:
        raise ZooError(f"{folder} holds an exported model and no weights: there is nothing to export")
    return replace(request, source=onnx_file(folder), recipe=steps)


def _checked_output(output: Path) -> Path:
    """The folder to make: what a link leads to. Raises ZooError if something is there already that no export has made."""
    place = resolved(output) if output.is_symlink() else output
    if not _is_empty(place) and not (place / manifest.NAME).is_file():
        raise _not_empty(output)
    return place


def _is_empty(folder: Path) -> bool:
    """Whether nothing is there, or an empty folder."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def _not_empty(output: Path) -> ZooError:
    return ZooError(f"the folder {output} (`output`) exists and is not empty. Name a new one")


def _files(artifact: Artifact, checkpoint: Path) -> dict[str, Path]:
    """What an exported folder holds, by name: the artifact, the weights that it borrows, and the tokenizer's files."""
    folder = artifact.model if artifact.is_checkpoint else artifact.model.parent
    files = {path.name: path for path in folder.iterdir() if path.is_file()}
    files |= artifact.borrowed
    return files | {name: path for name in TOKENIZER_FILES if (path := checkpoint / name).is_file()}


def _holds(folder: Path, files: Mapping[str, Path]) -> bool:
    """Whether a folder holds these files and no others, byte for byte."""
    if {path.name for path in folder.iterdir()} != set(files):
        return False
    return all(filecmp.cmp(folder / name, path, shallow=False) for name, path in files.items())


def _in(output: Path, artifact: Artifact) -> Artifact:
    """The artifact as it is in the exported folder."""
    model = output if artifact.is_checkpoint else output / artifact.model.name
    return replace(artifact, model=model, weights_folder=None, borrowed={})


def _copy(artifact: Artifact, checkpoint: Path, output: Path, *, link: bool) -> Artifact:
    """The artifact with the tokenizer's files beside it, so that the folder is a checkpoint to run from. It appears when it is whole.

    With ``link`` it gets hard links to safetensors files, which whoever wrote them replaces rather than changes.
    """
    files = _files(artifact, checkpoint)
    linked = {
        name: path
        for name, path in files.items()
        if path.resolve().suffix == ".safetensors" or name in artifact.borrowed
    }
    linked = linked if link else {}
    needed = sum(path.stat().st_size for name, path in files.items() if name not in linked)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(output.parent).free
        if free < needed:
            raise ZooError(
                f"the folder {output} (`output`) takes {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free there"
            )
        aside = Path(tempfile.mkdtemp(prefix="zoo-partial-", dir=output.parent))
        try:
            for name, path in files.items():
                if name in linked:
                    _link(path.resolve(), aside / name)
                else:
                    shutil.copyfile(path, aside / name)
            aside.chmod(0o755)
            aside.replace(output)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise ZooError(f"cannot write {output} (`output`): {error.strerror or error}") from error
    logger.info("%s to %s", "linked" if linked else "copied", output)
    return _in(output, artifact)


def _link(path: Path, target: Path) -> None:
    try:
        target.hardlink_to(path)
    except (OSError, NotImplementedError) as error:
        said = reason(error) if isinstance(error, OSError) else "this system has no hard links"
        raise ZooError(
            f"{path} cannot be linked into another folder (`link`): {said}. Without it, the weights are copied"
        ) from error
