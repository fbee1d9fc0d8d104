"""ModernBERT: pre-norm layers with rotary positions and gated dense layers; most layers see a window of tokens only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zoo_direct.config import Config, UnsupportedError
from zoo_direct.families.encoder import Table, divided
from zoo_direct.families.model import Head, Model
from zoo_direct.families.rotary import angles, even, first_attention, frequencies, read_nested_theta, turned
from zoo_direct.form import Form, Linear
from zoo_direct.windows import attend_nearby

LOCAL, GLOBAL = "sliding_attention", "full_attention"


@dataclass(frozen=True)
class Biases:
    """Which parts have one."""

    attention: bool
    dense: bool
    norm: bool
    head: bool


@dataclass(frozen=True)
class ModernBert(Model):
    """gte-reranker-modernbert-base, granite-embedding-reranker-english-r2 and their relatives."""

    words: Table
    heads: int
    inner: int
    activation: str
    head_activation: str
    epsilon: float
    kinds: Sequence[str]
    """LOCAL or GLOBAL for each layer."""
    thetas: dict[str, float]
    reach: int
    mean: bool
    biases: Biases

    classifiers = ("ModernBertForSequenceClassification",)

    @classmethod
    def read(cls, config: Config, head: Head) -> ModernBert:
        config.ignore(
            "decoder_bias", "deterministic_flash_attn", "max_position_embeddings", "reference_compile", "repad_logits_with_grad",
            "sparse_prediction", "sparse_pred_ignore_index",
        )  # fmt: skip
        config.only(
            "position_embedding_type", "absolute", "rope"
        )  # published files say the first, and nothing reads it
        config.only("rope_scaling", None)
        width, epsilon = config.integer("hidden_size"), config.number("norm_eps", 1e-5)
        config.only("layer_norm_eps", epsilon)  # written beside norm_eps, which is the one that counts
        heads = divided(config.integer("num_attention_heads"), width)
        even(width // heads)
        return cls(
            words=Table("model.embeddings.tok_embeddings.weight", config.integer("vocab_size"), width),
            heads=heads,
            inner=config.integer("intermediate_size"),
            activation=config.activation("hidden_activation", "gelu"),
            head_activation=config.activation("classifier_activation", "gelu"),
            epsilon=epsilon,
            kinds=_kinds(config),
            thetas=_thetas(config),
            reach=config.integer("local_attention", 128) // 2,
            mean=config.choice("classifier_pooling", ["cls", "mean"], "cls") == "mean",
            biases=Biases(
                attention=config.flag("attention_bias", False),
                dense=config.flag("mlp_bias", False),
                norm=config.flag("norm_bias", False),
                head=config.flag("classifier_bias", False),
            ),
        )

    def write(self, form: Form) -> None:
        width = self.words.width
        x = self._norm(form, self.words.at(form, form.graph.input("input_ids")), "model.embeddings.norm")
        last = len(self.kinds) - 1
        for number in range(last):
            x = self._layer(form, x, self._attention(form, x, number), number)
        if self.mean or not form.cut_last_layer:
            x = self._layer(form, x, self._attention(form, x, last), last)
        else:
            x = self._layer(form, form.first_token(x), self._first_attention(form, x, last), last)
        x = self._norm(form, x, "model.final_norm")
        x = self._mean(form, x) if self.mean else form.squeezed(form.first_token(x))
        x = form.dense(x, Linear("head.dense", width, width, self.biases.head))
        x = self._norm(form, form.activation(self.head_activation, x), "head.norm")
        self.give_logits(form, x, Linear("classifier", width, 1))

    def _norm(self, form: Form, x: str, name: str) -> str:
        return form.layer_norm(x, name, self.words.width, self.epsilon, bias=self.biases.norm)

    def _before(self, form: Form, x: str, number: int) -> str:
        """What a layer's attention reads; the first layer takes the embeddings, which are normalised already."""
        return self._norm(form, x, f"model.layers.{number}.attn_norm") if number else x

    def _projections(self, number: int) -> Sequence[Linear]:
        width, name = self.words.width, f"model.layers.{number}.attn.Wqkv"
        return [Linear(name, width, width, self.biases.attention, part=(part, 3)) for part in range(3)]

    def _attention(self, form: Form, x: str, number: int) -> str:
        x = self._before(form, x, number)
        size = self.words.width // self.heads
        turn = angles(form, frequencies(self.thetas[self.kinds[number]], size))
        q, k, v = turned(form, x, self._projections(number), self.heads, turn)
        if self.kinds[number] == LOCAL:
            return attend_nearby(form, (q, k, v), self.heads, size, self.reach)
        return form.attend(q, k, v, self.heads, size)

    def _first_attention(self, form: Form, x: str, number: int) -> str:
        """The same for the first token alone, at which its window begins."""
        graph, hidden = form.graph, form.hidden_keys()
        turn = angles(form, frequencies(self.thetas[self.kinds[number]], self.words.width // self.heads))
        if self.kinds[number] == LOCAL:
            cut = graph.integers(0), graph.integers(self.reach + 1)
            x = form.add("Slice", x, *cut, graph.integers(1))
            cos, sin = (form.add("Slice", angle, *cut, graph.integers(0)) for angle in turn)
            turn, hidden = (cos, sin), form.add("Slice", hidden, *cut, graph.integers(3))
        x = self._before(form, x, number)
        return first_attention(form, x, self._projections(number), self.heads, turn, hidden)

    def _layer(self, form: Form, x: str, mixed: str, number: int) -> str:
        """What follows the attention, for any tokens: ``x`` went into the layer, ``mixed`` came out of its attention."""
        width, place, biases = self.words.width, f"model.layers.{number}", self.biases
        x = form.add("Add", x, form.linear(mixed, Linear(f"{place}.attn.Wo", width, width, biases.attention)))
        h = self._norm(form, x, f"{place}.mlp_norm")
        inner, gate = (
            form.linear(h, Linear(f"{place}.mlp.Wi", width, self.inner, biases.dense, part=(n, 2))) for n in (0, 1)
        )
        inner = form.add("Mul", form.activation(self.activation, inner), gate)
        return form.add("Add", x, form.linear(inner, Linear(f"{place}.mlp.Wo", self.inner, width, biases.dense)))

    def _mean(self, form: Form, x: str) -> str:
        """The mean of a row's tokens, (batch, width)."""
        graph, shown = form.graph, form.mask_as_numbers()
        total = form.squeezed(form.add("MatMul", form.add("Unsqueeze", shown, graph.integers(1)), x))
        return form.add("Div", total, form.add("ReduceSum", shown, graph.integers(1)))


def _kinds(config: Config) -> list[str]:
    """From ``layer_types``, or from the period that the files of transformers 4 give."""
    count, period = config.layers(), config.integer("global_attn_every_n_layers", 3)
    kinds = config.names("layer_types", [LOCAL if number % period else GLOBAL for number in range(count)])
    if len(kinds) != count or not set(kinds) <= {LOCAL, GLOBAL}:
        raise UnsupportedError(f"config.json has 'layer_types' that are not {count} of '{LOCAL}' and '{GLOBAL}'")
    return kinds


def _thetas(config: Config) -> dict[str, float]:
    everywhere = config.number("global_rope_theta", 160_000.0)
    # An explicit null means the same as in the global layers; a key that is absent has a default of its own.
    local = config.number("local_rope_theta", everywhere if config.is_null("local_rope_theta") else 10_000.0)
    thetas = {GLOBAL: everywhere, LOCAL: local}
    nested = config.mapping("rope_parameters")
    for kind in thetas if nested else ():
        part = nested.mapping(kind) if nested else None
        thetas[kind] = thetas[kind] if part is None else read_nested_theta(part, thetas[kind])
    if nested:
        nested.close(inert=())
    return thetas
