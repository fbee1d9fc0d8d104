"""From a user's settings to an open run: card, device, checkpoint, artifact, session."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from zoo import precision as precisions
from zoo.checkpoints.sources import Requirements, find_checkpoint
from zoo.cpus import bound_tokenizer
from zoo.errors import NotInstalledError, ZooError
from zoo.export import build
from zoo.export import steps as recipes
from zoo.export.build import BuildRequest
from zoo.registry.card import ModelCard
from zoo.registry.catalogue import Catalogue, probe
from zoo.registry.stages import Pipeline
from zoo.scoring.scorer import Scorer
from zoo.settings import DEFAULT_LENGTH, RunSettings
from zoo.types import Artifact, Checkpoint, Device, Precision, Session, SessionOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OpenRun:
    """A model ready to score on a device, and what it was made from."""

    card: ModelCard
    device: Device
    precision: Precision
    max_length: int
    checkpoint: Checkpoint
    artifact: Artifact
    pipeline: Pipeline
    scorer: Scorer
    precision_reason: str = ""
    """Why ``--precision auto`` took this one, where that was asked for."""


@contextmanager
def open_run(catalogue: Catalogue, settings: RunSettings) -> Iterator[OpenRun]:
    """Find everything a run needs, open the session, and close it on every path out. Raises ZooError."""
    card = catalogue.card(settings.model)
    architecture = catalogue.architecture(card.architecture)
    device, selector = choose_device(catalogue, settings.target)
    precision = (
        precisions.exact(device) if settings.precision == "auto" else choose_precision(device, settings.precision)
    )
    max_length = settings.max_length or min(DEFAULT_LENGTH, card.max_length)
    if settings.ckpt is not None and not settings.ckpt.is_file():
        raise ZooError(
            f"--ckpt {settings.ckpt}: no such file. It takes an ONNX file (or an engine that '{device.name}' can load)"
        )
    if card.notice:
        logger.warning("%s", card.notice)

    recipe = device.recipe(precision)
    want = Requirements(
        weights=settings.ckpt is None,
        offline=settings.offline,
        pickled=settings.allow_pickle,
        before_download=lambda: check_exporter(catalogue, device, architecture, recipe),
    )
    checkpoint = find_checkpoint(card, want, settings.config_path)
    reason = ""
    if settings.precision == "auto":
        precision, reason = precisions.choose(card.name, checkpoint, device)
        recipe = device.recipe(precision)
        logger.info("precision: %s", reason)
    bound_tokenizer(settings.threads)
    model = architecture(card, checkpoint, max_length=max_length, query_max_length=settings.query_max_length)
    pipeline = Pipeline.of(catalogue, device, model)
    artifact = find_artifact(pipeline, checkpoint, settings, recipe, precision, model.task)
    logger.info("model: %s (%s) on %s in %s", artifact.model, artifact.origin, device.name, precision)
    options = SessionOptions(
        precision=precision,
        batch_size=settings.batch_size,
        max_length=max_length,
        threads=settings.threads,
        selector=selector,
        extra=settings.device_options,
    )
    with (
        open_session(device, artifact, options, settings.workers) as session,
        closing(Scorer(pipeline, session, settings.batch_size)) as scorer,
    ):
        yield OpenRun(
            card=card,
            device=device,
            precision=precision,
            max_length=max_length,
            checkpoint=checkpoint,
            artifact=artifact,
            pipeline=pipeline,
            scorer=scorer,
            precision_reason=reason,
        )


def open_session(device: Device, artifact: Artifact, options: SessionOptions, workers: int) -> Session:
    """A session of ``device`` in this process, or in several of its own."""
    if workers == 1:
        return device.open(artifact, options)
    from zoo.scoring.processes import Workers, open_on

    return Workers(functools.partial(open_on, device.name), artifact, options, workers)


def find_artifact(
    pipeline: Pipeline,
    checkpoint: Checkpoint,
    settings: RunSettings,
    recipe: tuple[str, ...],
    precision: Precision,
    task: str,
) -> Artifact:
    """What the device is to open: ``--ckpt`` with the steps its precision needs, else what the checkpoint gives."""
    order = BuildRequest(name=settings.model, checkpoint=checkpoint, task=task, recipe=recipe, precision=precision)
    if settings.ckpt is None:
        return build.obtain(pipeline, order)
    steps = recipes.for_file(recipe) if settings.ckpt.suffix == ".onnx" else ()
    if steps:
        return build.make(pipeline, replace(order, source=settings.ckpt.resolve(), recipe=steps))
    return Artifact(model=settings.ckpt, precision="fp32", origin="--ckpt")


def check_exporter(catalogue: Catalogue, device: Device, architecture: object, recipe: tuple[str, ...]) -> None:
    """Raises NotInstalledError where the recipe could not be done here. A device or model that exports by itself is trusted."""
    if not any(hasattr(participant, "export") for participant in (device, architecture)):
        Pipeline([("device", device)], catalogue.observers).export_check(recipe)


def choose_device(catalogue: Catalogue, target: str | None) -> tuple[Device, str]:
    """The device ``target`` names (``sdaa``, ``sdaa:1``) and the part after the colon; None is the best one available."""
    if target is None:
        return catalogue.default_device(), ""
    name, _, selector = target.partition(":")
    device = catalogue.device(name)
    available = probe(device)
    if not available.ok:
        raise NotInstalledError(
            f"the device '{device.name}' is not available here: {available.reason}. {available.remedy}".rstrip()
        )
    return device, selector


def choose_precision(device: Device, asked: Precision | None) -> Precision:
    """The precision asked for, or the device's default. What it costs is said where the device would not choose it itself."""
    if asked is None:
        return next(iter(device.precisions))
    if asked not in device.precisions:
        raise ZooError(
            f"the device '{device.name}' cannot run in {asked} here; it runs in {', '.join(device.precisions)}"
        )
    info = device.precisions[asked]
    if info.cost:
        logger.log(logging.INFO if info.offered else logging.WARNING, "%s on '%s': %s", asked, device.name, info.cost)
    return asked
