"""Qwen2 and Qwen3: Qwen3-Reranker, mxbai-rerank-v2, zerank and their relatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zoo_direct.config import Config
from zoo_direct.families.decoder import Decoder, read_decoder
from zoo_direct.families.model import Head
from zoo_direct.families.rotary import read_theta


@dataclass(frozen=True, kw_only=True)
class Qwen2(Decoder):
    """Queries, keys and values have a bias, the attention's output has none."""

    classifiers = ("Qwen2ForSequenceClassification",)
    generators = ("Qwen2ForCausalLM",)

    @classmethod
    def read(cls, config: Config, head: Head) -> Qwen2:
        return cls(**_common(config, head), bias=True)


@dataclass(frozen=True, kw_only=True)
class Qwen3(Decoder):
    """Each head's queries and keys are normalised; a head is as wide as ``head_dim`` says, whatever the model's width is."""

    classifiers = ("Qwen3ForSequenceClassification",)
    generators = ("Qwen3ForCausalLM",)

    @classmethod
    def read(cls, config: Config, head: Head) -> Qwen3:
        bias = config.flag("attention_bias", False)
        return cls(**_common(config, head, size=128), bias=bias, output_bias=bias, head_norms=True)


def _common(config: Config, head: Head, *, size: int = 0) -> dict[str, Any]:
    return {
        **read_decoder(config, head, size=size),
        "activation": config.activation("hidden_act", "silu"),
        "theta": read_theta(config, 10_000.0),
        "tied": config.flag("tie_word_embeddings", False),
    }
