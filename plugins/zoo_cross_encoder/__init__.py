"""BERT-like cross-encoders with a one-label classification head, and the cards that come with the project."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zoo import Reranker, hookimpl
from zoo.paths import bundled
from zoo.registry.hookspecs import ArchitectureFactory


@hookimpl
def zoo_models() -> Iterable[Path]:
    return [bundled("models")]


@hookimpl
def zoo_architectures() -> Mapping[str, ArchitectureFactory]:
    return {"cross-encoder": open_cross_encoder}


def open_cross_encoder(*args: Any, **kwargs: Any) -> Reranker:
    """``CrossEncoder(...)``, imported when a run opens one: listing models needs no tokenizer."""
    from zoo_cross_encoder.reranker import CrossEncoder

    return CrossEncoder(*args, **kwargs)
