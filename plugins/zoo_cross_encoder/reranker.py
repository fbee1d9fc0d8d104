"""The cross-encoder: query and passage go through the model together, one logit comes out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from zoo.api import (
    Architecture,
    Checkpoint,
    CheckpointOffer,
    Encodings,
    ModelCard,
    ModelConfig,
    Pair,
    Requirements,
    Scores,
    Tensors,
    ZooError,
    hookimpl,
    read_config,
)
from zoo_cross_encoder.module_head import ModuleHead
from zoo_cross_encoder.tokenizer import PairTokenizer

logger = logging.getLogger("zoo.cross_encoder")

CLASSIFIER = "ForSequenceClassification"
FAMILIES = frozenset({
    "albert", "bert", "big_bird", "camembert", "convbert", "data2vec-text", "deberta", "deberta-v2", "distilbert", "electra", "flaubert",
    "ibert", "longformer", "megatron-bert", "mobilebert", "modernbert", "mpnet", "new", "nystromformer", "rembert", "roberta", "roformer",
    "squeezebert", "xlm", "xlm-roberta",
})  # fmt: skip
"""Model types that a checkpoint without a card may have: encoders that an exporter knows."""


class CrossEncoder(Architecture):
    """XLM-RoBERTa, BERT and their like, as transformers' ``AutoModelForSequenceClassification`` with one label.

    What differs between the families (template, special tokens, token types) is read from the tokenizer's own files.
    """

    requires: ClassVar[Requirements] = Requirements(
        optional_files=("tokenizer_config.json", "special_tokens_map.json", "modules.json", "[0-9]_*/config.json")
    )

    @classmethod
    def offer(cls, folder: Path) -> CheckpointOffer:
        config = read_config(folder)
        if ModuleHead.read(folder) is not None:
            return CheckpointOffer(available=True, max_length=config.position_limit)
        if config.model_type not in FAMILIES:
            return CheckpointOffer(available=False)
        if config.architectures and not config.kind.endswith(CLASSIFIER):
            return CheckpointOffer(
                available=False,
                reason=f"'{config.kind}' has no classification head, so it is an encoder and no reranker",
                remedy=f"Choose a checkpoint whose class ends in {CLASSIFIER}, with one label",
            )
        if config.labels != 1:
            return CheckpointOffer(
                available=False,
                reason=f"it is a classifier with {config.labels} labels; a reranker has one",
                remedy="Choose a checkpoint that was trained to give one score a pair",
            )
        return CheckpointOffer(available=True, max_length=config.position_limit)

    @classmethod
    def adapt(cls, checkpoint: Checkpoint, *, weights: bool) -> Checkpoint:
        head = ModuleHead.read(checkpoint.folder)
        return checkpoint if head is None else head.rebuilt(checkpoint, weights=weights)

    def __init__(self, card: ModelCard, checkpoint: Checkpoint, **settings: Any) -> None:
        super().__init__(card, checkpoint, **settings)
        max_length, query_max_length = self.max_length, self.query_max_length
        config = read_config(checkpoint.folder)
        _check_head(checkpoint.folder, config)
        self.check_length(config.position_limit)
        self._told = False
        self.tokenizer = PairTokenizer(
            checkpoint.folder, config, max_length=max_length, query_max_length=query_max_length
        )

    @hookimpl
    def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
        if not self._told and any(pair.instruction for pair in pairs):
            self._told = True
            logger.warning("'%s' reads no instructions: those of the pairs are left out", self.card.name)
        return Encodings(self.tokenizer.encode(pairs), self.tokenizer.padding)

    @hookimpl
    def postprocess(self, outputs: Tensors) -> Scores:
        return self.one_logit(outputs, "Export it for text-classification with one label")


def _check_head(folder: Path, config: ModelConfig) -> None:
    if config.labels != 1:
        raise ZooError(f"{folder}/config.json describes a classifier with {config.labels} labels; a reranker has one")
