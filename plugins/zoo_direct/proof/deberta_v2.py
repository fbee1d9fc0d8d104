"""DeBERTa-v2 and -v3: each score is looked up by the pair's own distance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo_direct.proof.arrays import Array, Arrays, Rows, activate, joined, softmax, split


def deberta_v2(w: Arrays, config: Mapping[str, Any], rows: Rows, head: Mapping[str, Any]) -> Array:
    """One logit a row, (row,)."""
    epsilon = config.get("layer_norm_eps", 1e-7)
    embedded = _embedded(w, config, rows, epsilon)
    table = None
    if config.get("relative_attention", False):
        table = w.at("deberta.encoder.rel_embeddings.weight")
        if "layer_norm" in str(config.get("norm_rel_ebd", "none")).lower():
            table = w.layer_norm(table, "deberta.encoder.LayerNorm", epsilon)
    x = embedded
    for number in range(config["num_hidden_layers"]):
        layer = f"deberta.encoder.layer.{number}"
        mixed = w.linear(
            _mixed(w, config, rows, x, f"{layer}.attention.self", table), f"{layer}.attention.output.dense"
        )
        x = w.layer_norm(mixed + x, f"{layer}.attention.output.LayerNorm", epsilon)
        inner = activate(config.get("hidden_act", "gelu"), w.linear(x, f"{layer}.intermediate.dense"))
        x = w.layer_norm(w.linear(inner, f"{layer}.output.dense") + x, f"{layer}.output.LayerNorm", epsilon)
        if number == 0 and config.get("conv_kernel_size", 0):
            x = w.layer_norm(x + _convolved(w, config, rows, embedded), "deberta.encoder.conv.LayerNorm", epsilon)
    x = activate(config.get("pooler_hidden_act", "gelu"), w.linear(x[rows.first], "pooler.dense"))
    return w.linear(x, "classifier")[:, 0]


def _embedded(w: Arrays, config: Mapping[str, Any], rows: Rows, epsilon: float) -> Array:
    x = w.at("deberta.embeddings.word_embeddings.weight", rows.ids)
    if config.get("position_biased_input", True):
        x = x + w.at("deberta.embeddings.position_embeddings.weight", rows.positions)
    if config.get("type_vocab_size", 0):
        x = x + w.at("deberta.embeddings.token_type_embeddings.weight", rows.types)
    if "deberta.embeddings.embed_proj.weight" in w:
        x = w.linear(x, "deberta.embeddings.embed_proj")
    return w.layer_norm(x, "deberta.embeddings.LayerNorm", epsilon)


def _mixed(w: Arrays, config: Mapping[str, Any], rows: Rows, x: Array, place: str, table: Array | None) -> Array:
    heads, kinds = config["num_attention_heads"], config.get("pos_att_type") or []
    q, k, v = (w.linear(x, f"{place}.{part}_proj") for part in ("query", "key", "value"))
    scale = np.float32(math.sqrt(q.shape[-1] // heads * (1 + ("c2p" in kinds) + ("p2c" in kinds))))
    projected = {}
    for part in ("query", "key") if table is not None else ():
        name = f"{place}.{part}_proj" if config.get("share_att_key", False) else f"{place}.pos_{part}_proj"
        if f"{name}.weight" in w:
            projected[part] = split(w.linear(np.asarray(table), name), heads).transpose(0, 2, 1)
    mixed = np.empty_like(q)
    for row in rows:
        queries, keys, values = (split(part[row], heads) for part in (q, k, v))
        scores = queries @ keys.transpose(0, 2, 1)
        if table is not None:
            place_of = np.broadcast_to(_rows_of_table(config, row.stop - row.start, len(table)), scores.shape)
            if "c2p" in kinds:
                scores = scores + np.take_along_axis(queries @ projected["key"], place_of, -1)
            if "p2c" in kinds:
                by_key = np.take_along_axis(keys @ projected["query"], place_of.transpose(0, 2, 1), -1)
                scores = scores + by_key.transpose(0, 2, 1)
        mixed[row] = joined(softmax(scores / scale) @ values)
    return mixed


def _rows_of_table(config: Mapping[str, Any], length: int, rows: int) -> NDArray[np.int64]:
    """The row of the table for each query and key, (query, key)."""
    distance = np.arange(length)[:, None] - np.arange(length)
    buckets, furthest = config.get("position_buckets", -1), config.get("max_relative_positions", -1)
    furthest = furthest if furthest >= 1 else config["max_position_embeddings"]
    if buckets > 0:
        middle = buckets // 2
        size = np.maximum(abs(distance), middle).astype(np.float32)
        steps = np.log(size / np.float32(middle)) / np.log(np.float32((furthest - 1) / middle)) * np.float32(middle - 1)
        far = (np.ceil(steps) + middle) * np.sign(distance)
        distance = np.where(abs(distance) <= middle, distance, far).astype(np.int64)
    places: NDArray[np.int64] = np.clip(distance + rows // 2, 0, rows - 1)
    return places


def _convolved(w: Arrays, config: Mapping[str, Any], rows: Rows, x: Array) -> Array:
    """A convolution along the tokens of each row, with zeros before and behind it."""
    kernel, bias = w.at("deberta.encoder.conv.conv.weight"), w.at("deberta.encoder.conv.conv.bias")
    groups, reach = config.get("conv_groups", 1), kernel.shape[-1] // 2
    result = np.empty_like(x)
    for row in rows:
        padded = np.pad(x[row], ((reach, reach), (0, 0)))
        for group, (weights, offset) in enumerate(zip(np.split(kernel, groups), np.split(bias, groups), strict=True)):
            channels = slice(group * weights.shape[1], (group + 1) * weights.shape[1])
            out = slice(group * len(weights), (group + 1) * len(weights))
            result[row, out] = offset + sum(
                padded[step : step + row.stop - row.start, channels] @ weights[:, :, step].T
                for step in range(kernel.shape[-1])
            )
    return activate(config.get("conv_act", "tanh"), result)
