"""A model of a few kilobytes with a reranker's inputs and output, for tests of devices, and a session for tests of architectures.

The model needs the package ``onnx``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.types import Encoding, Encodings, ShapeRule, Tensors

VOCABULARY, WIDTH = 97, 16


def write_toy(
    path: Path,
    *,
    rows: int | None = None,
    length: int | None = None,
    half: bool = False,
    small: bool = False,
    seed: int = 7,
) -> Path:
    """Write an ONNX file: ``input_ids`` and ``attention_mask`` in, ``logits`` out. ``rows`` and ``length`` fix the axes.

    ``half`` computes in float16, ``small`` only stores the embeddings so. Another ``seed`` gives other weights.
    The logit is a weighted mean over the tokens that count, so it depends on every id and on the mask, and not on padding.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(seed)
    kind = np.float16 if half else np.float32
    weights: dict[str, NDArray[Any]] = {
        "table": random.normal(size=(VOCABULARY, WIDTH)).astype(np.float16 if small else kind),
        "head": (random.normal(size=(WIDTH, 1)) * 5).astype(kind),
        "vocabulary": np.array(VOCABULARY, dtype=np.int64),
        "last": np.array([2], dtype=np.int64),
        "tokens": np.array([1], dtype=np.int64),
    }
    float_type = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    nodes = [
        helper.make_node("Mod", ["input_ids", "vocabulary"], ["ids"]),
        helper.make_node("Gather", ["table", "ids"], ["gathered"]),
        helper.make_node("Cast", ["gathered"], ["embedded"], to=float_type),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=float_type),
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask3"]),
        helper.make_node("Mul", ["embedded", "mask3"], ["counted"]),
        helper.make_node("ReduceSum", ["counted", "tokens"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "tokens"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("MatMul", ["mean", "head"], ["logits"]),
    ]
    dims = [rows or "batch_size", length or "sequence_length"]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(name, TensorProto.INT64, dims) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("logits", float_type, [dims[0], 1])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


def write_toy_tokenizer(folder: Path) -> Path:
    """Write the config and the tokenizer of an XLM-RoBERTa that reads characters, into ``folder``: what ``--config-path`` takes."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    characters = [chr(code) for code in range(33, 127)]
    vocabulary = [(piece, 0.0) for piece in special] + [(piece, -1.0) for piece in ["\u2581", *characters]]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "model_type": "xlm-roberta", "vocab_size": len(vocabulary), "max_position_embeddings": 8194, "pad_token_id": 1,
        "id2label": {"0": "LABEL_0"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    settings = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def toy_encodings(lengths: Sequence[int], seed: int = 0) -> Encodings:
    """Random encodings of these lengths, as a tokenizer would give them."""
    random = np.random.default_rng(seed)
    rows = [Encoding({"input_ids": random.integers(5, 5000, size=length).tolist()}) for length in lengths]
    return Encodings(rows, {"input_ids": 1})


class ToySession:
    """Gives one logit a row, of every id and its place among the tokens that count, whatever the padding and its side.

    It has no counter: ``device_seconds`` is None.
    """

    shape_rule = ShapeRule(tokens=4096)
    device_seconds: float | None = None

    def __init__(self, input_names: Sequence[str], shape_rule: ShapeRule | None = None) -> None:
        self.input_names = list(input_names)
        self.shape_rule = shape_rule or self.shape_rule

    def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
        """The output ``logits`` of shape (rows, 1), at once."""
        mask = inputs["attention_mask"].astype(np.float64)
        place = np.cumsum(mask, axis=1)
        total = np.zeros(len(mask))
        for number, name in enumerate(sorted(set(inputs) - {"attention_mask"})):
            total += (np.sin(inputs[name] * (0.37 + number) + 0.11 * place) * mask).sum(axis=1)
        future: Future[Tensors] = Future()
        future.set_result({"logits": (total / np.maximum(mask.sum(axis=1), 1))[:, None].astype(np.float32)})
        return future

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> ToySession:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
