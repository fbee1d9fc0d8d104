"""Small random checkpoints of the families that the devices ``torch`` and ``cuda`` open, batches for them, and what transformers gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.options import read_options
from zoo.types import Artifact, Device, Head, Precision, Session, SessionOptions, Tensors

VOCABULARY, LONGEST = 120, 100
SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
COMMON = {**SIZES, "vocab_size": VOCABULARY, "num_labels": 1}
ROBERTA = {**COMMON, "max_position_embeddings": LONGEST + 2, "type_vocab_size": 1, "pad_token_id": 1}
MODERN = {**COMMON, "max_position_embeddings": LONGEST, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
          "cls_token_id": 1, "sep_token_id": 2, "local_attention": 16}  # fmt: skip
DECODER = {**COMMON, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "max_position_embeddings": LONGEST}
DEBERTA = {**COMMON, "type_vocab_size": 0, "relative_attention": True, "position_buckets": 16, "norm_rel_ebd": "layer_norm",
           "share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "max_position_embeddings": LONGEST,
           "pad_token_id": 0}  # fmt: skip
DISTILBERT = {"dim": 32, "n_layers": 4, "n_heads": 4, "hidden_dim": 64, "vocab_size": VOCABULARY, "num_labels": 1,
              "max_position_embeddings": LONGEST}  # fmt: skip

BIASES = ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias")

PACKED: dict[str, tuple[str, dict[str, Any]]] = {
    "xlm-roberta": ("XLMRoberta", ROBERTA),
    "roberta": ("Roberta", ROBERTA),
    "camembert": ("Camembert", ROBERTA),
    "bert": ("Bert", {**COMMON, "max_position_embeddings": LONGEST}),
    "bert, tanh form of GELU": ("Bert", {**COMMON, "max_position_embeddings": LONGEST, "hidden_act": "gelu_new"}),
    "electra": ("Electra", {**COMMON, "max_position_embeddings": LONGEST, "embedding_size": 16}),
    "electra, no projection": ("Electra", {**COMMON, "max_position_embeddings": LONGEST, "embedding_size": 32}),
    "distilbert": ("DistilBert", DISTILBERT),
    "modernbert, last layer global": ("ModernBert", MODERN),
    "modernbert, last layer local": ("ModernBert", {**MODERN, "num_hidden_layers": 3}),
    "modernbert, mean": ("ModernBert", {**MODERN, "classifier_pooling": "mean"}),
    "modernbert, every bias": ("ModernBert", {**MODERN, **dict.fromkeys(BIASES, True)}),
}  # fmt: skip
"""transformers' class without its endings, and its config."""
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "deberta-v2": ("DebertaV2", DEBERTA),
    "bert, silu": ("Bert", {**COMMON, "max_position_embeddings": LONGEST, "hidden_act": "silu"}),
    "mpnet": ("MPNet", {key: value for key, value in ROBERTA.items() if key != "type_vocab_size"}),
    "qwen3": ("Qwen3", DECODER),
    "llama": ("Llama", DECODER),
}
"""Models that run through transformers."""


def make(name: str, folder: Path, *, task: str = "SequenceClassification", seed: int = 3, **config: Any) -> Any:
    """Write a checkpoint whose scores differ between rows, biases and norms perturbed; returns its float32 torch model."""
    torch = pytest.importorskip("torch", reason="the device 'torch' needs torch")
    transformers = pytest.importorskip("transformers", reason="checkpoints and references are made by transformers")
    kind, settings = {**PACKED, **OTHERS}.get(name, (name, DECODER))
    torch.manual_seed(seed)
    model = getattr(transformers, f"{kind}For{task}")(getattr(transformers, f"{kind}Config")(**{**settings, **config}))
    for parameter_name, parameter in model.named_parameters():
        around = 1.0 if "norm" in parameter_name.lower() and parameter_name.endswith("weight") else 0.0
        torch.nn.init.normal_(parameter, mean=around, std=0.3)
    model.eval().save_pretrained(folder)
    return model


def make_batch(lengths: Sequence[int], *, padding: int = 0, seed: int = 0) -> dict[str, Any]:
    """Random ids, padded on the right to the longest row, with token types in two runs: int64 arrays of shape (rows, length)."""
    random = np.random.default_rng(seed)
    shape = len(lengths), max(lengths)
    ids, mask, types = np.full(shape, padding, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, length in enumerate(lengths):
        ids[row, :length] = random.integers(3, VOCABULARY, length)
        mask[row, :length] = 1
        types[row, (length + 1) // 2 : length] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def padding_of(model: Any) -> int:
    return int(getattr(model.config, "pad_token_id", None) or 0)


def row_by_row(model: Any, inputs: Tensors, names: Sequence[str]) -> Any:
    """transformers' logits of each row alone, without padding; shape (rows,)."""
    import torch

    scores = []
    for row, length in enumerate(inputs["attention_mask"].sum(axis=1)):
        alone = {name: torch.from_numpy(inputs[name][row : row + 1, :length]) for name in names}
        with torch.no_grad():
            scores.append(float(model(**alone).logits[0, 0]))
    return np.array(scores, dtype=np.float32)


def open_session(
    device: Device, folder: Path, precision: Precision = "fp32", *, head: Head | None = None, **extra: str
) -> Session:
    """A session of ``device`` on a checkpoint, as the runner opens it."""
    chosen = read_options(f"the device '{device.name}'", device.options, extra)
    options = SessionOptions(precision=precision, batch_size=None, max_length=LONGEST, threads=1, extra=chosen)
    artifact = Artifact(model=folder, is_checkpoint=True, precision=precision, origin="test", head=head or {})
    return device.open(artifact, options)


def score(session: Session, inputs: Tensors) -> Any:
    """Logits of one batch, shape (rows,)."""
    return session.submit({name: inputs[name] for name in session.input_names}).result(120)["logits"][:, 0]
