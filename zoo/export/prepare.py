"""From a user's settings to everything that exists before a session is opened: card, device, checkpoint, model, artifact."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from zoo import precision as precisions
from zoo.checkpoints.files import model_files
from zoo.checkpoints.licences import name_at_first_use
from zoo.checkpoints.onnx_files import read_onnx
from zoo.checkpoints.resolve import resolve
from zoo.checkpoints.sources import CheckpointRequest, find_checkpoint
from zoo.errors import ZooError, broke_off
from zoo.export.build import Builder, BuildRequest
from zoo.export.obtain import obtain
from zoo.export.run_steps import DefaultExport
from zoo.export.steps import Steps
from zoo.registry.architecture import Architecture, ArchitectureFactory, Requirements
from zoo.registry.card import ModelCard
from zoo.registry.catalogue import Catalogue
from zoo.registry.choose import choose_device, choose_precision, device_options, model_options
from zoo.registry.participants import Participant
from zoo.registry.stages import Pipeline
from zoo.settings import DEFAULT_LENGTH, RunSettings
from zoo.types import Artifact, Checkpoint, Device, Precision

logger = logging.getLogger(__name__)
Options: TypeAlias = Mapping[str, "str | int | bool"]
RecipeOf: TypeAlias = "Callable[[Device, Precision, Checkpoint | None], tuple[str, ...]]"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A model on a device, ready to have its artifact made and opened. ``device`` is None for an architecture that needs no session."""

    card: ModelCard
    device: Device | None
    selector: str
    device_options: Mapping[str, str]
    model_options: Mapping[str, str]
    precision: Precision
    precision_reason: str
    max_length: int
    checkpoint: Checkpoint
    model: Architecture
    pipeline: Pipeline
    request: BuildRequest
    builder: Builder

    def artifact(self, ckpt: Path | None = None) -> Artifact:
        """What the device is to open: ``ckpt`` with the steps its precision needs, else what the checkpoint gives."""
        if ckpt is None:
            artifact = obtain(self.builder, self.request)
            # What came with the checkpoint has not been read yet; steps prove what they make.
            if artifact.model.suffix == ".onnx" and not artifact.steps:
                read_onnx(artifact.model)
            return artifact
        if ckpt.suffix == ".onnx":
            model_files(ckpt)
        steps = self.builder.steps.for_file(self.request.recipe) if ckpt.suffix == ".onnx" else ()
        if steps:
            return self.builder.make(replace(self.request, source=ckpt.absolute(), recipe=steps))
        return Artifact(model=ckpt, precision="fp32", origin="the model file given", head=self.request.head)


class Preparation:
    """One call of ``prepare``: what is known before the checkpoint is found, and what follows from it."""

    def __init__(self, catalogue: Catalogue, settings: RunSettings, *, device_here: bool, options: Options) -> None:
        self._catalogue, self._settings, self._options = catalogue, settings, options
        named = resolve(catalogue, settings.model, offline=settings.offline)
        self.card, self._folder = named.card, settings.config_path or named.folder
        self.architecture: ArchitectureFactory = catalogue.architecture(self.card.architecture)
        self.requires: Requirements = getattr(self.architecture, "requires", Requirements())
        self.model_options = model_options(self.card, self.architecture, settings.model_options)
        self.steps = Steps(catalogue.steps)
        self.device: Device | None = None
        self.selector, self.device_options = "", dict[str, str]()
        self.precision: Precision = "fp32"
        self.max_length = settings.max_length or min(DEFAULT_LENGTH, self.card.max_length)
        if self.requires.session:
            self.device, self.selector = choose_device(catalogue, settings.target, available=device_here)
            self.device_options = device_options(self.device, self.card, settings.device_options)
            asked = settings.precision
            self.precision = precisions.exact(self.device) if asked == "auto" else choose_precision(self.device, asked)
        elif settings.target:
            logger.info("'%s' computes by itself and needs no device", self.card.name)

    def prepared(self, recipe_of: RecipeOf | None = None) -> Prepared:
        settings = self._settings
        _check_files(settings, self.device)
        if self.card.notice:
            logger.warning("%s", self.card.notice)
        name_at_first_use(self.card)
        self._recipe_of = recipe_of or _recipe_of_device
        checkpoint = find_checkpoint(
            self.card,
            CheckpointRequest(
                requires=self.requires,
                weights=self.requires.weights and settings.ckpt is None,
                offline=settings.offline,
                pickled=settings.allow_pickle,
                before_download=self._check_export,
            ),
            self._folder,
        )
        checkpoint = self._adapted(checkpoint, weights=self.requires.weights and settings.ckpt is None)
        reason = ""
        if settings.precision == "auto" and self.device:
            self.precision, reason = precisions.choose(self.card.name, checkpoint, self.device)
            logger.info("precision: %s", reason)
        model, pipeline, builder, request = self._opened(checkpoint)
        return Prepared(
            card=self.card,
            device=self.device,
            selector=self.selector,
            device_options=self.device_options,
            model_options=self.model_options,
            precision=self.precision,
            precision_reason=reason,
            max_length=self.max_length,
            checkpoint=checkpoint,
            model=model,
            pipeline=pipeline,
            request=request,
            builder=builder,
        )

    def _opened(self, checkpoint: Checkpoint) -> tuple[Architecture, Pipeline, Builder, BuildRequest]:
        model = self._architecture_of(checkpoint)
        pipeline = Pipeline.of(self._catalogue, self.device, model, self.card.architecture)
        pipeline.join(Participant("exporter", DefaultExport(self.steps)))
        recipe = self._recipe_of(self.device, self.precision, checkpoint) if self.device else ()
        request = BuildRequest(
            name=self.card.name,
            checkpoint=checkpoint,
            task=model.task,
            recipe=self.steps.named(recipe),
            precision=self.precision,
            head=model.head,
            exporter=self._settings.exporter,
            options=self._options,
        )
        return model, pipeline, Builder(pipeline, self.steps), request

    def _adapted(self, checkpoint: Checkpoint, *, weights: bool) -> Checkpoint:
        adapt = getattr(self.architecture, "adapt", Architecture.adapt)
        adapted: Checkpoint = adapt(checkpoint, weights=weights)
        return adapted

    def _architecture_of(self, checkpoint: Checkpoint) -> Architecture:
        try:
            return self.architecture(
                self.card,
                checkpoint,
                max_length=self.max_length,
                query_max_length=self._settings.query_max_length,
                **({"options": self.model_options} if self.model_options else {}),
            )
        except BaseException as error:
            if isinstance(error, ZooError | OSError) or not broke_off(error):
                raise
            raise ZooError(
                f"the architecture '{self.card.architecture}' cannot open the checkpoint {checkpoint.folder}: "
                f"{type(error).__name__}: {error}. Its files may be damaged, or those of another kind of model"
            ) from error

    def _check_export(self, folder: Path) -> None:
        """Before gigabytes are fetched: could a model file be made of them here?"""
        if self.device is None:
            return
        checkpoint = self._adapted(Checkpoint(folder=folder, served_by="the files fetched first"), weights=False)
        model, _, builder, request = self._opened(checkpoint)
        try:
            builder.check(request)
        finally:
            model.close()


def prepare(
    catalogue: Catalogue,
    settings: RunSettings,
    *,
    device_here: bool = True,
    options: Options | None = None,
    recipe_of: RecipeOf | None = None,
) -> Prepared:
    """Find everything that ``settings`` name and open the model. Raises ZooError.

    ``device_here`` False allows a device that is not on this machine; ``options`` are for the export steps; ``recipe_of`` replaces the
    device's own recipe.
    """
    return Preparation(catalogue, settings, device_here=device_here, options=options or {}).prepared(recipe_of)


def _recipe_of_device(device: Device, precision: Precision, checkpoint: Checkpoint | None) -> tuple[str, ...]:
    return device.recipe(precision, checkpoint)


def _check_files(settings: RunSettings, device: Device | None) -> None:
    if settings.ckpt is None:
        return
    if device is None:
        raise ZooError(f"the model file {settings.ckpt} (`ckpt`) cannot be used: '{settings.model}' has no model file")
    if not settings.ckpt.is_file():
        raise ZooError(
            f"there is no model file {settings.ckpt} (`ckpt`). It must be an ONNX file, or an engine that '{device.name}' can load"
        )
