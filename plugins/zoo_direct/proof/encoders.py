"""The BERT-like families: each function gives one logit a row, (row,)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo_direct.proof.arrays import Array, Arrays, Rows, activate, attention


def roberta(w: Arrays, config: Mapping[str, Any], rows: Rows, head: Mapping[str, Any]) -> Array:
    pad = config.get("pad_token_id", 1)
    positions = np.concatenate([_positions_but_padding(rows.ids[row] != pad, pad) for row in rows])
    x = _embedded(w, "roberta.embeddings", rows, positions, np.zeros_like(rows.types))
    x = w.layer_norm(x, "roberta.embeddings.LayerNorm", _epsilon(config))
    x = _layers(w, "roberta.encoder.layer", config, rows, x)[rows.first]
    return w.linear(np.tanh(w.linear(x, "classifier.dense")), "classifier.out_proj")[:, 0]


def bert(w: Arrays, config: Mapping[str, Any], rows: Rows, head: Mapping[str, Any]) -> Array:
    x = _embedded(w, "bert.embeddings", rows, rows.positions, rows.types)
    x = w.layer_norm(x, "bert.embeddings.LayerNorm", _epsilon(config))
    x = _layers(w, "bert.encoder.layer", config, rows, x)[rows.first]
    return w.linear(np.tanh(w.linear(x, "bert.pooler.dense")), "classifier")[:, 0]


def electra(w: Arrays, config: Mapping[str, Any], rows: Rows, head: Mapping[str, Any]) -> Array:
    x = _embedded(w, "electra.embeddings", rows, rows.positions, rows.types)
    x = w.layer_norm(x, "electra.embeddings.LayerNorm", _epsilon(config))
    if "electra.embeddings_project.weight" in w:
        x = w.linear(x, "electra.embeddings_project")
    x = _layers(w, "electra.encoder.layer", config, rows, x)[rows.first]
    return w.linear(activate("gelu", w.linear(x, "classifier.dense")), "classifier.out_proj")[:, 0]


def distilbert(w: Arrays, config: Mapping[str, Any], rows: Rows, head: Mapping[str, Any]) -> Array:
    x = w.at("distilbert.embeddings.word_embeddings.weight", rows.ids)
    x = x + w.at("distilbert.embeddings.position_embeddings.weight", rows.positions)
    x = w.layer_norm(x, "distilbert.embeddings.LayerNorm", 1e-12)
    for number in range(config["n_layers"]):
        layer = f"distilbert.transformer.layer.{number}"
        q, k, v = (w.linear(x, f"{layer}.attention.{part}_lin") for part in "qkv")
        mixed = w.linear(attention(q, k, v, rows, config["n_heads"]), f"{layer}.attention.out_lin")
        x = w.layer_norm(mixed + x, f"{layer}.sa_layer_norm", 1e-12)
        inner = activate(config.get("activation", "gelu"), w.linear(x, f"{layer}.ffn.lin1"))
        x = w.layer_norm(w.linear(inner, f"{layer}.ffn.lin2") + x, f"{layer}.output_layer_norm", 1e-12)
    return w.linear(np.maximum(w.linear(x[rows.first], "pre_classifier"), 0), "classifier")[:, 0]


def mpnet(w: Arrays, config: Mapping[str, Any], rows: Rows, head: Mapping[str, Any]) -> Array:
    positions = np.concatenate([_positions_but_padding(rows.ids[row] != 1, 1) for row in rows])
    x = w.at("mpnet.embeddings.word_embeddings.weight", rows.ids)
    x = x + w.at("mpnet.embeddings.position_embeddings.weight", positions)
    x = w.layer_norm(x, "mpnet.embeddings.LayerNorm", _epsilon(config))
    table = w["mpnet.encoder.relative_attention_bias.weight"]

    def bias(length: int) -> Array:
        ahead = np.arange(length) - np.arange(length)[:, None]
        size = abs(ahead).astype(np.float32)
        steps = np.log(np.maximum(size, 8) / np.float32(8)) / np.float32(np.log(16)) * np.float32(8)
        bucket = np.where(size < 8, size, np.minimum(8 + steps.astype(np.int64), 15)).astype(np.int64)
        added: Array = table[bucket + 16 * (ahead > 0)].transpose(2, 0, 1)
        return added

    for number in range(config["num_hidden_layers"]):
        layer = f"mpnet.encoder.layer.{number}"
        q, k, v = (w.linear(x, f"{layer}.attention.attn.{part}") for part in "qkv")
        mixed = w.linear(attention(q, k, v, rows, config["num_attention_heads"], bias), f"{layer}.attention.attn.o")
        x = w.layer_norm(mixed + x, f"{layer}.attention.LayerNorm", _epsilon(config))
        inner = activate(config.get("hidden_act", "gelu"), w.linear(x, f"{layer}.intermediate.dense"))
        x = w.layer_norm(w.linear(inner, f"{layer}.output.dense") + x, f"{layer}.output.LayerNorm", _epsilon(config))
    return w.linear(np.tanh(w.linear(x[rows.first], "classifier.dense")), "classifier.out_proj")[:, 0]


def _epsilon(config: Mapping[str, Any]) -> float:
    return float(config.get("layer_norm_eps", 1e-12))


def _embedded(w: Arrays, place: str, rows: Rows, positions: Any, types: Any) -> Array:
    words = w.at(f"{place}.word_embeddings.weight", rows.ids)
    return (
        words
        + w.at(f"{place}.position_embeddings.weight", positions)
        + w.at(f"{place}.token_type_embeddings.weight", types)
    )


def _positions_but_padding(shown: Any, pad: int) -> Any:
    """The numbering of fairseq: tokens count from ``pad`` + 1, and a padding token inside a row is at ``pad``."""
    return np.where(shown, pad + np.cumsum(shown), pad)


def _layers(w: Arrays, place: str, config: Mapping[str, Any], rows: Rows, x: Array) -> Array:
    epsilon = _epsilon(config)
    for number in range(config["num_hidden_layers"]):
        layer = f"{place}.{number}"
        q, k, v = (w.linear(x, f"{layer}.attention.self.{part}") for part in ("query", "key", "value"))
        mixed = w.linear(attention(q, k, v, rows, config["num_attention_heads"]), f"{layer}.attention.output.dense")
        x = w.layer_norm(mixed + x, f"{layer}.attention.output.LayerNorm", epsilon)
        inner = activate(config.get("hidden_act", "gelu"), w.linear(x, f"{layer}.intermediate.dense"))
        x = w.layer_norm(w.linear(inner, f"{layer}.output.dense") + x, f"{layer}.output.LayerNorm", epsilon)
    return x
