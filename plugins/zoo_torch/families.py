"""How each family of encoders names its weights, counts positions and ends; what is not known here runs through transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # the name that torch's users know

from zoo_torch.encoder import Embeddings, Head, Layer, Linear, PackedEncoder, Shape
from zoo_torch.kernels import ACTIVATIONS, Activation, Kernels
from zoo_torch.weights import Weights
from zoo_torch.widths import Widths

Config = Mapping[str, Any]


class NotPackable(Exception):  # noqa: N818  # not an error: the model runs in another way
    """The model is not one that the packed forward computes; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Names:
    """What a family calls the keys of its config and its weights; ``{n}`` is a layer's number."""

    base: str
    layer: str
    qkv: Sequence[str]
    out: str
    norm: str
    up: str
    down: str
    last_norm: str
    keys: Mapping[str, str]
    eps: float | None = None
    """The epsilon where the family's code has it, and not its config."""


BERT_KEYS = {
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "inner": "intermediate_size",
    "activation": "hidden_act",
}


def _bert_names(base: str) -> Names:
    return Names(
        base=base,
        layer=f"{base}.encoder.layer.{{n}}.",
        qkv=("attention.self.query", "attention.self.key", "attention.self.value"),
        out="attention.output.dense",
        norm="attention.output.LayerNorm",
        up="intermediate.dense",
        down="output.dense",
        last_norm="output.LayerNorm",
        keys=BERT_KEYS,
    )


ROBERTA, BERT, ELECTRA = (_bert_names(base) for base in ("roberta", "bert", "electra"))
DISTILBERT = Names(
    base="distilbert",
    layer="distilbert.transformer.layer.{n}.",
    qkv=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    out="attention.out_lin",
    norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    last_norm="output_layer_norm",
    keys={"hidden": "dim", "layers": "n_layers", "heads": "n_heads", "inner": "hidden_dim", "activation": "activation"},
    eps=1e-12,
)
FAMILIES: Mapping[str, Names] = {
    "xlm-roberta": ROBERTA,
    "roberta": ROBERTA,
    "camembert": ROBERTA,
    "bert": BERT,
    "electra": ELECTRA,
    "distilbert": DISTILBERT,
}
"""By the ``model_type`` of config.json."""

KNOWN_VALUES: Mapping[str, Sequence[Any]] = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "pruned_heads": ({},),
    "quantization_config": (),
    "auto_map": (),
}
"""Keys that change what these classes compute, with the values that are computed here; None always counts as absent."""


def check_packable(config: Config, activation: str) -> None:
    """Raises NotPackable when config.json asks for arithmetic that the packed forward does not have."""
    architectures = config.get("architectures") or []
    if architectures and not str(architectures[0]).endswith("ForSequenceClassification"):
        raise NotPackable(f"its architecture is {architectures[0]}")
    for key, values in KNOWN_VALUES.items():
        if config.get(key) is not None and config[key] not in values:
            raise NotPackable(f"config.json has {key} = {config[key]!r}")
    if activation not in ACTIVATIONS:
        raise NotPackable(f"its activation is '{activation}'")


def shape_of(config: Config) -> Shape:
    """The model's shape by config.json. Raises NotPackable."""
    kind = str(config.get("model_type"))
    if kind not in FAMILIES:
        raise NotPackable(f"models of type '{kind}' are not among those with a packed forward")
    names = FAMILIES[kind]
    missing = [key for part, key in names.keys.items() if part != "activation" and key not in config]
    missing += [] if "max_position_embeddings" in config else ["max_position_embeddings"]
    if missing:
        raise NotPackable(f"config.json lacks {', '.join(missing)}")
    activation = str(config.get(names.keys["activation"], "gelu"))
    check_packable(config, activation)
    if names is ROBERTA and config.get("pad_token_id", 1) is None:
        raise NotPackable("config.json has no pad_token_id, which its positions are counted from")
    padding = int(config.get("pad_token_id", 1)) if names is ROBERTA else None
    hidden, heads = int(config[names.keys["hidden"]]), int(config[names.keys["heads"]])
    if hidden % heads:
        raise NotPackable(f"its width of {hidden} is not a multiple of its {heads} heads")
    return Shape(
        widths=Widths(
            heads=heads,
            hidden=hidden,
            inner=int(config[names.keys["inner"]]),
            eps=names.eps or float(config.get("layer_norm_eps", 1e-12)),
        ),
        activation=ACTIVATIONS[activation],
        padding=padding,
        longest=int(config["max_position_embeddings"]) - (0 if padding is None else padding + 1),
    )


def build(config: Config, weights: Weights, kernels: Kernels) -> PackedEncoder:
    """The packed model of a checkpoint. Raises NotPackable, or ZooError when weights are missing or of another shape."""
    shape = shape_of(config)
    names = FAMILIES[str(config["model_type"])]
    layers = [_layer(names, weights, shape.widths, number) for number in range(int(config[names.keys["layers"]]))]
    head = HEADS[names.base](weights, shape.widths.hidden, shape.activation)
    return PackedEncoder(shape, _embeddings(config, names, weights, shape.widths.hidden), layers, head, kernels)


def _linear(weights: Weights, name: str, out: int, into: int) -> Linear:
    return weights.take(f"{name}.weight", out, into), weights.take(f"{name}.bias", out)


def _norm(weights: Weights, name: str, width: int) -> Linear:
    return weights.take(f"{name}.weight", width), weights.take(f"{name}.bias", width)


def _layer(names: Names, weights: Weights, widths: Widths, number: int) -> Layer:
    prefix, hidden, inner = names.layer.format(n=number), widths.hidden, widths.inner
    parts = [_linear(weights, prefix + part, hidden, hidden) for part in names.qkv]
    return Layer(
        qkv=(torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])),
        out=_linear(weights, prefix + names.out, hidden, hidden),
        norm=_norm(weights, prefix + names.norm, hidden),
        up=_linear(weights, prefix + names.up, inner, hidden),
        down=_linear(weights, prefix + names.down, hidden, inner),
        last_norm=_norm(weights, prefix + names.last_norm, hidden),
    )


def _embeddings(config: Config, names: Names, weights: Weights, hidden: int) -> Embeddings:
    width = int(config.get("embedding_size", 128)) if names is ELECTRA else hidden
    base = f"{names.base}.embeddings"
    places = weights.take(f"{base}.position_embeddings.weight", int(config["max_position_embeddings"]), width)
    kinds = 0 if names is DISTILBERT else int(config.get("type_vocab_size", 2))
    types = weights.take(f"{base}.token_type_embeddings.weight", kinds, width) if kinds else None
    if kinds == 1 and types is not None:
        places, types = (places.float() + types.float()).to(places.dtype), None
    project = f"{names.base}.embeddings_project"
    return Embeddings(
        words=weights.take(f"{base}.word_embeddings.weight", int(config["vocab_size"]), width),
        places=places,
        types=types,
        norm=_norm(weights, f"{base}.LayerNorm", width),
        projection=_linear(weights, project, hidden, width) if width != hidden else None,
    )


def _two_layers(first: Linear, activation: Activation, second: Linear) -> Head:
    def head(x: torch.Tensor) -> torch.Tensor:
        return F.linear(activation(F.linear(x, *first)), *second)

    return head


def _roberta_head(weights: Weights, hidden: int, activation: Activation) -> Head:
    dense = _linear(weights, "classifier.dense", hidden, hidden)
    return _two_layers(dense, torch.tanh, _linear(weights, "classifier.out_proj", 1, hidden))


def _bert_head(weights: Weights, hidden: int, activation: Activation) -> Head:
    classifier = _linear(weights, "classifier", 1, hidden)  # first: an encoder without one may have no pooler either
    return _two_layers(_linear(weights, "bert.pooler.dense", hidden, hidden), torch.tanh, classifier)


def _electra_head(weights: Weights, hidden: int, activation: Activation) -> Head:
    dense = _linear(weights, "classifier.dense", hidden, hidden)
    return _two_layers(
        dense, F.gelu, _linear(weights, "classifier.out_proj", 1, hidden)
    )  # GELU whatever the config says


def _distilbert_head(weights: Weights, hidden: int, activation: Activation) -> Head:
    dense = _linear(weights, "pre_classifier", hidden, hidden)
    return _two_layers(dense, F.relu, _linear(weights, "classifier", 1, hidden))


HEADS = {"roberta": _roberta_head, "bert": _bert_head, "electra": _electra_head, "distilbert": _distilbert_head}
