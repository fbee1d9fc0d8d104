"""The base class of architectures: what an opened model does in a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from zoo.errors import ScoreError, ZooError
from zoo.options import Option
from zoo.registry.markers import PROJECT, STAGES
from zoo.types import Checkpoint, CheckpointOffer, Head, Scores, Tensors

if TYPE_CHECKING:
    from zoo.registry.card import ModelCard


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What an architecture needs for a run.

    A scorer of words alone needs no files, no weights and no session: its ``checkpoint`` is then an empty folder's stand-in, no device is
    chosen, and ``infer`` gets a session whose ``submit`` gives the inputs back as the outputs.
    """

    files: tuple[str, ...] = ("config.json", "tokenizer.json")
    """Files of the checkpoint that must be there."""
    optional_files: tuple[str, ...] = ("tokenizer_config.json", "special_tokens_map.json")
    """Files that are fetched with them if the repository has them."""
    weights: bool = True
    """Whether something to compute with must be there: safetensors or an exported model."""
    session: bool = True
    """Whether a device opens an artifact for it."""


class Architecture:
    """Base class of an architecture: one object a run, opened on one checkpoint.

    A subclass implements ``preprocess`` and ``postprocess`` (and any other stage it wants to own) as methods
    marked with ``@hookimpl``. Without the mark pluggy would ignore the method and run the default instead, so a
    stage that is overridden without it raises TypeError when the class is made.

    ``card``, ``checkpoint``, ``max_length`` and ``query_max_length`` (tokens) are those of the run; ``chosen`` holds the values of
    the declared ``options`` by name, from the card's ``[options]`` and the user's choice.
    """

    requires: ClassVar[Requirements] = Requirements()
    """Files, weights and session that it needs; known before a checkpoint is fetched."""
    options: ClassVar[Sequence[Option]] = ()
    """What a card's ``[options]`` and ``--model-option`` take."""
    task: str = "text-classification"
    """The head an exporter has to produce, in optimum's words."""
    head: Head = {}
    """What the options decide of the graph; set it when the object is made."""
    optional_features: frozenset[str] = frozenset({"token_type_ids"})
    """Features that are dropped if a session does not want them; any other that is not wanted is an error."""
    supplied_inputs: Sequence[str] = ()
    """Inputs of a session that its own ``infer`` gives; a ``*`` at the end stands for anything."""

    def __init__(
        self,
        card: ModelCard,
        checkpoint: Checkpoint,
        *,
        max_length: int,
        query_max_length: int,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.card, self.checkpoint = card, checkpoint
        self.max_length, self.query_max_length = max_length, query_max_length
        self.chosen: Mapping[str, str] = dict(options or {})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for stage in STAGES:
            method = cls.__dict__.get(stage)
            if method is not None and not hasattr(method, f"{PROJECT}_impl"):
                raise TypeError(f"{cls.__qualname__}.{stage} overrides a stage and needs @zoo.hookimpl")

    @classmethod
    def offer(cls, folder: Path) -> CheckpointOffer:
        """Whether a checkpoint can be opened without a card, by its small files in ``folder``; weights are not there yet.

        Architectures whose checkpoints need settings (a template) answer no, and say what a card must give.
        """
        return CheckpointOffer(available=False)

    @classmethod
    def adapt(cls, checkpoint: Checkpoint, *, weights: bool) -> Checkpoint:
        """The checkpoint in the form that exporters know, if it is published in another; called once, before it is opened.

        ``weights`` False: only the small files are there, and only they are wanted. It writes outside ``checkpoint.folder``.
        """
        return checkpoint

    def check_length(self, positions: int) -> None:
        """Raises ZooError if ``max_length`` is more than the card allows, or more tokens than the ``positions`` that the model has."""
        limit = min(self.card.max_length, positions)
        if self.max_length > limit:
            raise ZooError(
                f"a length of {self.max_length} is more than '{self.card.name}' can read ({limit} tokens): "
                f"use a `max_length` of {limit} or less"
            )

    @staticmethod
    def one_logit(outputs: Tensors, remedy: str) -> Scores:
        """For ``postprocess``: the output ``logits`` (rows, 1), or the only one there is, as scores of shape (rows,).

        Raises ScoreError, which ends in ``remedy``, if the output has another shape.
        """
        logits = outputs.get("logits", next(iter(outputs.values())))
        if logits.ndim != 2 or logits.shape[1] != 1:
            raise ScoreError(
                f"the model gives outputs of shape {tuple(logits.shape)}; a reranker gives one logit a pair, shape (rows, 1). {remedy}"
            )
        scores: Scores = logits[:, 0].astype("float32")
        return scores

    def close(self) -> None:
        """Release what the object holds; called once, after its last stage."""

    def supplies(self, name: str) -> bool:
        """Whether the session's input ``name`` is given by this architecture's own ``infer``."""
        return any(
            name == given or (given.endswith("*") and name.startswith(given[:-1])) for given in self.supplied_inputs
        )


ArchitectureFactory = Callable[..., Architecture]
