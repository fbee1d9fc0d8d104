"""What the adapters have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.errors import ZooError
from zoo.reranker import Ranked, Reranker, Scale


def opened(reranker: Reranker | str, settings: Mapping[str, Any] | None = None) -> Reranker:
    """The reranker, opened with ``settings`` (those of ``Reranker.open``) if only its name is given. Raises ZooError.

    Batches follow the device's budget unless the settings say otherwise, for frameworks hand over many pairs at once.
    """
    if isinstance(reranker, str):
        return Reranker.open(reranker, **{"batch_size": None, **(settings or {})})
    if settings:
        raise ZooError(f"settings ({', '.join(settings)}) belong to a model's name; this reranker is open already")
    return reranker


def best(
    reranker: Reranker, query: str, texts: Sequence[str], top_n: int | None, threshold: float | None, scores: Scale
) -> list[Ranked]:
    """The texts by falling logit, at most ``top_n``; ``threshold`` leaves out those whose score, on the scale asked for, is below it.

    Raises ZooError.
    """
    ranked = reranker.rank(query, texts, top_n, scores=scores) if texts else []
    return [found for found in ranked if threshold is None or found.score >= threshold]
