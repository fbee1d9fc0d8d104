"""BERT-like cross-encoders with a one-label classification head, and the cards that come with the project."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from zoo import hookimpl
from zoo.hookspecs import ArchitectureFactory
from zoo.resources import bundled
from zoo_cross_encoder.reranker import CrossEncoder


@hookimpl
def zoo_models() -> Iterable[Path]:
    return [bundled("models")]


@hookimpl
def zoo_architectures() -> Mapping[str, ArchitectureFactory]:
    return {"cross-encoder": CrossEncoder}
