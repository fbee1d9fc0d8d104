"""From a checkpoint, or a model file, to what a device opens: made once by the ``export`` hook, then kept.

An artifact's key is made of what it is made from (sha256 of the weights and of config.json), how (names and versions of the steps,
options, head) and, if a step writes operators of ONNX Runtime's own, of its minor version. The versions of torch and optimum
are recorded and are not part of the key: a file that was proven stays right, and stays usable when the export extra is gone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from zoo.checkpoints.digests import Digests
from zoo.checkpoints.files import float32_bytes, model_files, weight_files
from zoo.errors import PluginError, ZooError
from zoo.export import manifest
from zoo.export.manifest import Borrowed, FileRecord, Manifest
from zoo.export.modules import runtime_version
from zoo.export.run_steps import SMALL, Plan, plan_of
from zoo.export.steps import Steps, space_needed
from zoo.export.store import Entry, Store
from zoo.files import plain_name
from zoo.paths import temporary_home
from zoo.registry.stages import Pipeline
from zoo.types import Artifact, Checkpoint, ExportRequest, Head, Precision

logger = logging.getLogger(__name__)

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
    head: Head = field(default_factory=dict)
    exporter: str = ""
    options: Mapping[str, str | int | bool] = field(default_factory=dict)

    @property
    def served_by(self) -> str:
        return self.checkpoint.served_by if self.checkpoint and not self.source else f"the file {self.source}"

    def inputs(self) -> dict[str, Path]:
        """The files whose content decides the result, by name."""
        if self.source:
            paths = model_files(self.source)
        else:
            assert self.checkpoint
            paths = [self.checkpoint.folder / "config.json", *weight_files(self.checkpoint.folder)]
        return {path.name: path for path in paths}

    def for_hook(self, folder: Path) -> ExportRequest:
        """The same as the ``export`` hook gets it."""
        return ExportRequest(
            checkpoint=self.checkpoint, source=self.source, task=self.task, recipe=self.recipe, precision=self.precision,
            head=self.head, exporter=self.exporter, options=self.options, folder=folder,
        )  # fmt: skip


class Builder:
    """Finds artifacts in the store, or has them made."""

    def __init__(self, pipeline: Pipeline, steps: Steps, store: Store | None = None) -> None:
        self._pipeline, self.steps, self.store = pipeline, steps, store or Store()

    def make(self, request: BuildRequest) -> Artifact:
        """The artifact of ``request``, from the store or made now. Two processes that ask at once make one. Raises ZooError.

        A small one is made for this process alone if the store cannot be written to.
        """
        store = self.store
        request, plan, inputs, key = self._planned(request)
        if sum(path.stat().st_size for path in inputs.values()) <= SMALL and not store.is_writable():
            with suppress(ZooError):  # it may be closed to this user, or have been filled by another
                if found := self._usable(store.find(key), inputs):
                    return found
            store = self.store = Store(temporary_home(f"the folder {store.root} cannot be written to") / "artifacts")
        if found := self._usable(store.find(key), inputs):
            return found
        with store.locked(key):
            if found := self._usable(store.find(key), inputs, quiet=True):
                return found
            with store.filling(key, self._space(request, inputs, plan)) as folder:
                made = self._export(request, folder, key, inputs, plan.exporter)
                place = store.publish(made, folder)
                logger.info("made %s in %.0f s", place, made.seconds)
                entry = Entry(key=key, folder=place, manifest=made)
        artifact = self._usable(entry, inputs)
        if artifact is None:
            raise ZooError(f"{request.served_by} was moved while its model file was made: try again")
        return replace(artifact, origin=f"made now from {request.served_by}")

    def kept(self, request: BuildRequest) -> Artifact | None:
        """The artifact of ``request`` if the store has it. Raises ZooError if nobody could make it."""
        _, _, inputs, key = self._planned(request)
        return self._usable(self.store.find(key), inputs)

    def _planned(self, request: BuildRequest) -> tuple[BuildRequest, Plan, Mapping[str, Path], str]:
        """``request`` with today's names of steps and the precision that they make, who does it, of which files, under which key."""
        steps, digests = self.steps, self.store.digests
        precision = steps.precision_made(request.recipe, request.precision)
        request = replace(request, recipe=steps.named(request.recipe), precision=precision)
        inputs, plan = request.inputs(), self.plan(request)
        return request, plan, inputs, _key(request, {name: digests.of(path) for name, path in inputs.items()}, plan)

    def check(self, request: BuildRequest) -> None:
        """Raises ZooError if it is known already that ``make`` could not do this: before gigabytes are fetched for it."""
        plan = self.plan(request) if request.recipe else None
        if plan and not plan.custom:
            self.steps.check_modules([name for name in request.recipe if name not in plan.covered])

    def plan(self, request: BuildRequest) -> Plan:
        """Who makes the file. Raises ZooError if nobody can."""
        asked = request.for_hook(self.store.root)
        if custom := self._pipeline.custom_exporter(asked):
            return Plan((), custom=custom)
        self.steps.check(request.recipe, from_file=request.source is not None)
        return plan_of(self.steps, asked)

    def _space(self, request: BuildRequest, inputs: Mapping[str, Path], plan: Plan) -> int:
        size = sum(path.stat().st_size for path in inputs.values())
        weights = size if request.source or not request.checkpoint else float32_bytes(request.checkpoint.folder)
        return space_needed(plan.steps, weights) if plan.steps else int(1.1 * weights)

    def _export(
        self, request: BuildRequest, folder: Path, key: str, inputs: Mapping[str, Path], exporter: str
    ) -> Manifest:
        """Have the hook fill ``folder``, and describe what it did."""
        started, digests = time.monotonic(), self.store.digests
        made = self._pipeline.export(request.for_hook(folder))
        if made.model.parent != folder or not made.model.is_file():
            raise PluginError(
                f"export gave {made.model}, which is not a file in the folder it was to write to ({folder})"
            )
        strange = [path.name for path in folder.iterdir() if not path.is_file()]
        if strange:
            raise PluginError(f"export left {', '.join(strange)} in its folder; an artifact is made of files only")
        own = [path for path in sorted(folder.iterdir()) if path.name not in made.borrowed]
        borrowed = {name: _borrowed(name, path, inputs, made, digests) for name, path in made.borrowed.items()}
        for path in own:
            path.chmod(0o644)  # onnx writes external data for its owner alone
        return Manifest(
            format=manifest.FORMAT,
            key=key,
            model=request.name,
            revision=request.checkpoint.revision if request.checkpoint else None,
            source=request.served_by,
            weights={name: FileRecord.of(path, digests) for name, path in inputs.items()},
            task=request.task,
            head=dict(request.head),
            recipe=list(request.recipe),
            exporter=exporter,
            options=dict(request.options),
            plugins=self._pipeline.owners,
            precision=made.precision,
            graph=made.model.name,
            files={path.name: FileRecord.of(path, digests) for path in own},
            borrowed=borrowed,
            weights_folder=str(made.weights_folder or ""),
            steps=list(made.steps),
            versions={"python": platform.python_version(), **made.versions},
            machine=f"{platform.system()} {platform.machine()}",
            made_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - started, 3),
            peak_memory=max((step.peak_memory for step in made.steps), default=0),
        )

    def _usable(self, entry: Entry | None, inputs: Mapping[str, Path], *, quiet: bool = False) -> Artifact | None:
        if entry is None:
            return None
        if entry.damage or entry.manifest is None:
            if not quiet:
                logger.warning("the cached %s is damaged (%s): making it again", entry.folder, entry.damage)
            return None
        found = entry.manifest
        borrowed = {name: Path(weights.path) for name, weights in found.borrowed.items()}
        for name, weights in found.borrowed.items():
            if not _same_file(borrowed[name], inputs.get(weights.input)):
                logger.debug("the weights that %s was made from lie elsewhere now: making it again", entry.folder)
                return None
        if found.weights_folder and not all(
            _same_file(Path(found.weights_folder) / name, borrowed[name]) for name in found.borrowed
        ):
            logger.warning("the cached %s names weights that are not its own: making it again", entry.folder)
            return None
        entry.touch()
        return Artifact(
            model=entry.folder / found.graph,
            precision=found.precision,
            origin=f"cached, made {found.made_at} from {found.source}",
            head=found.head,
            weights_folder=Path(found.weights_folder) if found.weights_folder else None,
            borrowed=borrowed,
            steps=tuple(found.steps),
            versions=found.versions,
        )


def _borrowed(name: str, path: Path, inputs: Mapping[str, Path], made: Artifact, digests: Digests) -> Borrowed:
    """Raises PluginError if the file could change without the artifact being made again, or is another than the graph reads."""
    known = next((name for name, place in inputs.items() if _same_file(path, place)), None)
    if known is None:
        raise PluginError(
            f"export borrows weights from {path}, which is not one of the files that the model is made from ({', '.join(inputs)})"
        )
    if made.weights_folder and not _same_file(made.weights_folder / name, path):
        raise PluginError(
            f"export borrows weights from {path}, and that is not where the graph looks: {made.weights_folder}"
        )
    return Borrowed(path=str(path), size=path.stat().st_size, sha256=digests.of(path), input=known)


def _same_file(path: Path, other: Path | None) -> bool:
    try:
        return other is not None and path.samefile(other)
    except OSError:
        return False


def _key(request: BuildRequest, digests: Mapping[str, str], plan: Plan) -> str:
    """A readable name and 16 hexadecimal digits over everything that decides the content."""
    options = {name: value for name, value in request.options.items() if name not in NO_PART_OF_KEY}
    steps = [plan.custom] if plan.custom else [(step.name, step.exporter, step.version) for step in plan.steps]
    head = sorted(request.head.items())
    parts = [
        manifest.FORMAT,
        sorted(digests.items()),
        request.task,
        head,
        request.recipe,
        steps,
        request.precision,
        options,
    ]
    if any(step.runtime_ops for step in plan.steps):
        parts.append(runtime_version())
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"{plain_name(request.name)}-{request.precision}-{digest[:16]}"
