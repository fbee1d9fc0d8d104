"""A lexical reranker: no files, no weights, no device."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from zoo.api import Architecture, Encoding, Encodings, Option, Pair, Requirements, Scores, Tensors, hookimpl

WORD = re.compile(r"\w+")


class Overlap(Architecture):
    """The share of the query's words that the passage has, words counted once."""

    requires = Requirements(files=(), weights=False, session=False)
    options = (Option(name="scale", kind="number", default="1", help="What a score of all words is."),)

    @hookimpl
    def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
        return Encodings(
            [self._encoding(pair.query.casefold(), pair.passage.casefold()) for pair in pairs], padding={"shared": 0}
        )

    def _encoding(self, query: str, passage: str) -> Encoding:
        known = set(WORD.findall(passage))
        return Encoding({"shared": [int(word in known) for word in sorted(set(WORD.findall(query)))] or [0]})

    @hookimpl
    def postprocess(self, outputs: Tensors, inputs: Tensors) -> Scores:
        words = np.maximum(inputs["attention_mask"].sum(axis=1), 1)
        scores: Scores = (outputs["shared"].sum(axis=1) / words * float(self.chosen["scale"])).astype(np.float32)
        return scores


@hookimpl
def zoo_models() -> Iterable[Path]:
    return [Path(__file__).parent / "zoo_overlap_cards"]


@hookimpl
def zoo_architectures() -> Mapping[str, str]:
    return {"overlap": "zoo_overlap:Overlap"}
