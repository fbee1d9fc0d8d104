"""What a third party's plugin looks like: everything through hooks, nothing by name."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from zoo.api import Device, Qrels, Run, hookimpl
from zoo_example.device import ReferenceDevice

logger = logging.getLogger("zoo.example")


@hookimpl
def zoo_models() -> Iterable[Path]:
    return [Path(__file__).parent / "cards"]


@hookimpl
def zoo_architectures() -> Mapping[str, str]:
    return {"halved": "zoo_example.reranker:Halved"}


@hookimpl
def zoo_devices() -> Iterable[Device]:
    return [ReferenceDevice()]


@hookimpl
def evaluate(run: Run, qrels: Qrels) -> Mapping[str, float]:
    """Share of the queries whose first passage is relevant."""
    hits = [qrels[query].get(_first(scores), 0) > 0 for query, scores in run.items()]
    return {"hit@1": sum(hits) / len(hits)}


def _first(scores: Mapping[str, float]) -> str:
    return max(scores, key=lambda passage: (scores[passage], passage))


@hookimpl(wrapper=True)
def preprocess(pairs):  # type: ignore[no-untyped-def]  # a wrapper is a generator
    encodings = yield
    logger.info("example saw %d pairs", len(pairs))
    return encodings
