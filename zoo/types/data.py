"""What is scored, and what becomes of it: pairs -> encodings -> batches -> scores -> run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Tensors: TypeAlias = Mapping[str, NDArray[Any]]
    Scores: TypeAlias = NDArray[np.float32]
else:
    Tensors = Scores = Any  # numpy is imported by the stages that compute, never by a listing


Run: TypeAlias = Mapping[str, Mapping[str, float]]
"""query id -> passage id -> score."""
Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
"""query id -> passage id -> graded relevance."""


class Pair(NamedTuple):
    """What a reranker scores: a ``query`` and a ``passage``.

    ``instruction`` says what is asked for, to a model that reads instructions; empty means the model's own.
    """

    query: str
    passage: str
    instruction: str = ""


class Encoding(NamedTuple):
    """One pair as the model reads it: truncated, not padded.

    ``features`` maps a graph input's name to token-level integers, all of one length; ``attention_mask`` is
    left out because padding decides it. The first feature gives the pair's length.
    """

    features: Mapping[str, Sequence[int]]
    passage_truncated: bool = False
    """Whether text of the passage was cut off, at the length limit of the pair."""
    query_truncated: bool = False
    """Whether text of the query was cut off, at its own length limit."""
    unknown: int = 0
    """Tokens that stand for text which the vocabulary does not know."""

    @property
    def length(self) -> int:
        """Tokens, special tokens included."""
        return len(next(iter(self.features.values())))


@dataclass(frozen=True)
class Encodings:
    """Encodings in the order of their pairs, with the value that pads each feature.

    ``padding_side`` is where a row shorter than its batch is filled. ``groups`` numbers the query of each row, for an architecture
    that computes the leading tokens of one query's rows once; ``shared`` counts these leading tokens, row by row. Rows of one group
    stay together in a batch as far as its size allows, and batching counts their shared tokens once.
    """

    rows: Sequence[Encoding]
    padding: Mapping[str, int]
    padding_side: Literal["right", "left"] = "right"
    groups: Sequence[int] | None = None
    shared: Sequence[int] | None = None


@dataclass(frozen=True, kw_only=True)
class BatchInfo:
    """What a stage may want to know of a padded batch beside its arrays.

    ``rows`` counts the rows that are pairs; rows after them only fill a fixed shape. ``groups`` and ``shared`` are those of
    ``Encodings``, for these rows, or None. ``padding_side`` is where shorter rows were filled.
    """

    rows: int
    tokens: int
    """Real tokens of the rows that are pairs."""
    padding_side: Literal["right", "left"] = "right"
    groups: tuple[int, ...] | None = None
    shared: tuple[int, ...] | None = None
