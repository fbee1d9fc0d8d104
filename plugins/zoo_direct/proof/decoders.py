"""The decoder families: causal layers, and one number read at each row's last token."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo_direct.proof.arrays import Array, Arrays, Rows, activate, attention, rotated


@dataclass(frozen=True)
class Kind:
    """The differences of a family from Qwen3."""

    size: int | None  # of a head, if config.json does not say
    theta: float
    act: str
    tied: bool
    gain: float = 0.0  # what a normalisation adds to its weight
    scaled: bool = False  # embeddings by the root of their width


def qwen2(w: Arrays, config: Mapping[str, Any], rows: Rows, head: Mapping[str, Any]) -> Array:
    return _forward(w, config, rows, head, Kind(None, 10000.0, "silu", tied=False))


def qwen3(w: Arrays, config: Mapping[str, Any], rows: Rows, head: Mapping[str, Any]) -> Array:
    return _forward(w, config, rows, head, Kind(128, 10000.0, "silu", tied=False))


def gemma(w: Arrays, config: Mapping[str, Any], rows: Rows, head: Mapping[str, Any]) -> Array:
    return _forward(w, config, rows, head, Kind(256, 10000.0, "gelu_pytorch_tanh", tied=True, gain=1.0, scaled=True))


def _forward(w: Arrays, config: Mapping[str, Any], rows: Rows, head: Mapping[str, Any], kind: Kind) -> Array:
    def norm(x: Array, name: str) -> Array:
        root = np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(config.get("rms_norm_eps", 1e-6)))
        scaled: Array = x / root * (w[f"{name}.weight"] + np.float32(kind.gain))
        return scaled

    x = w.at("embed_tokens.weight", rows.ids)
    if kind.scaled:
        x = x * np.float32(math.sqrt(x.shape[-1]))
    act = config.get("hidden_act", kind.act)
    for number in range(config["num_hidden_layers"]):
        layer = f"layers.{number}"
        h = norm(x, f"{layer}.input_layernorm")
        x = x + w.linear(_mixed(w, config, rows, h, f"{layer}.self_attn", norm, kind), f"{layer}.self_attn.o_proj")
        h = norm(x, f"{layer}.post_attention_layernorm")
        h = activate(act, w.linear(h, f"{layer}.mlp.gate_proj")) * w.linear(h, f"{layer}.mlp.up_proj")
        x = x + w.linear(h, f"{layer}.mlp.down_proj")
    return norm(x[rows.last], "norm") @ _row(w, config, head, kind)


def _mixed(w: Arrays, config: Mapping[str, Any], rows: Rows, x: Array, place: str, norm: Any, kind: Kind) -> Array:
    """The attention's output: each token sees itself and those before it."""
    heads = config["num_attention_heads"]
    shared = config.get("num_key_value_heads") or heads
    size = config.get("head_dim") or kind.size or config["hidden_size"] // heads
    nested = config.get("rope_parameters") or {}
    theta = nested.get("rope_theta", config.get("rope_theta", kind.theta))
    parts = {}
    for part, count in (("q", heads), ("k", shared), ("v", shared)):
        y = w.linear(x, f"{place}.{part}_proj")
        if f"{place}.{part}_norm.weight" in w:
            y = norm(y.reshape(len(x), count, size), f"{place}.{part}_norm").reshape(len(x), -1)
        y = y if part == "v" else rotated(y, rows.positions, theta, count)
        parts[part] = np.repeat(y.reshape(len(x), count, size), heads // count, axis=1).reshape(len(x), -1)

    def ahead(length: int) -> Array:
        hidden: Array = np.triu(np.full((length, length), -np.inf, np.float32), 1)
        return hidden

    return attention(parts["q"], parts["k"], parts["v"], rows, heads, ahead)


def _row(w: Arrays, config: Mapping[str, Any], head: Mapping[str, Any], kind: Kind) -> Array:
    """What the last token is multiplied with, (width,)."""
    if head["kind"] == "label":
        return w.at("score.weight", 0)
    tied = config.get("tie_word_embeddings", kind.tied)
    table = "embed_tokens.weight" if tied else "lm_head.weight"
    row: Array = w.at(table, head["positive"])
    if head.get("negative") is not None:
        row = row - w.at(table, head["negative"])
    return row
