"""What a device is to open: the checkpoint itself, the model file that came with it, or a file that is made."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from zoo.checkpoints.files import has_pickled, has_safetensors, onnx_file
from zoo.errors import InputError, NotInstalledError, ZooError
from zoo.export import manifest
from zoo.export.build import Builder, BuildRequest
from zoo.export.steps import EXPORT
from zoo.types import Artifact

logger = logging.getLogger(__name__)


def obtain(builder: Builder, request: BuildRequest) -> Artifact:
    """The checkpoint itself for a recipe of no steps; the file inside it if that is what the recipe asks for; else a made one."""
    folder = request.checkpoint.folder if request.checkpoint and not request.source else None
    if folder is None:
        return builder.make(request)
    if not request.recipe:
        return _itself(request, folder)
    model = onnx_file(folder)
    return builder.make(request) if model is None else _ModelFile(builder, request, folder, model).artifact()


@dataclass(frozen=True)
class _ModelFile:
    """The file ``model`` that came with the checkpoint in ``folder``, held against what is asked for."""

    builder: Builder
    request: BuildRequest
    folder: Path
    model: Path

    def artifact(self) -> Artifact:
        """The file as it is, or made from it, or from the weights beside it."""
        builder, request = self.builder, self.request
        has_weights = has_safetensors(self.folder) or has_pickled(self.folder)
        written = self._written()
        if written and (unfit := self._unfit(written)):
            fault, remedy = unfit
            if not has_weights:
                raise ZooError(f"{fault}. {remedy}")
            logger.warning("%s. It is made from the weights", fault)
            return builder.make(request)
        left = self._left(written)
        if left and has_weights and _exporter_does_all(builder, request):
            return builder.make(request)
        if left and self._possible(left):
            return builder.make(replace(request, source=self.model, recipe=left))
        return Artifact(
            model=self.model,
            precision=builder.steps.precision_made(request.recipe, request.precision),
            origin=f"in the checkpoint, {request.served_by}",
            head=request.head,
        )

    def _written(self) -> manifest.Written | None:
        """The manifest beside the file, if ``zoo export`` wrote it."""
        try:
            return manifest.read_any(self.model.parent)
        except InputError:
            return None

    def _unfit(self, written: manifest.Written) -> tuple[str, str] | None:
        """Why nothing of what is asked for can be made from the file, and what to do if there are no weights."""
        if changed := self._changed():
            return (
                f"{self.model} is not as it was when it was proven: {changed}",
                "Export it again, or fetch it again from where it came from",
            )
        if written.precision == "fp32" or self._is_made(written):
            return None
        precision, recipe = self.request.precision, ", ".join(self.request.recipe)
        return (
            f"{self.model} was made for {written.precision} by {', '.join(written.recipe)}, and {precision} takes {recipe} on this machine",
            f"To make that, {self.folder} needs its weights, model.safetensors",
        )

    def _changed(self) -> str:
        """What differs between the file's folder and its manifest; one of another version of zoo is believed."""
        try:
            found = manifest.read(self.model.parent)
        except InputError:
            return ""
        return manifest.changed(found, self.model.parent, self.builder.store.digests)

    def _is_made(self, written: manifest.Written) -> bool:
        done = self._after_export(tuple(written.recipe))
        return (written.precision, done) == (self.request.precision, self._after_export(self.request.recipe))

    def _left(self, written: manifest.Written | None) -> tuple[str, ...]:
        """The steps that the file still needs. A file that is there is run at once: nothing is done to it to be faster alone."""
        steps = self._after_export(self.request.recipe)
        if (written and self._is_made(written)) or self.builder.steps.only_faster(steps):
            return ()
        return steps

    def _after_export(self, recipe: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in self.builder.steps.named(recipe) if name != EXPORT)

    def _possible(self, steps: tuple[str, ...]) -> bool:
        """Whether the packages of the steps are here. Raises NotInstalledError if the device cannot do without the steps."""
        try:
            self.builder.steps.check_modules(steps)
        except NotInstalledError as error:
            if self.builder.steps.for_file(steps):
                raise
            logger.info("the model file is used as it is, without %s: %s", " and ".join(steps), error)
            return False
        return True


def _exporter_does_all(builder: Builder, request: BuildRequest) -> bool:
    """Whether an exporter makes the whole recipe from the weights by itself: that takes no other package, and no detour."""
    try:
        steps = builder.plan(request).steps
    except ZooError:
        return False
    return len(steps) == 1 and bool(steps[0].exporter)


def _itself(request: BuildRequest, folder: Path) -> Artifact:
    if not has_safetensors(folder):
        raise ZooError(f"{folder} has no *.safetensors, and the device opens the checkpoint itself")
    return Artifact(
        model=folder,
        is_checkpoint=True,
        precision=request.precision,
        origin=f"the checkpoint, {request.served_by}",
        head=request.head,
    )
