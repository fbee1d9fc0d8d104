"""The hooks. Their docstrings are the plugin documentation: ``docs/plugins.md`` is generated from this file.

A plugin is a module or object named by an entry point of the group ``zoo``. Hooks whose names begin with ``zoo_`` fill the
catalogue. Five are the stages of a run: ``export``, ``preprocess``, ``infer``, ``postprocess`` and ``evaluate``.

Every run builds a fresh plugin manager that holds exactly its participants, so a stage never asks "is this my
model?". Precedence, first to last: plugins that implement stages themselves (observers), the model, the device, the
defaults. An observer that only wants to look on uses ``@hookimpl(wrapper=True)``.

An implementation takes those of a hook's arguments that it names. One of a hook that this version does not know is an error,
unless it is marked ``@hookimpl(optionalhook=True)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.registry.markers import hookspec
from zoo.types import (
    Artifact,
    BatchInfo,
    CacheFolder,
    CommandOffer,
    Device,
    Encodings,
    ExportRequest,
    Pair,
    Qrels,
    Run,
    Scores,
    Session,
    Step,
    Tensors,
)

if TYPE_CHECKING:
    from zoo.registry.architecture import ArchitectureFactory


class CatalogueSpecs:
    """Hooks that say what a plugin brings. They are called once, when something is listed or looked up."""

    @hookspec
    def zoo_models(self) -> Iterable[Path]:
        """Model cards this plugin brings: TOML files, or folders of them.

        A card's file stem is the name users type. See ``zoo.registry.card.ModelCard`` for its keys.
        """

    @hookspec
    def zoo_architectures(self) -> Mapping[str, ArchitectureFactory | str]:
        """Architectures this plugin brings, by the name that model cards use.

        Each value is a ``zoo.Architecture`` subclass, or ``"package.module:Class"`` so that it is imported when a
        run opens one. The object joins the run as a participant and implements stages. Import what is heavy inside the stages.
        """

    @hookspec
    def zoo_devices(self) -> Iterable[Device]:
        """Devices this plugin brings; see ``zoo.api.Device``.

        Making a device must be cheap and must not import its runtime: ``probe`` and ``open`` do that. A device object may carry
        stages of its own, ``@hookimpl export`` for example: it is a participant of every run on it.
        """

    @hookspec
    def zoo_steps(self) -> Iterable[Step]:
        """Export steps this plugin brings; see ``zoo.api.Step``.

        A device names steps in its recipe, whoever offers them. The step ``export`` may be offered by several plugins, each under
        an ``exporter`` name of its own.
        """

    @hookspec
    def zoo_commands(self) -> Mapping[str, CommandOffer]:
        """Commands this plugin adds to ``zoo``, by the word that follows it; see ``zoo.api.CommandOffer``.

        A name that zoo itself or another plugin has is reported as a conflict and left out.
        """

    @hookspec
    def zoo_caches(self) -> Iterable[CacheFolder]:
        """Folders below ``ZOO_HOME`` in which this plugin keeps what can be made again; ``zoo cache`` shows and empties them."""


class StageSpecs:
    """The five stages of a run."""

    @hookspec(firstresult=True)
    def export(self, request: ExportRequest) -> Artifact | None:
        """Turn a checkpoint into a model file the device can open.

        Write only inside ``request.folder``, which is empty and temporary: the runner fingerprints, caches and
        renames it. Return None to leave the work to the next participant. Raises ZooError if the checkpoint cannot be
        exported. The default does the steps named by ``request.recipe`` in their order and is asked last. Called only if there is
        something to make: not if the artifact is kept from an earlier run, and not if a model file is given that the device opens as it is.
        """

    @hookspec(firstresult=True)
    def export_check(self, request: ExportRequest) -> bool | None:
        """Say whether ``export`` will do this request, before gigabytes of weights are fetched for it.

        ``request.folder`` is not to be written to; of the checkpoint, config.json is there. Return True if this participant will do
        it, None to leave the answer to the next one, or raise NotInstalledError naming what to install. An observer that implements
        ``export`` implements this too; who answers True stands in the artifact's key. A model or a device that implements ``export``
        need not: it makes every file of its runs.
        """

    @hookspec(firstresult=True)
    def preprocess(self, pairs: Sequence[Pair]) -> Encodings | None:
        """Tokenise pairs: one encoding a pair, in order, truncated and not padded.

        Called with up to a few thousand pairs at a time, possibly from another thread than the one that opened the model.
        """

    @hookspec(firstresult=True)
    def infer(self, session: Session, inputs: Tensors, batch: BatchInfo) -> Future[Tensors] | None:
        """Start one padded batch on the device.

        ``inputs`` holds int64 arrays of shape (rows, length), named and shaped as the session wants them. Returns a
        future of the graph's outputs by name, batch first. The default is ``session.submit(inputs)``; an architecture may submit
        more than once for a batch, a shared prefix first, and may change the layout of the inputs here.
        """

    @hookspec(firstresult=True)
    def postprocess(self, outputs: Tensors, inputs: Tensors, batch: BatchInfo) -> Scores | None:
        """Turn a batch's outputs into one float32 relevance logit a row, shape (rows,); higher is more relevant.

        ``inputs`` are those of the batch, so that a mask can be read. No sigmoid: ranking is on logits, because sigmoid saturates to
        1.0 from a logit of about 16.6 in float32 and makes ties.
        """

    @hookspec
    def evaluate(self, run: Run, qrels: Qrels) -> Mapping[str, float] | None:
        """Metrics of a run, by name (``ndcg@10``), means over the evaluated queries.

        Every participant that implements this adds its metrics; two that give one name are an error. Neither argument may be changed.
        """
