"""Gemma, the first generation: bge-reranker-v2-gemma and its relatives."""

from __future__ import annotations

import math
from dataclasses import dataclass

from zoo_direct.config import Config, UnsupportedError
from zoo_direct.families.decoder import Decoder, read_decoder
from zoo_direct.families.model import Head
from zoo_direct.families.rotary import read_theta


@dataclass(frozen=True, kw_only=True)
class Gemma(Decoder):
    """Embeddings are scaled by the root of their width, and a normalisation multiplies with 1 + its weight."""

    classifiers = ("GemmaForSequenceClassification",)
    generators = ("GemmaForCausalLM",)

    @classmethod
    def read(cls, config: Config, head: Head) -> Gemma:
        common = read_decoder(config, head, size=256)
        activation = config.activation("hidden_act", "gelu_pytorch_tanh")
        if config.has("hidden_activation") and config.activation("hidden_activation") != activation:
            # Some versions of transformers read this key, others 'hidden_act'.
            raise UnsupportedError("config.json has 'hidden_act' and 'hidden_activation', which do not mean the same")
        config.ignore("hidden_activation")
        bias = config.flag("attention_bias", False)
        return cls(
            **common,
            activation=activation,
            theta=read_theta(config, 10_000.0),
            tied=config.flag("tie_word_embeddings", True),
            bias=bias,
            output_bias=bias,
            gain_from_one=True,
            embedding_scale=math.sqrt(config.integer("hidden_size")),
        )
