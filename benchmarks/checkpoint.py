"""A checkpoint to measure with: random weights in the shape of bge-reranker-v2-m3, or of a smaller one, with a real tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.paths import bundled

SHAPES = {  # layers, hidden, heads, feed-forward, vocabulary
    "full": (24, 1024, 16, 4096, 250_002),
    "small": (6, 384, 12, 1536, 250_002),
    "nano": (2, 64, 4, 256, 20_000),
}
POSITIONS = 8194
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def write_checkpoint(
    folder: Path, size: str, tokenizer: Path | None = None, *, half: bool = True, seed: int = 0
) -> Path:
    """Write config, tokenizer and weights (2.27 GB in float32 when full). The tokenizer is the embedded model's unless one is given.

    The weights are spread so that scores differ by about one, and attention looks at some tokens more than at others.
    """
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    layers, hidden, heads, wide, vocabulary = SHAPES[size]
    torch.manual_seed(seed)
    tensors: dict[str, Any] = {}
    for name, shape, std in shapes(layers, hidden, wide, vocabulary):
        if std is None:  # a normalisation
            tensors[name] = torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
        else:
            tensors[name] = torch.randn(shape) * std
        if half:
            tensors[name] = tensors[name].half()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["XLMRobertaForSequenceClassification"],
        "model_type": "xlm-roberta",
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": wide,
        "vocab_size": vocabulary,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 1,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-05,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    for name in TOKENIZER_FILES:
        shutil.copy((tokenizer or bundled("models") / "zoo-reranker-tiny") / name, folder)
    return folder


def shapes(layers: int, hidden: int, wide: int, vocabulary: int) -> Iterator[tuple[str, tuple[int, ...], float | None]]:
    """Names of XLMRobertaForSequenceClassification, shapes, and the standard deviation of the numbers; None for a normalisation."""

    def linear(
        name: str, out: int, into: int, std: float = 0.05
    ) -> Iterator[tuple[str, tuple[int, ...], float | None]]:
        yield f"{name}.weight", (out, into), std
        yield f"{name}.bias", (out,), 0.02

    def norm(name: str) -> Iterator[tuple[str, tuple[int, ...], float | None]]:
        yield f"{name}.weight", (hidden,), None
        yield f"{name}.bias", (hidden,), None

    base = "roberta.embeddings"
    yield f"{base}.word_embeddings.weight", (vocabulary, hidden), 0.02
    yield f"{base}.position_embeddings.weight", (POSITIONS, hidden), 0.02
    yield f"{base}.token_type_embeddings.weight", (1, hidden), 0.02
    yield from norm(f"{base}.LayerNorm")
    for number in range(layers):
        layer = f"roberta.encoder.layer.{number}"
        for part in ("query", "key", "value"):
            yield from linear(f"{layer}.attention.self.{part}", hidden, hidden)
        yield from linear(f"{layer}.attention.output.dense", hidden, hidden)
        yield from norm(f"{layer}.attention.output.LayerNorm")
        yield from linear(f"{layer}.intermediate.dense", wide, hidden)
        yield from linear(f"{layer}.output.dense", hidden, wide)
        yield from norm(f"{layer}.output.LayerNorm")
    yield from linear("classifier.dense", hidden, hidden)
    yield from linear("classifier.out_proj", 1, hidden, std=8.0 / hidden**0.5)
