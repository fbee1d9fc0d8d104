"""The hooks. Their docstrings are the plugin documentation: ``docs/plugins.md`` is generated from this file.

A plugin is a module or object named by an entry point of the group ``zoo``. Three hooks fill the catalogue:
``zoo_models``, ``zoo_architectures`` and ``zoo_devices``. Five are the stages of a run: ``export``, ``preprocess``,
``infer``, ``postprocess`` and ``evaluate``.

Every run builds a fresh plugin manager that holds exactly its participants, so a stage never asks "is this my
model?". Precedence, first to last: plugins that implement stages themselves (observers), the model, the device, the
defaults. A observer that only wants to look on uses ``@hookimpl(wrapper=True)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from zoo.types import (
    Artifact,
    Checkpoint,
    Device,
    Encodings,
    ExportRequest,
    Pair,
    Qrels,
    Run,
    Scores,
    Session,
    Tensors,
)

if TYPE_CHECKING:
    from zoo.registry.card import ModelCard

PROJECT = "zoo"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

STAGES = ("export", "preprocess", "infer", "postprocess", "evaluate")


class Reranker:
    """Base class of an architecture: one object a run, opened on one checkpoint.

    A subclass implements ``preprocess`` and ``postprocess`` (and any other stage it wants to own) as methods
    marked with ``@hookimpl``. Without the mark pluggy would ignore the method and run the default instead, so a
    stage that is overridden without it raises TypeError when the class is made.
    """

    task = "text-classification"
    """The head an exporter has to produce, in optimum's words."""

    def __init__(self, card: ModelCard, checkpoint: Checkpoint, *, max_length: int, query_max_length: int) -> None:
        self.card, self.checkpoint = card, checkpoint
        self.max_length, self.query_max_length = max_length, query_max_length

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for stage in STAGES:
            method = cls.__dict__.get(stage)
            if method is not None and not hasattr(method, f"{PROJECT}_impl"):
                raise TypeError(f"{cls.__qualname__}.{stage} overrides a stage and needs @zoo.hookimpl")


ArchitectureFactory = Callable[..., Reranker]


class CatalogueSpecs:
    """Hooks that say what a plugin brings. They are called once, when something is listed or looked up."""

    @hookspec
    def zoo_models(self) -> Iterable[Path]:
        """Model cards this plugin brings: TOML files, or folders of them.

        A card's file stem is the name users type. See ``zoo.registry.card.ModelCard`` for its keys.
        """

    @hookspec
    def zoo_architectures(self) -> Mapping[str, ArchitectureFactory]:
        """Architectures this plugin brings, by the name that model cards use.

        Each value is a ``zoo.Reranker`` subclass (or a callable with its constructor's signature). The object it
        returns joins the run as a participant and implements stages. Import what is heavy inside the stages.
        """

    @hookspec
    def zoo_devices(self) -> Iterable[Device]:
        """Devices this plugin brings; see ``zoo.types.Device``.

        Making a device must be cheap and must not import its runtime: ``probe`` and ``open`` do that.
        """


class StageSpecs:
    """The five stages of a run."""

    @hookspec(firstresult=True)
    def export(self, request: ExportRequest) -> Artifact | None:
        """Turn a checkpoint into a model file the device can open.

        Write only inside ``request.folder``, which is empty and temporary: the runner fingerprints, caches and
        renames it. Run the steps named by ``request.recipe`` in their order. Return None to leave the work to the
        next participant. Raises ZooError where the checkpoint cannot be exported. The bundled exporter is asked last.
        """

    @hookspec(firstresult=True)
    def export_check(self, recipe: tuple[str, ...]) -> bool | None:
        """Say whether ``export`` could run these steps here, before gigabytes of weights are fetched for it.

        Return True where it could, None to leave the answer to the next participant, or raise NotInstalledError naming
        what to install. Whoever implements ``export`` without the bundled exporter's packages implements this too.
        """

    @hookspec(firstresult=True)
    def preprocess(self, pairs: Sequence[Pair]) -> Encodings | None:
        """Tokenise pairs: one encoding a pair, in order, truncated and not padded.

        Called with up to a few thousand pairs at a time, possibly from another thread than the one that opened the model.
        """

    @hookspec(firstresult=True)
    def infer(self, session: Session, inputs: Tensors) -> Future[Tensors] | None:
        """Start one padded batch on the device.

        ``inputs`` holds int64 arrays of shape (rows, length), named and shaped as the session wants them. Returns a
        future of the graph's outputs by name, batch first. The default is ``session.submit(inputs)``.
        """

    @hookspec(firstresult=True)
    def postprocess(self, outputs: Tensors) -> Scores | None:
        """Turn a batch's outputs into one float32 relevance logit a row, shape (rows,); higher is more relevant.

        No sigmoid: ranking is on logits, because sigmoid saturates to 1.0 from a logit of about 16.6 in float32 and makes ties.
        """

    @hookspec
    def evaluate(self, run: Run, qrels: Qrels) -> Mapping[str, float] | None:
        """Metrics of a run, by name (``ndcg@10``), means over the evaluated queries.

        Every participant that implements this adds its metrics; two that give one name are an error.
        """
