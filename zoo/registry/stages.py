"""One model on one device: a typed facade over the hooks of one run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from numbers import Real
from typing import TYPE_CHECKING, Any

import pluggy

from zoo.errors import PluginError, ScoreError
from zoo.export import steps as recipes
from zoo.registry.hookspecs import PROJECT, StageSpecs, hookimpl
from zoo.types import Artifact, Encodings, ExportRequest, Pair, Qrels, Run, Scores, Session, Tensors

if TYPE_CHECKING:
    from zoo.registry.catalogue import Catalogue


class Defaults:
    """The stages that are the same for nearly every model and device."""

    @hookimpl
    def infer(self, session: Session, inputs: Tensors) -> Future[Tensors]:
        return session.submit(inputs)

    @hookimpl
    def evaluate(self, run: Run, qrels: Qrels) -> Mapping[str, float]:
        from zoo.evaluation import metrics

        return metrics.evaluate(run, qrels)


class Pipeline:
    """The five stages of one run. Participants come from the least to the most particular; observers see all."""

    def __init__(
        self, participants: Iterable[tuple[str, object]], observers: Iterable[tuple[str, object]] = ()
    ) -> None:
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(StageSpecs)
        # pluggy calls the last registered first.
        for name, plugin in (("defaults", Defaults()), *participants, *observers):
            self._manager.register(plugin, name=name)
        self._hook: Any = self._manager.hook

    @classmethod
    def of(cls, catalogue: Catalogue, device: object, model: object) -> Pipeline:
        """The run of ``model`` on ``device`` with every installed observer."""
        return cls([("device", device), ("model", model)], catalogue.observers)

    def join(self, name: str, participant: object) -> None:
        """Let one more take part, before and around all who already do: a journal, a stopwatch."""
        self._manager.register(participant, name=name)
        self._manager.check_pending()

    def export(self, request: ExportRequest) -> Artifact:
        """A model file made inside ``request.folder``, by a recipe whose order makes sense."""
        recipes.check(request.recipe, from_file=request.source is not None)
        artifact: Artifact = self._answer("export", self._hook.export(request=request))
        return artifact

    def export_check(self, recipe: tuple[str, ...]) -> None:
        """Raises NotInstalledError where it is known that the recipe's steps cannot run here."""
        self._hook.export_check(recipe=recipe)

    def exporters(self) -> list[str]:
        """Names of the participants that implement ``export``, the one that is asked first in front."""
        return [implementation.plugin_name for implementation in reversed(self._hook.export.get_hookimpls())]

    def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
        """One encoding a pair, in order."""
        encodings: Encodings = self._answer("preprocess", self._hook.preprocess(pairs=pairs))
        if len(encodings.rows) != len(pairs):
            raise PluginError(f"preprocess gave {len(encodings.rows)} encodings for {len(pairs)} pairs")
        return encodings

    def infer(self, session: Session, inputs: Tensors) -> Future[Tensors]:
        """Start one batch."""
        future: Future[Tensors] = self._answer("infer", self._hook.infer(session=session, inputs=inputs))
        return future

    def postprocess(self, outputs: Tensors) -> Scores:
        """One float32 logit a row of the batch."""
        import numpy as np

        scores = np.asarray(self._answer("postprocess", self._hook.postprocess(outputs=outputs)), dtype=np.float32)
        if scores.ndim != 1:
            raise ScoreError(f"postprocess gave scores of shape {scores.shape}; one number a pair is needed")
        return scores

    def evaluate(self, run: Run, qrels: Qrels) -> Mapping[str, float]:
        """The metrics of all participants; two that give one name are an error."""
        merged: dict[str, float] = {}
        for metrics in reversed(self._hook.evaluate(run=run, qrels=qrels)):  # the defaults' metrics come first
            if not isinstance(metrics, Mapping):
                raise PluginError(f"an evaluator gave {metrics!r}; it gives metrics by name")
            clash = merged.keys() & metrics.keys()
            if clash:
                raise PluginError(f"two evaluators give the metric {', '.join(sorted(clash))}")
            for name, value in metrics.items():
                if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
                    raise PluginError(f"an evaluator gave {value!r} for the metric '{name}'; a finite number is needed")
            merged.update(metrics)
        return merged

    def _answer(self, stage: str, result: Any) -> Any:
        if result is None:
            names = ", ".join(name for name, _ in self._manager.list_name_plugin())
            raise PluginError(f"nobody answered the hook '{stage}' (participants: {names})")
        return result
