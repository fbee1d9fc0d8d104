"""Graphs of one transformer layer, put together by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="graphs are made and read with onnx")

WIDTH, HEADS = 8, 2


def encoder(pooling: str, *, also: str = "", full: bool = False) -> Any:
    """One transformer layer over (batch, token, 8) embeddings ``x`` and its head; ``also`` names a tensor to give out beside the score.

    ``full`` is with what exports have besides: biases, scales, a mask, keys that are turned twice.
    """
    make = onnx.helper.make_node
    random = np.random.default_rng(5)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("wq", "wk", "wv", "wo"), (8, 8))
    shapes |= {"up": (8, 16), "b": (16,), "down": (16, 8), "g": (8,), "h": (8,), "head": (8, 1)}
    weights: dict[str, Any] = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    weights |= {"split": np.array([0, -1, HEADS, 4]), "zero": np.array(0), "one": np.array([1]), "eight": np.array([8])}
    weights |= {f"b{name}": random.standard_normal(8).astype(np.float32) for name in "qkv"}
    weights |= {"scale": np.array(0.4, np.float32), "three": np.array([3]), "end": np.array([2**63 - 1])}
    weights |= {"middle axes": np.array([1, 2])}
    turned = {"q": "/turned", "k": "/turned"} if full else {}
    turns = {"q": [0, 2, 1, 3], "k": [0, 2, 1, 3] if full else [0, 2, 3, 1], "v": [0, 2, 1, 3]}
    heads = [
        node
        for name in "qkv"
        for node in (
            make("MatMul", ["x", f"w{name}"], [f"{name}0"]),
            *([make("Add", [f"b{name}", f"{name}0"], [f"{name}b"])] if full else []),
            make("Reshape", [f"{name}b" if full else f"{name}0", "split"], [f"{name}1"]),
            make("Transpose", [f"{name}1"], [name + turned.get(name, "")], perm=turns[name]),
        )
    ]
    if full:
        heads += [
            make("Shape", ["q/turned"], ["sizes"]),
            make("Slice", ["sizes", "three", "end"], ["size"]),
            make("Cast", ["size"], ["width"], to=1),
            make("Div", ["q/turned", "width"], ["q"]),
            make("Transpose", ["k/turned"], ["k/turned/again"], perm=[0, 1, 3, 2]),
            make("Mul", ["k/turned/again", "scale"], ["k"]),
            make("Gather", ["x", "zero"], ["mask"], axis=2),
            make("Unsqueeze", ["mask", "middle axes"], ["mask/wide"]),
        ]
    nodes = [
        *heads,
        make("MatMul", ["q", "k"], ["product" if full else "scores"]),
        *([make("Add", ["product", "mask/wide"], ["scores"])] if full else []),
        make("Softmax", ["scores"], ["probabilities"], axis=-1),
        make("MatMul", ["probabilities", "v"], ["mixed"]),
        make("Transpose", ["mixed"], ["back"], perm=[0, 2, 1, 3]),
        make("Shape", ["x"], ["shape"], start=0, end=2),
        make("Concat", ["shape", "eight"], ["whole"], axis=0),
        make("Reshape", ["back", "whole"], ["context"]),
        make("MatMul", ["context", "wo"], ["projected"]),
        make("Add", ["projected", "x"], ["sum"]),
        make("LayerNormalization", ["sum", "g", "h"], ["middle"], axis=-1),
        make("MatMul", ["middle", "up"], ["wide"]),
        make("Add", ["b", "wide"], ["biased"]),
        make("Tanh", ["biased"], ["active"]),
        make("MatMul", ["active", "down"], ["narrow"]),
        make("Add", ["narrow", "middle"], ["hidden"]),
        make("Gather", ["hidden", "zero"], ["pooled"], axis=1)
        if pooling == "first"
        else make("ReduceMean", ["hidden", "one"], ["pooled"], keepdims=0),
        make("MatMul", ["pooled", "head"], ["logits"]),
    ]
    value = onnx.helper.make_tensor_value_info
    outputs = [value("logits", 1, ["batch", 1]), *([value(also, 1, None)] if also else [])]
    graph = onnx.helper.make_graph(
        nodes, "layer", [value("x", 1, ["batch", "token", WIDTH])], outputs,
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
