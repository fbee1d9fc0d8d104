"""A cross-encoder whose logits are calibrated: one stage is overridden, the others are inherited."""

from __future__ import annotations

from zoo.api import Scores, Tensors, hookimpl
from zoo_cross_encoder.reranker import CrossEncoder


class Halved(CrossEncoder):
    @hookimpl
    def postprocess(self, outputs: Tensors) -> Scores:
        scores: Scores = super().postprocess(outputs) / 2
        return scores
