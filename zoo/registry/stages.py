"""One model on one device: a typed facade over the hooks of one run, which checks what participants return."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import pluggy

from zoo.errors import PluginError, ScoreError, ZooError
from zoo.registry.hookspecs import CatalogueSpecs, StageSpecs
from zoo.registry.markers import PROJECT, hookimpl
from zoo.registry.participants import Participant, register
from zoo.types import (
    Artifact,
    BatchInfo,
    Encoding,
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
    from zoo.registry.architecture import Architecture
    from zoo.registry.catalogue import Catalogue
    from zoo.types import Device


class Defaults:
    """The stage that is the same for nearly every model and device."""

    @hookimpl
    def infer(self, session: Session, inputs: Tensors) -> Future[Tensors]:
        return session.submit(inputs)


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a run by name, and what kept somebody's metrics out of it."""

    metrics: Mapping[str, float]
    warnings: tuple[str, ...] = ()


class Pipeline:
    """The five stages of one run. Participants come from the least to the most particular; observers see all."""

    def __init__(
        self,
        participants: Iterable[Participant | tuple[str, object]],
        observers: Iterable[Participant | tuple[str, object]] = (),
    ) -> None:
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(StageSpecs)
        self._manager.add_hookspecs(CatalogueSpecs)  # an observer's module may implement both
        self._participants: list[Participant] = []
        # Not guarded as the others are: what a session raises is the device's fault, and whoever runs the batch names it.
        defaults = Participant("defaults", Defaults())
        self._manager.register(defaults.plugin, name=defaults.name)
        self._participants.append(defaults)
        # pluggy calls the last registered first.
        for each in (*participants, *observers):
            self.join(Participant(*each))
        self._hook: Any = self._manager.hook

    @classmethod
    def of(cls, catalogue: Catalogue, device: Device | None, model: Architecture, architecture: str) -> Pipeline:
        """The run of ``model`` on ``device`` with every installed observer."""
        on = [catalogue.device_participant(device)] if device else []
        return cls([*on, catalogue.model_participant(architecture, model)], catalogue.observers)

    def join(self, participant: Participant) -> None:
        """Let one more take part, before and around all who already do, unless its hooks say ``trylast``."""
        register(self._manager, participant)
        self._participants.append(participant)

    def extended(self, *more: Participant) -> Pipeline:
        """The same run with more participants, which this one does not get."""
        made = Pipeline(self._participants[1:])
        for each in more:
            made.join(each)
        return made

    @property
    def owners(self) -> dict[str, str]:
        """Plugin, distribution and version of everybody who takes part, by the part they have."""
        return {each.name: each.owner for each in self._participants if each.owner}

    def export(self, request: ExportRequest) -> Artifact:
        """A model file made inside ``request.folder``.

        Raises PluginError if it comes from an observer whose ``export_check`` did not say so: the artifact's key names whoever makes it.
        """
        others = self._not_announced(request)
        for participant in others:
            rest = [each.plugin for each in self._participants if each.plugin is not participant.plugin]
            if self._manager.subset_hook_caller("export", rest)(request=request) is not None:
                raise PluginError(
                    f"{participant.label} made a model file that it did not announce: an observer that implements 'export' answers "
                    "True to 'export_check' for what it will do"
                )
        call = self._manager.subset_hook_caller("export", [each.plugin for each in others])
        artifact = self._answer("export", call(request=request))
        if not isinstance(artifact, Artifact):
            raise PluginError(f"{self._by('export')} gave {artifact!r}, which is not a zoo.api.Artifact")
        return artifact

    def custom_exporter(self, request: ExportRequest) -> str:
        """The plugin that will do this request in place of the default, or an empty string.

        A model or a device that implements ``export`` is taken at its word; an observer answers ``export_check``.
        Raises NotInstalledError if one of them says that something is missing.
        """
        found = self._custom_exporter(request)
        return (found.owner or found.name) if found else ""

    def _custom_exporter(self, request: ExportRequest) -> Participant | None:
        checks = {i.plugin_name: i for i in self._hook.export_check.get_hookimpls()}
        for participant in self._implementing("export"):
            check = checks.get(participant.name)
            if check is not None:
                arguments = [request for argument in check.argnames if argument == "request"]
                if check.function(*arguments):
                    return participant
            elif participant.name in ("model", "device"):
                return participant
        return None

    def _not_announced(self, request: ExportRequest) -> list[Participant]:
        """Observers that implement ``export`` and are not the ones that make the file of this request."""
        maker = self._custom_exporter(request)
        last = {i.plugin_name for i in self._hook.export.get_hookimpls() if i.trylast}  # the default
        return [
            each
            for each in self._implementing("export")
            if each is not maker and each.name not in ("model", "device", *last)
        ]

    def _implementing(self, stage: str) -> list[Participant]:
        """Who answers a stage, in the order in which they are asked; wrappers are left out."""
        hook: pluggy.HookCaller = getattr(self._hook, stage)
        by_name = {each.name: each for each in self._participants}
        found = [i for i in reversed(hook.get_hookimpls()) if not (i.wrapper or i.hookwrapper)]
        return [by_name[implementation.plugin_name] for implementation in found]

    def _by(self, stage: str) -> str:
        """A stage and the plugins that an answer of it can come from, for messages."""
        owners = [each.label for each in self._implementing(stage) if each.owner]
        return f"{stage} of {' or '.join(owners)}" if owners else stage

    def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
        """One encoding a pair, in order."""
        encodings = self._answer("preprocess", self._hook.preprocess(pairs=pairs))
        if not isinstance(encodings, Encodings):
            raise PluginError(
                f"{self._by('preprocess')} gave {type(encodings).__name__}, which is not a zoo.api.Encodings"
            )
        if len(encodings.rows) != len(pairs):
            raise PluginError(f"{self._by('preprocess')} gave {len(encodings.rows)} encodings for {len(pairs)} pairs")
        if problem := _problem(encodings):
            raise PluginError(f"{self._by('preprocess')} gave {problem}")
        return encodings

    def infer(self, session: Session, inputs: Tensors, batch: BatchInfo) -> Future[Tensors]:
        """Start one batch."""
        future = self._answer("infer", self._hook.infer(session=session, inputs=inputs, batch=batch))
        if not hasattr(future, "add_done_callback"):
            raise PluginError(f"{self._by('infer')} gave {type(future).__name__}, which is not a future of the outputs")
        return future  # type: ignore[no-any-return]

    def postprocess(self, outputs: Tensors, inputs: Tensors, batch: BatchInfo) -> Scores:
        """One float32 logit a row of the batch, rows that only fill the shape included."""
        import numpy as np

        given = self._hook.postprocess(outputs=outputs, inputs=inputs, batch=batch)
        scores = np.asarray(self._answer("postprocess", given))
        if scores.dtype.kind != "f":
            raise ScoreError(
                f"{self._by('postprocess')} gave scores of type {scores.dtype}; floating-point numbers are needed"
            )
        rows = len(next(iter(inputs.values()))) if inputs else batch.rows
        if scores.shape not in ((rows,), (batch.rows,)):
            raise ScoreError(
                f"{self._by('postprocess')} gave scores of shape {scores.shape} for {batch.rows} pairs in {rows} rows; "
                "one a row is needed"
            )
        return scores.astype(np.float32, copy=False)

    def evaluate(self, run: Run, qrels: Qrels) -> Evaluation:
        """The metrics of all participants. One that raises, or gives a name that another gives, costs only itself."""
        merged: dict[str, float] = {}
        warnings: list[str] = []
        evaluators = [i for i in self._hook.evaluate.get_hookimpls() if not (i.wrapper or i.hookwrapper)]
        for implementation in evaluators:  # the first registered are the defaults
            others = {i.plugin for i in evaluators if i.plugin is not implementation.plugin}
            call = self._manager.subset_hook_caller("evaluate", others)
            owner = next(each for each in self._participants if each.plugin is implementation.plugin)
            try:
                # Each gets copies: pytrec_eval needs real dicts, and one that is changed must not be another's.
                found = call(run={q: dict(s) for q, s in run.items()}, qrels={q: dict(s) for q, s in qrels.items()})
                for metrics in found:
                    merged.update(_checked_metrics(metrics, merged, owner.label))
            except ZooError as error:
                if not owner.owner:
                    raise
                warnings.append(str(error))
        return Evaluation(merged, tuple(warnings))

    def _answer(self, stage: str, result: Any) -> Any:
        if result is None:
            names = ", ".join(f"{each.name} {each.owner}".rstrip() for each in self._participants)
            raise PluginError(f"nobody answered the hook '{stage}' (participants: {names})")
        return result


def _problem(encodings: Encodings) -> str:
    """What is wrong with encodings, or an empty string."""
    if not encodings.rows:
        return ""
    strange = next((row for row in encodings.rows if not isinstance(row, Encoding)), None)
    if strange is not None:
        return f"a row {strange!r:.200}, which is not a zoo.api.Encoding"
    names = set(encodings.rows[0].features)
    for name in sorted(names):
        if not hasattr(encodings.padding.get(name, 0), "__index__"):
            return f"the padding {encodings.padding[name]!r} of the feature '{name}'; an integer is needed"
    unpadded = sorted(names - set(encodings.padding))
    if unpadded or not names:
        which = f"the feature '{unpadded[0]}' is not in Encodings.padding" if unpadded else "it has no features"
        return f"an encoding that cannot be padded: {which}"
    for number, row in enumerate(encodings.rows):
        lengths = {len(ids) for ids in row.features.values()}
        if row.features.keys() != names or len(lengths) != 1:
            found = ", ".join(f"{name} {len(ids)}" for name, ids in row.features.items())
            return f"features of unequal names or lengths in row {number} ({found})"
    for name in ("groups", "shared"):
        counted = getattr(encodings, name)
        if counted is not None and len(counted) != len(encodings.rows):
            return f"{len(counted)} {name} for {len(encodings.rows)} encodings"
    return ""


def _checked_metrics(metrics: object, known: Mapping[str, float], label: str) -> Mapping[str, float]:
    if not isinstance(metrics, Mapping):
        raise PluginError(f"{label} gave {metrics!r} from evaluate; it gives metrics by name")
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise PluginError(f"{label} gave {value!r} for the metric '{name}'; a finite number is needed")
    clash = sorted(known.keys() & metrics.keys())
    if clash:
        raise PluginError(f"{label} gives the metric {', '.join(clash)}, which another evaluator gives already")
    return metrics
