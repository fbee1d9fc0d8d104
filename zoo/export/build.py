"""From a checkpoint, or a model file, to the file a device opens: made once by the ``export`` hook, then kept.

An artifact's key is made of what it is made from (sha256 of the weights and of config.json), how (recipe, options, task), by whom
(the plugins that implement ``export``) and, where ONNX Runtime wrote the graph, of its version. The versions of torch and optimum
are recorded and are not part of the key: a file that was proven stays right, and stays usable when the export extra is gone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from zoo.checkpoints.digests import Digests
from zoo.checkpoints.files import float32_bytes, has_pickled, has_safetensors, model_files, onnx_file, weight_files
from zoo.errors import InputError, NotInstalledError, PluginError, ZooError
from zoo.export import manifest
from zoo.export import steps as recipes
from zoo.export.manifest import FileRecord, Manifest
from zoo.export.store import Entry, Store
from zoo.registry.stages import Pipeline
from zoo.types import Artifact, Checkpoint, ExportRequest, Precision

logger = logging.getLogger(__name__)

MADE_BY_RUNTIME = ("fuse", "half", "quantise", "quantise-unsigned")
"""Steps whose result holds operators of ONNX Runtime's own, which may change with its version."""

NO_PART_OF_KEY = ("timeout", "memory")


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What is wanted: ``recipe`` done to ``checkpoint``, or to the model file ``source``. ``name`` says what it is made from."""

    name: str
    recipe: tuple[str, ...]
    precision: Precision
    task: str = "text-classification"
    checkpoint: Checkpoint | None = None
    source: Path | None = None
    options: Mapping[str, str | int | bool] = field(default_factory=dict)

    @property
    def served_by(self) -> str:
        return self.checkpoint.served_by if self.checkpoint and not self.source else f"the file {self.source}"

    def inputs(self) -> list[Path]:
        """The files whose content decides what comes out."""
        if self.source:
            return model_files(self.source)
        assert self.checkpoint
        return [self.checkpoint.folder / "config.json", *weight_files(self.checkpoint.folder)]


def obtain(pipeline: Pipeline, order: BuildRequest) -> Artifact:
    """The file inside the checkpoint where it is what the recipe asks for, else the cached or newly made one."""
    folder = order.checkpoint.folder if order.checkpoint and not order.source else None
    exported = onnx_file(folder) if folder else None
    if folder is None or exported is None:
        return make(pipeline, order)
    steps = tuple(step for step in order.recipe if step != "export")
    written = _written_by_zoo(exported)
    done = tuple(step for step in written.recipe if step != "export") if written else None
    if written and (written.precision, done) == (order.precision, steps):
        steps = ()
    elif written and written.precision != "fp32":
        if not (has_safetensors(folder) or has_pickled(folder)):
            raise ZooError(
                f"{exported} was made for {written.precision} by {', '.join(written.recipe)}, and {order.precision} takes "
                f"{', '.join(order.recipe)} on this machine; to make that, {folder} needs its weights, model.safetensors"
            )
        return make(pipeline, order)  # it was made for another purpose; the weights decide
    elif set(steps) <= recipes.ONLY_FASTER:
        steps = ()  # a file that is there is run at once
    if steps and _possible(pipeline, steps, needed=bool(recipes.for_file(steps))):
        return make(pipeline, replace(order, source=exported, recipe=steps))
    origin = f"in the checkpoint, {order.served_by}"
    return Artifact(model=exported, precision=recipes.precision_made(order.recipe, order.precision), origin=origin)


def make(pipeline: Pipeline, order: BuildRequest, store: Store | None = None) -> Artifact:
    """The artifact of ``order``, from the store or made now. Two processes that ask at once make one. Raises ZooError."""
    store = store or Store()
    order = replace(order, precision=recipes.precision_made(order.recipe, order.precision))
    inputs = {path.name: path for path in order.inputs()}
    key = _key(order, {name: store.digests.of(path) for name, path in inputs.items()}, pipeline.exporters())
    if found := _usable(store.find(key)):
        return found
    with store.locked(key):
        if found := _usable(store.find(key), quiet=True):
            return found
        size = sum(path.stat().st_size for path in inputs.values())
        weights = size if order.source or not order.checkpoint else float32_bytes(order.checkpoint.folder)
        with store.filling(key, recipes.space_needed(order.recipe, weights)) as folder:
            made = _export(pipeline, order, folder, key, store.digests, inputs)
            place = store.publish(made, folder)
            logger.info("made %s in %.0f s", place, made.seconds)
            entry = Entry(key=key, folder=place, manifest=made)
    artifact = _usable(entry)
    assert artifact
    return replace(artifact, origin=f"made now from {order.served_by}")


def _export(
    pipeline: Pipeline, order: BuildRequest, folder: Path, key: str, digests: Digests, inputs: Mapping[str, Path]
) -> Manifest:
    """Have the hook fill ``folder``, and describe what it did."""
    started = time.monotonic()
    made = pipeline.export(
        ExportRequest(
            checkpoint=order.checkpoint,
            source=order.source,
            task=order.task,
            recipe=order.recipe,
            precision=order.precision,
            options=order.options,
            folder=folder,
        )
    )
    if made.model.parent != folder or not made.model.is_file():
        raise PluginError(f"export gave {made.model}, which is no file in the folder it was to write to ({folder})")
    strange = [path.name for path in folder.iterdir() if not path.is_file()]
    if strange:
        raise PluginError(f"export left {', '.join(strange)} in its folder; an artifact is made of files only")
    for path in folder.iterdir():
        path.chmod(0o644)  # onnx writes external data for its owner alone
    return Manifest(
        format=manifest.FORMAT,
        key=key,
        model=order.name,
        revision=order.checkpoint.revision if order.checkpoint else None,
        source=order.served_by,
        weights={name: FileRecord.of(path, digests) for name, path in inputs.items()},
        task=order.task,
        recipe=list(order.recipe),
        options=dict(order.options),
        precision=made.precision,
        graph=made.model.name,
        files={path.name: FileRecord.of(path, digests) for path in sorted(folder.iterdir())},
        steps=list(made.steps),
        versions={"python": platform.python_version(), **made.versions},
        machine=f"{platform.system()} {platform.machine()}",
        made_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 3),
        peak_memory=max((step.peak_memory for step in made.steps), default=0),
    )


def _usable(entry: Entry | None, *, quiet: bool = False) -> Artifact | None:
    if entry is None:
        return None
    if entry.damage or entry.manifest is None:
        if not quiet:
            logger.warning("the cached %s is damaged (%s): making it again", entry.folder, entry.damage)
        return None
    found = entry.manifest
    entry.touch()
    return Artifact(
        model=entry.folder / found.graph,
        precision=found.precision,
        origin=f"cached, made {found.made_at} from {found.source}",
        steps=tuple(found.steps),
        versions=found.versions,
    )


def _key(order: BuildRequest, digests: Mapping[str, str], exporters: Sequence[str]) -> str:
    """A readable name and 16 hexadecimal digits over everything that decides the content."""
    options = {name: value for name, value in order.options.items() if name not in NO_PART_OF_KEY}
    parts = [manifest.FORMAT, sorted(digests.items()), order.task, order.recipe, order.precision, options, exporters]
    if any(step in MADE_BY_RUNTIME for step in order.recipe):
        parts.append(_runtime_version())
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', order.name)}-{order.precision}-{digest[:16]}"


def _runtime_version() -> str:
    import onnxruntime

    return ".".join(str(onnxruntime.__version__).split(".")[:2])


def _written_by_zoo(exported: Path) -> Manifest | None:
    """The manifest beside an exported file, where ``zoo export`` wrote it."""
    try:
        return manifest.read(exported.parent)
    except InputError:
        return None


def _possible(pipeline: Pipeline, steps: tuple[str, ...], *, needed: bool) -> bool:
    try:
        pipeline.export_check(steps)
    except NotInstalledError as error:
        if needed:
            raise
        logger.info("the model file is used as it is, without %s: %s", " and ".join(steps), error)
        return False
    return True
