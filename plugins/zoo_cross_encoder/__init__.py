"""BERT-like cross-encoders with a one-label classification head, and the cards that come with the project."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from zoo.api import CacheFolder, bundled, hookimpl


@hookimpl
def zoo_models() -> Iterable[Path]:
    return [bundled("models")]


@hookimpl
def zoo_architectures() -> Mapping[str, str]:
    return {"cross-encoder": "zoo_cross_encoder.reranker:CrossEncoder"}


@hookimpl
def zoo_caches() -> Iterable[CacheFolder]:
    return [CacheFolder(name="rebuilt", holds="checkpoints whose head came in separate modules")]
