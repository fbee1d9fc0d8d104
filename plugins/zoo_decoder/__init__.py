"""Decoder-only rerankers: language models that are asked, by a template, whether a document answers a query."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.api import hookimpl


@hookimpl
def zoo_architectures() -> Mapping[str, str]:
    return {"decoder": "zoo_decoder.reranker:Decoder"}
