"""ModernBERT: pre-norm layers with rotary positions, windows and gated dense layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo_direct.proof.arrays import Array, Arrays, Rows, activate, attention, rotated


def modernbert(w: Arrays, config: Mapping[str, Any], rows: Rows, head: Mapping[str, Any]) -> Array:
    """One logit a row, (row,)."""
    epsilon = config.get("norm_eps", 1e-5)
    x = w.layer_norm(w.at("model.embeddings.tok_embeddings.weight", rows.ids), "model.embeddings.norm", epsilon)
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        h = w.layer_norm(x, f"{layer}.attn_norm", epsilon) if number else x
        x = x + w.linear(_mixed(w, config, rows, h, number), f"{layer}.attn.Wo")
        h = w.linear(w.layer_norm(x, f"{layer}.mlp_norm", epsilon), f"{layer}.mlp.Wi")
        inner, gate = np.split(h, 2, axis=-1)
        x = x + w.linear(activate(config.get("hidden_activation", "gelu"), inner) * gate, f"{layer}.mlp.Wo")
    x = w.layer_norm(x, "model.final_norm", epsilon)
    mean = config.get("classifier_pooling", "cls") == "mean"
    x = np.stack([x[row].mean(0) for row in rows]) if mean else x[rows.first]
    x = activate(config.get("classifier_activation", "gelu"), w.linear(x, "head.dense"))
    return w.linear(w.layer_norm(x, "head.norm", epsilon), "classifier")[:, 0]


def _mixed(w: Arrays, config: Mapping[str, Any], rows: Rows, x: Array, number: int) -> Array:
    local, theta = _kind(config, number)
    reach = config.get("local_attention", 128) // 2

    def window(length: int) -> Array:
        place = np.arange(length)
        hidden: Array = np.where(abs(place[:, None] - place) <= reach, np.float32(0), np.float32(-np.inf))
        return hidden

    q, k, v = np.split(w.linear(x, f"model.layers.{number}.attn.Wqkv"), 3, axis=-1)
    heads = config["num_attention_heads"]
    q, k = (rotated(part, rows.positions, theta, heads) for part in (q, k))
    return attention(q, k, v, rows, heads, window if local else None)


def _kind(config: Mapping[str, Any], number: int) -> tuple[bool, float]:
    """Whether a layer sees a window only, and the base of its frequencies."""
    kinds, period = config.get("layer_types"), config.get("global_attn_every_n_layers", 3)
    local = kinds[number] == "sliding_attention" if kinds else number % period != 0
    nested = (config.get("rope_parameters") or {}).get("sliding_attention" if local else "full_attention") or {}
    everywhere = config.get("global_rope_theta", 160000.0)
    given = config.get("local_rope_theta", 10000.0) if local else everywhere
    return local, nested.get("rope_theta", everywhere if given is None else given)
