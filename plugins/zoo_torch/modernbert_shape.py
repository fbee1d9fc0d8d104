"""What ModernBERT's config.json says, as transformers 4 or 5 wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo_torch.families import NotPackable, check_packable
from zoo_torch.kernels import ACTIVATIONS, Activation
from zoo_torch.widths import Widths

Config = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the weights alone do not tell."""

    widths: Widths
    layers: int
    reaches: Sequence[int | None]
    """For each layer, how many tokens to each side attention sees; None for all."""
    thetas: Sequence[float]
    """For each layer, the base of its rotary positions."""
    activation: Activation
    head_activation: Activation
    mean: bool
    longest: int

    @property
    def reach(self) -> int | None:
        return next((reach for reach in self.reaches if reach is not None), None)


def shape_of(config: Config) -> Shape:
    """The model's shape by config.json, as transformers 4 or 5 wrote it. Raises NotPackable."""
    needed = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
    if missing := [key for key in needed if key not in config]:
        raise NotPackable(f"config.json lacks {', '.join(missing)}")
    activation = str(config.get("hidden_activation", "gelu"))
    head_activation = str(config.get("classifier_activation", "gelu"))
    for each in (activation, head_activation):
        check_packable(config, each)
    if config.get("rope_scaling"):
        raise NotPackable("config.json has rope_scaling")
    pooling = config.get("classifier_pooling", "cls")
    if pooling not in ("cls", "mean"):
        raise NotPackable(f"its pooling is '{pooling}'")
    layers = int(config["num_hidden_layers"])
    whole = _global_layers(config, layers)
    theta, local_theta = _thetas(config)
    reach = int(config.get("local_attention", 128)) // 2
    return Shape(
        widths=Widths(
            heads=int(config["num_attention_heads"]),
            hidden=int(config["hidden_size"]),
            inner=int(config["intermediate_size"]),
            eps=float(config.get("norm_eps", 1e-5)),
        ),
        layers=layers,
        reaches=[None if each else reach for each in whole],
        thetas=[theta if each else local_theta for each in whole],
        activation=ACTIVATIONS[activation],
        head_activation=ACTIVATIONS[head_activation],
        mean=pooling == "mean",
        longest=int(config.get("max_position_embeddings", 8192)),
    )


def _global_layers(config: Config, layers: int) -> list[bool]:
    kinds = config.get("layer_types")  # transformers 5
    if kinds is None:
        every = int(config.get("global_attn_every_n_layers", 3))
        return [number % every == 0 for number in range(layers)]
    unknown = set(kinds) - {"full_attention", "sliding_attention"}
    if unknown or len(kinds) != layers:
        raise NotPackable(f"config.json has layer_types {sorted(set(kinds))} for {layers} layers")
    return [kind == "full_attention" for kind in kinds]


def _thetas(config: Config) -> tuple[float, float]:
    parameters = config.get("rope_parameters")  # transformers 5
    if parameters is None:
        theta = float(config.get("global_rope_theta", 160000.0))
        local = config.get("local_rope_theta", 10000.0)
        return theta, theta if local is None else float(local)
    kinds = [parameters.get(kind) or {} for kind in ("full_attention", "sliding_attention")]
    if any(kind.get("rope_type", "default") != "default" or "rope_theta" not in kind for kind in kinds):
        raise NotPackable(f"config.json has rope_parameters {parameters}")
    return float(kinds[0]["rope_theta"]), float(kinds[1]["rope_theta"])
