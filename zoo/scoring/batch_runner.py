"""One batch through ``infer`` and ``postprocess``, with everything checked that a device or a model may return."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from zoo.errors import ClosedError, DeviceError, PluginError, ScoreError, ZooError
from zoo.registry.stages import Pipeline
from zoo.scoring.batching import (
    DEFAULT_TOKENS,
    Batch,
    Features,
    batches,
    collate,
    divided,
    padded_length,
    wanted_inputs,
)
from zoo.types import Encodings, Pair, Scores, Session, ShapeRule, Tensors


class NoSession:
    """The session of an architecture that needs none: what ``preprocess`` made is what ``postprocess`` gets."""

    shape_rule = ShapeRule(tokens=1 << 20, auto_rows=1024)
    input_names = ()
    device_seconds = None

    def submit(self, inputs: Tensors, outputs: object = None) -> Future[Tensors]:
        future: Future[Tensors] = Future()
        future.set_result(inputs)
        return future

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> NoSession:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@dataclass(frozen=True)
class BatchRunner:
    """Makes batches for ``session``, starts them, and turns their outputs into scores.

    ``rows`` None leaves rows to the session's budget of tokens, which ``tokens`` replaces if it is given.
    """

    pipeline: Pipeline
    session: Session
    rows: int | None
    features: Features = field(default_factory=Features)
    tokens: int | None = None

    @property
    def rule(self) -> ShapeRule:
        """The batches that are made."""
        rule = self.session.shape_rule
        return rule if self.tokens is None else replace(rule, tokens=self.tokens)

    def batch_tokens(self, longest: int | None) -> int:
        """About as many tokens as a batch has, if the longest pair has ``longest``."""
        rows = self.rule.rows or self.rows
        return rows * (self.rule.length or longest or 1) if rows else self.rule.tokens or DEFAULT_TOKENS

    def batches(self, encodings: Encodings) -> Iterator[Batch]:
        """The batches of ``encodings``, the longest first."""
        return batches(self._taken(encodings), self.rule, self.rows, self._input_names, self.features)

    def divided(self, encodings: Encodings) -> list[list[int]]:
        """Which encodings those batches hold, without making them."""
        return list(divided(self._taken(encodings), self.rule, self.rows))

    def batch(self, encodings: Encodings) -> Batch:
        """All of ``encodings`` as one batch, which they must fit into."""
        rule = self.rule
        length = padded_length(max(row.length for row in encodings.rows), rule)
        names = wanted_inputs(encodings, self._input_names, self.features)
        return collate(self._taken(encodings), range(len(encodings.rows)), rule, length, names)

    def _taken(self, encodings: Encodings) -> Encodings:
        """The encodings without groups if the session takes nothing that could be shared: then every row is computed whole."""
        shares = any(self.features.supplies(name) for name in self._input_names or ())
        return encodings if shares or encodings.groups is None else replace(encodings, groups=None, shared=None)

    @property
    def _input_names(self) -> Sequence[str] | None:
        return None if isinstance(self.session, NoSession) else self.session.input_names

    def start(self, batch: Batch) -> Future[Tensors]:
        """Submit ``batch``. Raises ZooError naming the device if it fails."""
        with self._device_named(batch):
            return self.pipeline.infer(self.session, batch.inputs, batch.info)

    def scores(self, batch: Batch, future: Future[Tensors]) -> Scores:
        """The scores of the rows that are pairs, in the batch's order; not yet checked to be finite. Waits for ``future``."""
        with self._device_named(batch):
            outputs = future.result()
        if problem := _problem(outputs, batch):
            raise PluginError(f"the session of {self._device} gave {problem}")
        return self.pipeline.postprocess(outputs, batch.inputs, batch.info)[: batch.info.rows]

    @contextlib.contextmanager
    def _device_named(self, batch: Batch) -> Iterator[None]:
        """A session may raise anything; what it raises is the device's fault, and neither zoo's nor the pairs'."""
        try:
            yield
        except (DeviceError, ScoreError, ClosedError, CancelledError):
            raise
        except ZooError as error:
            raise DeviceError(str(error)) from error
        except Exception as error:
            rows, length = next(iter(batch.inputs.values())).shape
            kind = type(self.session)
            raise DeviceError(
                f"{self._device} failed in a batch of {rows} rows of {length} tokens: {type(error).__name__}: {error} "
                f"({kind.__module__}.{kind.__qualname__})"
            ) from error

    @property
    def _device(self) -> str:
        owner = self.pipeline.owners.get("device", "")
        return f"the device of the plugin {owner}" if owner else "the device"


def _problem(outputs: Any, batch: Batch) -> str:
    """What is wrong with a session's outputs, or an empty string."""
    if not isinstance(outputs, Mapping) or not outputs:
        return f"{type(outputs).__name__}; it gives arrays by the outputs' names"
    rows = len(next(iter(batch.inputs.values())))
    for name, array in outputs.items():
        if not isinstance(array, np.ndarray) or array.ndim < 1:
            return f"{type(array).__name__} for the output '{name}'; an array with one row a pair is needed"
        if len(array) != rows:
            return f"{len(array)} rows of the output '{name}' for a batch of {rows}"
    return ""


def check_finite(scores: Scores, pair_of: Callable[[int], Pair]) -> None:
    """Raises ScoreError naming the pair of the first score that is NaN or infinite."""
    finite = np.isfinite(scores)
    if not finite.all():
        index = int(np.argmin(finite))
        raise ScoreError(
            f"the score of a pair is {scores[index]}. The pair: {_short(pair_of(index))}. "
            "The weights may be damaged, or the precision is too low for this model: try bf16 or fp32."
        )


def _short(pair: Pair, limit: int = 200) -> str:
    return " / ".join(repr(text if len(text) <= limit else f"{text[:limit]}...") for text in pair[:2])
