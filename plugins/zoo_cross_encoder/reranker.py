"""The cross-encoder: query and passage go through the model together, one logit comes out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.api import (
    Architecture,
    Checkpoint,
    Encodings,
    InputError,
    ModelCard,
    Pair,
    ScoreError,
    Scores,
    Tensors,
    ZooError,
    hookimpl,
)
from zoo_cross_encoder.tokenizer import PairTokenizer


class CrossEncoder(Architecture):
    """XLM-RoBERTa, BERT and their like, as transformers' ``AutoModelForSequenceClassification`` with one label.

    What differs between the families (template, special tokens, token types) is read from the tokenizer's own files.
    """

    def __init__(self, card: ModelCard, checkpoint: Checkpoint, **settings: Any) -> None:
        super().__init__(card, checkpoint, **settings)
        max_length, query_max_length = self.max_length, self.query_max_length
        config = _read_json(checkpoint.folder / "config.json")
        _check_head(checkpoint.folder, config)
        limit = min(card.max_length, position_limit(config))
        if max_length > limit:
            raise ZooError(
                f"a length of {max_length} is more than '{card.name}' can read ({limit} tokens): use a `max_length` of {limit} or less"
            )
        self.tokenizer = PairTokenizer(checkpoint.folder, max_length=max_length, query_max_length=query_max_length)
        if self.tokenizer.vocabulary_size > config.get("vocab_size", self.tokenizer.vocabulary_size):
            raise ZooError(
                f"{checkpoint.folder}: the tokenizer knows {self.tokenizer.vocabulary_size} tokens, the model only "
                f"{config['vocab_size']}: tokenizer.json and config.json are not of the same model"
            )

    @hookimpl
    def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
        return Encodings(self.tokenizer.encode(pairs), self.tokenizer.padding)

    @hookimpl
    def postprocess(self, outputs: Tensors) -> Scores:
        logits = outputs.get("logits", next(iter(outputs.values())))
        if logits.ndim != 2 or logits.shape[1] != 1:
            raise ScoreError(
                f"the model gives outputs of shape {tuple(logits.shape)}; a reranker gives one logit a pair, shape (rows, 1). "
                "Export it for text-classification with one label."
            )
        scores: Scores = logits[:, 0].astype("float32")
        return scores


def position_limit(config: dict[str, Any]) -> int:
    """Longest input in tokens. RoBERTa-like models number positions from pad_token_id + 1, so two go unused."""
    positions = int(config.get("max_position_embeddings", 512))
    roberta_like = "roberta" in str(config.get("model_type", ""))
    return positions - int(config.get("pad_token_id", 1)) - 1 if roberta_like else positions


def _check_head(folder: Path, config: dict[str, Any]) -> None:
    labels = len(config.get("id2label") or ()) or config.get("num_labels", 1)
    if labels != 1:
        raise ZooError(f"{folder}/config.json describes a classifier with {labels} labels; a reranker has one")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(path, None, f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(path, None, f"is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(path, None, "must hold a JSON object")
    return content
