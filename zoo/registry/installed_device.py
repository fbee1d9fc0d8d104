"""A device as the catalogue hands it out: whatever it raises or gives that a device may not is an error that names its plugin."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from zoo.errors import PluginError
from zoo.options import Option
from zoo.registry.participants import naming, reason_of
from zoo.types import (
    Artifact,
    Availability,
    Checkpoint,
    Device,
    Precision,
    PrecisionInfo,
    Session,
    SessionOptions,
    ShapeRule,
)

PRECISIONS: Sequence[str] = get_args(Precision)
COUNTS = ("rows", "length", "length_multiple", "tokens", "auto_rows", "parallel_batches")
"""What a ShapeRule counts: 1 or more, or None where that is allowed."""
SESSION = ("input_names", "shape_rule", "device_seconds", "submit", "close", "__enter__", "__exit__")


class InstalledDevice:
    """A ``Device`` around the one that a plugin brings, which is ``inner``."""

    def __init__(self, inner: Device, owner: str) -> None:
        self.inner = inner
        self.name, self.aliases, self.priority = inner.name, tuple(inner.aliases), inner.priority
        self._label = f"the device '{self.name}' of the plugin {owner}"
        self.options: Sequence[Option] = tuple(inner.options)
        strange = [option for option in self.options if not isinstance(option, Option)]
        if strange:
            raise PluginError(f"{self._label} declares the option {strange[0]!r}, which is not a zoo.api.Option")

    def __getattr__(self, name: str) -> Any:
        """What a device may have beside the protocol, such as ``resource``."""
        return getattr(self.inner, name)

    @property
    def precisions(self) -> Mapping[Precision, PrecisionInfo]:
        with naming(f"{self._label} failed to list its precisions"):
            found = dict(self.inner.precisions)
        unknown = [name for name in found if name not in PRECISIONS]
        if unknown or not found:
            listed = f"lists the precision {unknown[0]!r}" if unknown else "lists no precision"
            raise PluginError(f"{self._label} {listed}; zoo knows {', '.join(PRECISIONS)}")
        return found

    def probe(self) -> Availability:
        """Never raises: a probe that breaks its promise makes the device unavailable, with the reason."""
        try:
            found: object = self.inner.probe()
        except Exception as error:  # the promise is the plugin's; a listing must not end because of it
            return Availability(ok=False, reason=f"its probe failed: {reason_of(error)}")
        if not isinstance(found, Availability):
            return Availability(ok=False, reason=f"its probe gave {found!r}, which is not a zoo.api.Availability")
        if found.ok or found.reason:
            return found
        return Availability(ok=False, reason="its probe gives no reason", remedy=found.remedy, details=found.details)

    def recipe(self, precision: Precision, checkpoint: Checkpoint | None = None) -> tuple[str, ...]:
        with naming(f"{self._label} failed to give its recipe for {precision}"):
            recipe: object = self.inner.recipe(precision, checkpoint)
        if isinstance(recipe, str) or not isinstance(recipe, Sequence) or not all(isinstance(s, str) for s in recipe):
            raise PluginError(f"{self._label} gave the recipe {recipe!r} for {precision}; it gives the names of steps")
        return tuple(recipe)

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        with naming(f"{self._label} failed to open {artifact.model}"):
            session = self.inner.open(artifact, options)
            problem = _problem(session)
        if problem:
            with contextlib.suppress(Exception):  # the error is what is wrong with it
                session.close()
            raise PluginError(f"{self._label} opened a session that {problem}")
        return session


def _problem(session: object) -> str:
    """What of ``zoo.api.Session`` an object does not keep, or an empty string."""
    lacking = [name for name in SESSION if not hasattr(session, name)]
    if lacking:
        return f"lacks {', '.join(lacking)} of zoo.api.Session: {session!r:.200}"
    rule, names = session.shape_rule, session.input_names  # type: ignore[attr-defined]
    if not isinstance(rule, ShapeRule):
        return f"has the shape_rule {rule!r:.200}, which is not a zoo.api.ShapeRule"
    wrong = [name for name in COUNTS if (count := getattr(rule, name)) is not None and count < 1]
    if wrong:
        return f"has the shape_rule.{wrong[0]} {getattr(rule, wrong[0])}; it must be 1 or more"
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        return f"has the input_names {names!r:.200}; they are the names of the graph's inputs"
    return ""
