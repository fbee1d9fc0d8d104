"""A request in the form that all dialects share: pairs to score, and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zoo.evaluation.longdoc import LongDoc
from zoo.statistics import sigmoid
from zoo.types import Pair


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a request wants scored.

    ``model`` is the name that was asked for; None is the first model. A passage longer than the model reads is truncated, or refused if
    ``truncate`` is False; ``long_doc`` is how it is scored otherwise (None: as the server is set), in ``max_chunks`` chunks at most.
    ``query_tokens``, ``passage_tokens`` and ``pair_tokens`` are limits below the model's own.
    """

    pairs: Sequence[Pair]
    model: str | None = None
    truncate: bool = True
    long_doc: LongDoc | None = None
    max_chunks: int | None = None
    query_tokens: int | None = None
    passage_tokens: int | None = None
    pair_tokens: int | None = None
    cuts_left: bool = False
    """Whether texts were to be cut at their beginning. That is not done: a text that would be cut is refused."""

    @property
    def characters(self) -> int:
        """Of all queries and passages."""
        return sum(len(pair.query) + len(pair.passage) for pair in self.pairs)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A float32 logit for each pair of a job, the name of the model that gave them, and the tokens it read."""

    logits: Sequence[float]
    model: str
    tokens: int

    def scores(self, *, raw: bool) -> list[float]:
        """The logits, or their sigmoid between 0 and 1, in the order of the pairs."""
        return list(self.logits) if raw else [sigmoid(logit) for logit in self.logits]

    def ranking(self) -> list[int]:
        """The places of the pairs, the most relevant first. By logits: their sigmoid saturates and makes ties."""
        return sorted(range(len(self.logits)), key=lambda place: -self.logits[place])
