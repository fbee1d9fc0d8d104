"""Alibaba's ``new``: post-norm layers with rotary positions and gated dense layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo_direct.proof.arrays import Array, Arrays, Rows, activate, attention, turned


def gte_new(w: Arrays, config: Mapping[str, Any], rows: Rows, head: Mapping[str, Any]) -> Array:
    """One logit a row, (row,)."""
    epsilon, heads = config.get("layer_norm_eps", 1e-12), config["num_attention_heads"]
    x = w.at("new.embeddings.word_embeddings.weight", rows.ids)
    if config.get("type_vocab_size", 1):
        x = x + w.at("new.embeddings.token_type_embeddings.weight", rows.types)
    x = w.layer_norm(x, "new.embeddings.LayerNorm", epsilon)
    turns = _turns(config)
    for number in range(config["num_hidden_layers"]):
        layer = f"new.encoder.layer.{number}"
        if config.get("pack_qkv", True):
            q, k, v = np.split(w.linear(x, f"{layer}.attention.qkv_proj"), 3, axis=-1)
        else:
            q, k, v = (w.linear(x, f"{layer}.attention.{part}_proj") for part in "qkv")
        q, k = (turned(part, rows.positions, turns, heads) for part in (q, k))
        mixed = w.linear(attention(q, k, v, rows, heads), f"{layer}.attention.o_proj")
        x = w.layer_norm(x + mixed, f"{layer}.attn_ln", epsilon)
        up, gate = np.split(w.linear(x, f"{layer}.mlp.up_gate_proj"), 2, axis=-1)
        inner = activate(config.get("hidden_act", "gelu"), gate) * up
        x = w.layer_norm(x + w.linear(inner, f"{layer}.mlp.down_proj"), f"{layer}.mlp_ln", epsilon)
    return w.linear(np.tanh(w.linear(x[rows.first], "new.pooler.dense")), "classifier")[:, 0]


def _turns(config: Mapping[str, Any]) -> Array:
    """The frequency of each pair of a head, with NTK scaling if there is any, in float32."""
    size = config["hidden_size"] // config["num_attention_heads"]
    scaling, theta = config.get("rope_scaling") or {}, config.get("rope_theta", 10000.0)
    factor, mixed = np.float32(scaling.get("factor", 1)), scaling.get("mixed_b")
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    if mixed is None:
        turns = 1 / np.float32(theta * float(factor)) ** exponents
        return np.asarray(turns / factor ** np.float32(2 / size), np.float32)
    pairs = np.arange(1, size // 2 + 1, dtype=np.float32)
    slope = np.log(factor) / np.float32((size / 2) ** mixed)
    return np.asarray(1 / np.float32(theta) ** exponents / np.exp(slope * pairs ** np.float32(mixed)), np.float32)
