"""Random checkpoints written by hand, with numpy alone: config.json and safetensors files of every family."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.api import onnxruntime_settings, open_onnxruntime, probes
from zoo.api import read_config as read_model_config
from zoo_direct.float8 import E4M3

Config = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]
Batch = dict[str, NDArray[np.int64]]

LABEL = {"kind": "label"}
LENGTHS = ((1,), (7,), (9, 5, 1), (30, 30), (50, 3))
"""Tokens of each row, a tuple a batch: one token, unpadded and padded ones, rows of one length."""


def linear(name: str, out: int, into: int, *, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (out, into), **({f"{name}.bias": (out,)} if bias else {})}


def norm(name: str, width: int, *, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (width,), **({f"{name}.bias": (width,)} if bias else {})}


# Odd sizes on purpose: nothing is a power of two or a multiple of what a kernel takes at once.
BERT: Config = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "vocab_size": 101,
    "hidden_size": 42,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 37,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "layer_norm_eps": 0.01,  # large enough for a wrong one to show
    "max_position_embeddings": 60,
    "type_vocab_size": 2,
    "pad_token_id": 0,
    "id2label": {"0": "LABEL_0"},
}
ROBERTA: Config = {
    **BERT,
    "architectures": ["XLMRobertaForSequenceClassification"],
    "model_type": "xlm-roberta",
    "type_vocab_size": 1,
    "pad_token_id": 1,
}
ELECTRA: Config = {
    **BERT,
    "architectures": ["ElectraForSequenceClassification"],
    "model_type": "electra",
    "embedding_size": 20,
    "summary_type": "first",
}
DISTILBERT: Config = {
    "architectures": ["DistilBertForSequenceClassification"],
    "model_type": "distilbert",
    "vocab_size": 101,
    "dim": 42,
    "n_layers": 3,
    "n_heads": 3,
    "hidden_dim": 37,
    "activation": "gelu",
    "max_position_embeddings": 60,
    "pad_token_id": 0,
    "sinusoidal_pos_embds": False,
}
MPNET: Config = {
    **{key: value for key, value in BERT.items() if key != "type_vocab_size"},
    "architectures": ["MPNetForSequenceClassification"],
    "model_type": "mpnet",
    "max_position_embeddings": 250,
    "pad_token_id": 1,
    "relative_attention_num_buckets": 32,
}
MODERNBERT: Config = {
    "architectures": ["ModernBertForSequenceClassification"],
    "model_type": "modernbert",
    "vocab_size": 101,
    "hidden_size": 42,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 37,
    "hidden_activation": "gelu",
    "norm_eps": 0.01,
    "layer_norm_eps": 0.01,
    "position_embedding_type": "absolute",
    "max_position_embeddings": 8192,
    "local_attention": 16,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "local_rope_theta": 10000.0,
    "classifier_pooling": "cls",
    "classifier_activation": "gelu",
    "reference_compile": None,
    "pad_token_id": 0,
}
DEBERTA: Config = {
    **{key: value for key, value in BERT.items() if key != "type_vocab_size"},
    "architectures": ["DebertaV2ForSequenceClassification"],
    "model_type": "deberta-v2",
    "max_position_embeddings": 64,
    "relative_attention": True,
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "max_relative_positions": -1,
    "position_biased_input": False,
    "type_vocab_size": 0,
    "pooler_dropout": 0,
    "pooler_hidden_act": "gelu",
    "pooler_hidden_size": 42,
}
GTE_NEW: Config = {
    **{key: value for key, value in BERT.items() if key != "max_position_embeddings"},
    "architectures": ["NewForSequenceClassification"],
    "auto_map": {"AutoModelForSequenceClassification": "Alibaba-NLP/new-impl--modeling.NewForSequenceClassification"},
    "model_type": "new",
    "classifier_dropout": 0.0,
    "layer_norm_type": "layer_norm",
    "logn_attention_clip1": False,
    "logn_attention_scale": False,
    "max_position_embeddings": 8192,
    "pack_qkv": True,
    "pad_token_id": 1,
    "position_embedding_type": "rope",
    "rope_scaling": {"factor": 8.0, "type": "ntk"},
    "rope_theta": 20000,
    "type_vocab_size": 1,
    "unpad_inputs": False,
    "use_memory_efficient_attention": False,
}
QWEN3: Config = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 101,
    "hidden_size": 42,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 37,
    "hidden_act": "silu",
    "rms_norm_eps": 0.01,
    "rope_theta": 1000000,
    "rope_scaling": None,
    "attention_bias": False,
    "use_sliding_window": False,
    "sliding_window": None,
    "max_window_layers": 3,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
}
QWEN2: Config = {
    **{key: value for key, value in QWEN3.items() if key not in ("head_dim", "attention_bias")},
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 40,
    "tie_word_embeddings": False,
}
GEMMA: Config = {
    **{key: value for key, value in QWEN3.items() if "window" not in key},
    "architectures": ["GemmaForCausalLM"],
    "model_type": "gemma",
    "num_key_value_heads": 1,
    "hidden_act": "gelu",
    "hidden_activation": None,
    "rope_theta": 10000.0,
}
CONFIGS: Mapping[str, Config] = {
    "bert": BERT,
    "xlm-roberta": ROBERTA,
    "electra": ELECTRA,
    "distilbert": DISTILBERT,
    "mpnet": MPNET,
    "modernbert": MODERNBERT,
    "deberta-v2": DEBERTA,
    "new": GTE_NEW,
}
DECODERS: Mapping[str, Config] = {"qwen3": QWEN3, "qwen2": QWEN2, "gemma": GEMMA}


def bert_shapes(config: Config, prefix: str) -> Shapes:
    """Embeddings and layers, without the head."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    narrow = config.get("embedding_size", width)
    shapes: Shapes = norm(f"{prefix}.embeddings.LayerNorm", narrow)
    for table, rows in (
        ("word", config["vocab_size"]),
        ("position", config["max_position_embeddings"]),
        ("token_type", config["type_vocab_size"]),
    ):
        shapes[f"{prefix}.embeddings.{table}_embeddings.weight"] = (rows, narrow)
    for number in range(config["num_hidden_layers"]):
        layer = f"{prefix}.encoder.layer.{number}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= linear(f"{layer}.attention.{part}", width, width)
        shapes |= norm(f"{layer}.attention.output.LayerNorm", width) | norm(f"{layer}.output.LayerNorm", width)
        shapes |= linear(f"{layer}.intermediate.dense", inner, width) | linear(f"{layer}.output.dense", width, inner)
    return shapes


def _bert(config: Config) -> Shapes:
    width = config["hidden_size"]
    return bert_shapes(config, "bert") | linear("bert.pooler.dense", width, width) | linear("classifier", 1, width)


def _roberta(config: Config) -> Shapes:
    return bert_shapes(config, "roberta") | _two_layers("classifier.dense", "classifier.out_proj", config)


def _electra(config: Config) -> Shapes:
    width, narrow = config["hidden_size"], config["embedding_size"]
    project = linear("electra.embeddings_project", width, narrow) if narrow != width else {}
    return bert_shapes(config, "electra") | project | _two_layers("classifier.dense", "classifier.out_proj", config)


def _distilbert(config: Config) -> Shapes:
    width, inner, place = config["dim"], config["hidden_dim"], "distilbert.embeddings"
    shapes = norm(f"{place}.LayerNorm", width)
    shapes[f"{place}.word_embeddings.weight"] = (config["vocab_size"], width)
    shapes[f"{place}.position_embeddings.weight"] = (config["max_position_embeddings"], width)
    for number in range(config["n_layers"]):
        layer = f"distilbert.transformer.layer.{number}"
        for part in ("q_lin", "k_lin", "v_lin", "out_lin"):
            shapes |= linear(f"{layer}.attention.{part}", width, width)
        shapes |= norm(f"{layer}.sa_layer_norm", width) | norm(f"{layer}.output_layer_norm", width)
        shapes |= linear(f"{layer}.ffn.lin1", inner, width) | linear(f"{layer}.ffn.lin2", width, inner)
    return shapes | _two_layers("pre_classifier", "classifier", {"hidden_size": width})


def _mpnet(config: Config) -> Shapes:
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes = norm("mpnet.embeddings.LayerNorm", width)
    shapes["mpnet.embeddings.word_embeddings.weight"] = (config["vocab_size"], width)
    shapes["mpnet.embeddings.position_embeddings.weight"] = (config["max_position_embeddings"], width)
    shapes["mpnet.encoder.relative_attention_bias.weight"] = (32, config["num_attention_heads"])
    for number in range(config["num_hidden_layers"]):
        layer = f"mpnet.encoder.layer.{number}"
        for part in "qkvo":
            shapes |= linear(f"{layer}.attention.attn.{part}", width, width)
        shapes |= norm(f"{layer}.attention.LayerNorm", width) | norm(f"{layer}.output.LayerNorm", width)
        shapes |= linear(f"{layer}.intermediate.dense", inner, width) | linear(f"{layer}.output.dense", width, inner)
    return shapes | _two_layers("classifier.dense", "classifier.out_proj", config)


def _modernbert(config: Config) -> Shapes:
    width, inner, normed = config["hidden_size"], config["intermediate_size"], config.get("norm_bias", False)
    shapes = {"model.embeddings.tok_embeddings.weight": (config["vocab_size"], width)}
    for name in ("model.embeddings.norm", "model.final_norm", "head.norm"):
        shapes |= norm(name, width, bias=normed)
    for number in range(config["num_hidden_layers"]):
        layer, biased = f"model.layers.{number}", config.get("attention_bias", False)
        shapes |= norm(f"{layer}.attn_norm", width, bias=normed) if number else {}
        shapes |= linear(f"{layer}.attn.Wqkv", 3 * width, width, bias=biased)
        shapes |= linear(f"{layer}.attn.Wo", width, width, bias=biased)
        shapes |= norm(f"{layer}.mlp_norm", width, bias=normed)
        shapes |= linear(f"{layer}.mlp.Wi", 2 * inner, width, bias=config.get("mlp_bias", False))
        shapes |= linear(f"{layer}.mlp.Wo", width, inner, bias=config.get("mlp_bias", False))
    shapes |= linear("head.dense", width, width, bias=config.get("classifier_bias", False))
    return shapes | linear("classifier", 1, width)


def _deberta(config: Config) -> Shapes:
    width, inner, rows = config["hidden_size"], config["intermediate_size"], config["position_buckets"]
    narrow, furthest = config.get("embedding_size", width), config["max_relative_positions"]
    rows = rows if rows > 0 else furthest if furthest > 0 else config["max_position_embeddings"]
    shapes: Shapes = {"deberta.embeddings.word_embeddings.weight": (config["vocab_size"], narrow)}
    shapes |= norm("deberta.embeddings.LayerNorm", width)
    if config["position_biased_input"]:
        shapes["deberta.embeddings.position_embeddings.weight"] = (config["max_position_embeddings"], narrow)
    if config["type_vocab_size"]:
        shapes["deberta.embeddings.token_type_embeddings.weight"] = (config["type_vocab_size"], narrow)
    if narrow != width:
        shapes |= linear("deberta.embeddings.embed_proj", width, narrow, bias=False)
    if config["relative_attention"]:
        shapes["deberta.encoder.rel_embeddings.weight"] = (2 * rows, width)
    if config["norm_rel_ebd"] != "none":
        shapes |= norm("deberta.encoder.LayerNorm", width)
    if kernel := config.get("conv_kernel_size", 0):
        shapes["deberta.encoder.conv.conv.weight"] = (width, width // config.get("conv_groups", 1), kernel)
        shapes |= {"deberta.encoder.conv.conv.bias": (width,), **norm("deberta.encoder.conv.LayerNorm", width)}
    for number in range(config["num_hidden_layers"]):
        layer = f"deberta.encoder.layer.{number}"
        parts = ["self.query_proj", "self.key_proj", "self.value_proj", "output.dense"]
        if config["relative_attention"] and not config["share_att_key"]:
            parts += ["self.pos_key_proj"] * ("c2p" in config["pos_att_type"])
            parts += ["self.pos_query_proj"] * ("p2c" in config["pos_att_type"])
        for part in parts:
            shapes |= linear(f"{layer}.attention.{part}", width, width)
        shapes |= norm(f"{layer}.attention.output.LayerNorm", width) | norm(f"{layer}.output.LayerNorm", width)
        shapes |= linear(f"{layer}.intermediate.dense", inner, width) | linear(f"{layer}.output.dense", width, inner)
    return shapes | _two_layers("pooler.dense", "classifier", config)


def _gte_new(config: Config) -> Shapes:
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes: Shapes = {"new.embeddings.word_embeddings.weight": (config["vocab_size"], width)}
    shapes |= norm("new.embeddings.LayerNorm", width)
    if config["type_vocab_size"]:
        shapes["new.embeddings.token_type_embeddings.weight"] = (config["type_vocab_size"], width)
    for number in range(config["num_hidden_layers"]):
        layer = f"new.encoder.layer.{number}"
        if config["pack_qkv"]:
            shapes |= linear(f"{layer}.attention.qkv_proj", 3 * width, width)
        else:
            for part in "qkv":
                shapes |= linear(f"{layer}.attention.{part}_proj", width, width)
        shapes |= linear(f"{layer}.attention.o_proj", width, width)
        shapes |= norm(f"{layer}.attn_ln", width) | norm(f"{layer}.mlp_ln", width)
        shapes |= linear(f"{layer}.mlp.up_gate_proj", 2 * inner, width, bias=False)
        shapes |= linear(f"{layer}.mlp.down_proj", width, inner)
    return shapes | _two_layers("new.pooler.dense", "classifier", config)


def _decoder(config: Config) -> Shapes:
    width, inner = config["hidden_size"], config["intermediate_size"]
    size = config.get("head_dim", width // config["num_attention_heads"])
    queries, keys = config["num_attention_heads"] * size, config["num_key_value_heads"] * size
    two = config["model_type"] == "qwen2"
    biased = two or config.get("attention_bias", False)
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], width), "model.norm.weight": (width,)}
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        for part, out in (("q", queries), ("k", keys), ("v", keys)):
            shapes |= linear(f"{layer}.self_attn.{part}_proj", out, width, bias=biased)
        shapes |= linear(f"{layer}.self_attn.o_proj", width, queries, bias=biased and not two)
        if config["model_type"] == "qwen3":
            shapes |= {f"{layer}.self_attn.{part}_norm.weight": (size,) for part in "qk"}
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes |= norm(f"{layer}.{name}", width, bias=False)
        for part, out, into in (("gate", inner, width), ("up", inner, width), ("down", width, inner)):
            shapes |= linear(f"{layer}.mlp.{part}_proj", out, into, bias=False)
    if "SequenceClassification" in config["architectures"][0]:
        return shapes | {"score.weight": (1, width)}
    tied = config.get("tie_word_embeddings", config["model_type"] == "gemma")
    return shapes if tied else shapes | {"lm_head.weight": (config["vocab_size"], width)}


def _two_layers(dense: str, out: str, config: Config) -> Shapes:
    width = config["hidden_size"]
    return linear(dense, width, width) | linear(out, 1, width)


SHAPES: Mapping[str, Callable[[Config], Shapes]] = {
    "bert": _bert,
    "camembert": _roberta,
    "deberta-v2": _deberta,
    "distilbert": _distilbert,
    "electra": _electra,
    "gemma": _decoder,
    "modernbert": _modernbert,
    "mpnet": _mpnet,
    "new": _gte_new,
    "qwen2": _decoder,
    "qwen3": _decoder,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
}
"""The tensors of a checkpoint by its ``model_type``."""


def write(
    folder: Path,
    config: Config,
    *,
    dtype: str = "F32",
    shards: int = 1,
    seed: int = 0,
    rename: Callable[[str], str] = lambda name: name,
    extra: Shapes | None = None,
) -> Path:
    """A checkpoint whose biases and normalisations are perturbed too, so that leaving one out shows. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shapes = {**SHAPES[config["model_type"]](config), **(extra or {})}
    gain = 0 if config["model_type"] == "gemma" else 1  # Gemma's normalisations add the 1 by themselves
    tensors = random_tensors(shapes, seed, gain)
    tensors = {rename(name): tensor for name, tensor in tensors.items()}
    if shards == 1:
        save(folder / "model.safetensors", tensors, dtype)
        return folder
    places = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(tensors.items())[number::shards])
        save(folder / file, part, dtype)
        places |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def random_tensors(shapes: Mapping[str, Sequence[int]], seed: int, gain: float = 1) -> dict[str, NDArray[np.float32]]:
    """Normal numbers; weights of normalisations are around ``gain``."""
    random = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes.items():
        values = random.standard_normal(shape, dtype=np.float32) * np.float32(0.1)
        normalises = name.endswith("weight") and re.search(r"norm|_ln$", name.lower().split(".")[-2])
        tensors[name] = values + np.float32(gain if normalises else 0)
    return tensors


def save(path: Path, tensors: Mapping[str, NDArray[np.float32]], dtype: str = "F32") -> None:
    """A safetensors file; ``dtype`` is F32, F16, or BF16 or F8_E4M3 (rounded towards zero, which no test minds)."""
    header, parts, place = {}, [], 0
    for name, tensor in tensors.items():
        raw = _stored(tensor, dtype).tobytes()
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [place, place + len(raw)]}
        parts.append(raw)
        place += len(raw)
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def _stored(tensor: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    if dtype == "BF16":
        return (tensor.view("<u4") >> 16).astype("<u2")
    if dtype == "F8_E4M3":
        sizes = np.array(E4M3[:127], np.float32)  # of rising size, without a sign
        return np.where(tensor < 0, 128, 0).astype("u1") + (np.searchsorted(sizes, abs(tensor), "right") - 1).astype(
            "u1"
        )
    return tensor.astype({"F32": "<f4", "F16": "<f2"}[dtype])


def batches(config: Config, lengths: Sequence[Sequence[int]] = LENGTHS, seed: int = 1) -> list[Batch]:
    """Random rows of these lengths, padded on the right; a second type from a third of each row on if the model has types."""
    random = np.random.default_rng(seed)
    made = []
    for rows in lengths:
        width = max(rows)
        mask = (np.arange(width) < np.array(rows)[:, None]).astype(np.int64)
        pad = config.get("pad_token_id") or 0
        batch = {
            "input_ids": np.where(mask == 1, random.integers(5, config["vocab_size"], mask.shape), pad),
            "attention_mask": mask,
        }
        if config.get("type_vocab_size", 0) > 1:
            batch["token_type_ids"] = mask * (np.arange(width) > np.array(rows)[:, None] / 3)
        made.append(batch)
    return made


def proof_batches(folder: Path, config: Config) -> list[Batch]:
    """Random rows of the lengths that an export proves the checkpoint in ``folder`` with."""
    return batches(config, probes.lengths_of(read_model_config(folder)))


def run(model: bytes, folder: Path, given: Sequence[Mapping[str, NDArray[Any]]]) -> list[NDArray[np.float32]]:
    """The logits of each batch by ONNX Runtime, with the checkpoint's folder as the place of the weights."""
    session = open_session(model, folder)
    given = [{**nothing_before(session), **batch} for batch in given]
    names = [node.name for node in session.get_inputs()]
    return [session.run(["logits"], {name: batch[name] for name in names})[0] for batch in given]


def nothing_before(session: Any) -> dict[str, NDArray[np.float32]]:
    """The keys and values of an empty prefix, if the graph takes a prefix."""
    inputs = [node for node in session.get_inputs() if node.name.startswith("past_")]
    return {node.name: np.zeros((1, node.shape[1], 0, node.shape[3]), np.float32) for node in inputs}


def open_session(model: bytes, folder: Path) -> Any:
    """A session of the graph written into the folder, which every version of ONNX Runtime resolves weights in."""
    place = folder / "written.onnx"
    place.write_bytes(model)
    return open_onnxruntime(place, onnxruntime_settings(1, join_int8=False))


def misread(folder: Path, config: Config, change: Config) -> Path:
    """A folder with the same weights and another configuration, beside ``folder``."""
    place = folder.with_name(f"{folder.name}-misread")
    place.mkdir(exist_ok=True)
    for file in folder.glob("*.safetensors"):
        (place / file.name).write_bytes(file.read_bytes())
    (place / "config.json").write_text(json.dumps({**config, **change}), encoding="utf-8")
    return place


def difference(one: Sequence[NDArray[Any]], other: Sequence[NDArray[Any]]) -> float:
    """The largest between two lists of logits, over the largest logit or 1."""
    pairs = list(zip(one, other, strict=True))
    assert all(a.shape == b.shape for a, b in pairs)
    largest = max(1.0, *(float(np.abs(a).max()) for a, _ in pairs))
    return max(float(np.abs(a - b).max()) for a, b in pairs) / largest
