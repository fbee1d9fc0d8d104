"""Alibaba's ``new``: post-norm layers with rotary positions and gated dense layers. The repository's own code is never run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zoo_direct.config import Config, UnsupportedError
from zoo_direct.families.encoder import Table, add_token_types, divided
from zoo_direct.families.model import Head, Model
from zoo_direct.families.rotary import angles, even, first_attention, frequencies, ntk_frequencies, turned
from zoo_direct.form import Form, Linear


@dataclass(frozen=True)
class GteNew(Model):
    """gte-multilingual-reranker-base and its relatives."""

    words: Table
    types: Table | None
    count: int
    heads: int
    inner: int
    activation: str
    epsilon: float
    turns: Sequence[float]
    """The frequency of each pair of a head."""
    packed: bool
    """Whether queries, keys and values are one matrix."""

    classifiers = ("NewForSequenceClassification",)

    @classmethod
    def read(cls, config: Config, head: Head) -> GteNew:
        config.ignore("auto_map", "max_position_embeddings", "unpad_inputs", "use_memory_efficient_attention")
        config.only("position_embedding_type", "rope")
        config.only("layer_norm_type", "layer_norm")
        config.only("logn_attention_scale", False)
        config.ignore("logn_attention_clip1")  # bounds what the key above turns on
        width = config.integer("hidden_size")
        heads = divided(config.integer("num_attention_heads"), width)
        types = config.integer("type_vocab_size", 1, least=0)
        return cls(
            words=Table("new.embeddings.word_embeddings.weight", config.integer("vocab_size"), width),
            types=Table("new.embeddings.token_type_embeddings.weight", types, width) if types else None,
            count=config.layers(),
            heads=heads,
            inner=config.integer("intermediate_size"),
            activation=config.activation("hidden_act", "gelu"),
            epsilon=config.number("layer_norm_eps", 1e-12),
            turns=_turns(config, even(width // heads)),
            packed=config.flag("pack_qkv", True),
        )

    def write(self, form: Form) -> None:
        width = self.words.width
        x = self.words.at(form, form.graph.input("input_ids"))
        x = add_token_types(form, x, self.types) if self.types else x
        x = self._norm(form, x, "new.embeddings.LayerNorm")
        turn, last = angles(form, self.turns), self.count - 1
        for number in range(self.count):
            parts = self._projections(number)
            if number == last and form.cut_last_layer:
                first, mixed = (
                    form.first_token(x),
                    first_attention(form, x, parts, self.heads, turn, form.hidden_keys()),
                )
            else:
                first, mixed = (
                    x,
                    form.attend(*turned(form, x, parts, self.heads, turn), self.heads, width // self.heads),
                )
            x = self._dense(form, first, mixed, number)
        x = form.squeezed(x if form.cut_last_layer else form.first_token(x))
        x = form.dense(x, Linear("new.pooler.dense", width, width))
        self.give_logits(form, form.activation("tanh", x), Linear("classifier", width, 1))

    def _norm(self, form: Form, x: str, name: str) -> str:
        return form.layer_norm(x, name, self.words.width, self.epsilon)

    def _projections(self, number: int) -> Sequence[Linear]:
        width, place = self.words.width, f"new.encoder.layer.{number}.attention"
        if self.packed:
            return [Linear(f"{place}.qkv_proj", width, width, part=(part, 3)) for part in range(3)]
        return [Linear(f"{place}.{part}_proj", width, width) for part in "qkv"]

    def _dense(self, form: Form, x: str, mixed: str, number: int) -> str:
        """What follows the attention, for any tokens: ``x`` went into the layer, ``mixed`` came out of its attention."""
        width, place = self.words.width, f"new.encoder.layer.{number}"
        x = form.add("Add", x, form.linear(mixed, Linear(f"{place}.attention.o_proj", width, width)))
        x = self._norm(form, x, f"{place}.attn_ln")
        joint = f"{place}.mlp.up_gate_proj"
        up, gate = (form.linear(x, Linear(joint, width, self.inner, bias=False, part=(part, 2))) for part in (0, 1))
        y = form.add("Mul", form.activation(self.activation, gate), up)
        y = form.linear(y, Linear(f"{place}.mlp.down_proj", self.inner, width))
        return self._norm(form, form.add("Add", x, y), f"{place}.mlp_ln")


def _turns(config: Config, size: int) -> list[float]:
    theta, scaling = config.number("rope_theta", 10_000.0), config.mapping("rope_scaling")
    if scaling is None:
        return frequencies(theta, size)
    scaling.choice("type", ["ntk"])
    factor = scaling.number("factor")
    if factor < 1:
        raise UnsupportedError(f"config.json has 'rope_scaling' with the factor {factor}; only 1 or more is understood")
    mixed = scaling.number("mixed_b") if scaling.has("mixed_b") else None
    scaling.close(inert=("mixed_b",))
    return ntk_frequencies(theta, size, factor, mixed)
