"""What the decoder families share: causal pre-norm layers with rotary positions, read at each row's last token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zoo_direct.config import Config, UnsupportedError
from zoo_direct.families.encoder import Table
from zoo_direct.families.model import Head, Model
from zoo_direct.families.rotary import angles, even, frequencies
from zoo_direct.form import Form, Linear
from zoo_direct.onnx_bytes import FLOAT


@dataclass(frozen=True, kw_only=True)
class Decoder(Model):
    """A language model of which one number a row is wanted.

    Rows are padded on the right: with a causal mask no token attends to the padding, and the logit is read at the last token that
    ``attention_mask`` shows. Of the language model's head only the rows of the tokens in ``head`` are multiplied.

    Written ``with_prefix``, the graph takes keys and values of P >= 0 tokens that all rows begin with, ``past_keys_N`` and
    ``past_values_N`` of layer N, (1, key heads, P, size), and gives ``new_keys_N`` and ``new_values_N`` of its own tokens, (batch, key
    heads, token, size). The prefix is run once, as one row with P = 0; its outputs are the inputs of the rows that go on after it.
    """

    words: Table
    count: int
    heads: int
    key_heads: int
    size: int
    inner: int
    activation: str
    epsilon: float
    theta: float
    head: Head
    tied: bool
    bias: bool = False
    """Whether queries, keys and values have one."""
    output_bias: bool = False
    head_norms: bool = False
    """Whether each head's queries and keys are normalised."""
    gain_from_one: bool = False
    """Whether a normalisation multiplies with 1 + its weight."""
    embedding_scale: float = 1.0

    def write(self, form: Form) -> None:
        _Writing(self, form, with_prefix=False).run()

    def write_with_prefix(self, form: Form) -> None:
        _Writing(self, form, with_prefix=True).run()


def read_decoder(config: Config, head: Head, *, size: int = 0) -> dict[str, Any]:
    """What every decoder's config.json says, as arguments of Decoder. ``size`` is a head's if no key gives it; 0: the width's share."""
    config.ignore("max_position_embeddings", "sliding_window", "max_window_layers")
    config.only("use_sliding_window", False)
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    count, rows = config.layers(), config.integer("vocab_size")
    key_heads = config.integer("num_key_value_heads", heads)
    if heads % key_heads:
        raise UnsupportedError(f"config.json has {heads} attention heads, which {key_heads} heads of keys cannot share")
    if set(config.names("layer_types", ["full_attention"])) != {"full_attention"}:
        raise UnsupportedError(
            "config.json has 'layer_types' other than 'full_attention'; windows of a decoder are not written"
        )
    for token in head.tokens:
        if token >= rows:
            raise UnsupportedError(f"the head reads the token {token}; the vocabulary in config.json has {rows}")
    return {
        "words": Table("embed_tokens.weight", rows, width),
        "count": count,
        "heads": heads,
        "key_heads": key_heads,
        "size": even(config.integer("head_dim", size or width // heads)),
        "inner": config.integer("intermediate_size"),
        "epsilon": config.number("rms_norm_eps", 1e-6),
        "head": head,
    }


class _Writing:
    """Writes one decoder into a graph."""

    def __init__(self, model: Decoder, form: Form, *, with_prefix: bool) -> None:
        self.model, self.form, self.graph, self.with_prefix = model, form, form.graph, with_prefix
        self.width = model.words.width
        ids = self.graph.input("input_ids")
        self.batch = self.graph.size_vector(ids, 0)
        tokens = form.add("ReduceSum", self.graph.input("attention_mask"), self.graph.integers(1))
        self.last = form.add("Sub", tokens, self.graph.integer(1))  # (batch, 1)
        shape: list[int | str] = [1, model.key_heads, "prefix_length", model.size]
        self.past: list[tuple[str, str]] = []
        for number in range(model.count if with_prefix else 0):
            names = (f"past_keys_{number}", f"past_values_{number}")
            self.past.append((self.graph.input(names[0], shape, FLOAT), self.graph.input(names[1], shape, FLOAT)))
        prefix = self.graph.size(self.past[0][0], 2) if with_prefix else ""
        self.prefix = prefix
        self.prefix_vector = self.graph.size_vector(self.past[0][0], 2) if with_prefix else ""
        self.made: list[Sequence[str]] = []
        self.cos, self.sin = angles(form, frequencies(model.theta, model.size), prefix)

    def run(self) -> None:
        model, form = self.model, self.form
        x = model.words.at(form, "input_ids")
        if model.embedding_scale != 1.0:
            x = form.add("Mul", x, self.graph.number(model.embedding_scale))
        for number in range(model.count - 1):
            x = self._layer(x, self._attention(x, number), number)
        number = model.count - 1
        if form.cut_last_layer:
            x = self._layer(self._last_token(x), self._last_attention(x, number), number)
        else:
            x = self._last_token(self._layer(x, self._attention(x, number), number))
        x = form.squeezed(self._norm(x, "norm", self.width))
        self.graph.output("logits", form.add("Gemm", x, self._head_row(), transB=1), ["batch_size", 1])
        axes: list[int | str] = ["batch_size", model.key_heads, "sequence_length", model.size]
        for number, (keys, values) in enumerate(self.made):
            self.graph.output(f"new_keys_{number}", keys, axes)
            self.graph.output(f"new_values_{number}", values, axes)

    def _head_row(self) -> str:
        """What the last token is multiplied with, (1, width): rows of the language model's head, or the classifier."""
        model = self.model
        if not model.head.tokens:
            return self.graph.weight("score.weight", (1, self.width))
        table = model.words.name if model.tied else "lm_head.weight"
        shape = (model.words.rows, self.width)
        rows = [self.graph.weight(table, shape, rows=(token, 1)) for token in model.head.tokens]
        return rows[0] if len(rows) == 1 else self.form.add("Sub", *rows)

    def _norm(self, x: str, name: str, width: int) -> str:
        gain = self.graph.weight(f"{name}.weight", (width,))
        if self.model.gain_from_one:
            gain = self.form.add("Add", gain, self.graph.number(1.0))
        return self.form.rms_norm(x, gain, self.model.epsilon)

    def _projected(self, x: str, number: int, part: str, at: str = "") -> str:
        """Queries, keys or values of (batch, token, width), normalised, turned to their positions, as (batch, head, token, size)."""
        model, form = self.model, self.form
        heads = model.heads if part == "q" else model.key_heads
        place = f"layers.{number}.self_attn.{part}"
        y = form.linear(x, Linear(f"{place}_proj", self.width, heads * model.size, model.bias))
        if part == "v":
            return form.heads_first(y, heads, model.size)
        if model.head_norms:
            apart = form.add("Reshape", y, self.graph.integers(0, 0, heads, model.size))
            y = self._norm(apart, f"{place}_norm", model.size)
            y = form.add("Reshape", y, self.graph.integers(0, 0, heads * model.size))
        return form.heads_first(form.rotate(y, self.cos, self.sin, heads, model.size, at), heads, model.size)

    def _keys_and_values(self, x: str, number: int) -> Sequence[str]:
        """Those of the prefix, if there is one, and of this batch, (batch, key head, token, size)."""
        own = [self._projected(x, number, part) for part in "kv"]
        if not self.with_prefix:
            return own
        self.made.append(own)
        rows = self.form.once("rows", lambda: self.form.add("Concat", self.batch, self.graph.integers(1, 1, 1), axis=0))
        spread = [self.form.add("Expand", past, rows) for past in self.past[number]]
        return [self.form.add("Concat", *pair, axis=2) for pair in zip(spread, own, strict=True)]

    def _attention(self, x: str, number: int) -> str:
        """Causal attention's output, (batch, token, heads * size); heads that share keys are an axis of their own."""
        model, form, graph = self.model, self.form, self.graph
        h = self._norm(x, f"layers.{number}.input_layernorm", self.width)
        shared = [form.add("Unsqueeze", part, graph.integers(2)) for part in self._keys_and_values(h, number)]
        apart = graph.integers(0, model.key_heads, model.heads // model.key_heads, -1, model.size)
        q = form.add("Reshape", self._projected(h, number, "q"), apart)
        scores = form.product(q, shared[0], model.size**-0.5, axes=5)  # (batch, key head, head, query, key)
        shares = form.add("Softmax", form.add("Add", scores, form.once("behind", self._behind)), axis=-1)
        mixed = form.add("Transpose", form.add("MatMul", shares, shared[1]), perm=[0, 3, 1, 2, 4])
        return form.add("Reshape", mixed, graph.integers(0, 0, model.heads * model.size))

    def _last_attention(self, x: str, number: int) -> str:
        """The same for each row's last token alone, (batch, 1, heads * size)."""
        model, form, graph = self.model, self.form, self.graph
        h = self._norm(x, f"layers.{number}.input_layernorm", self.width)
        keys, values = self._keys_and_values(h, number)
        q = self._projected(self._last_token(h), number, "q", at=self.last)
        q = form.add("Reshape", q, graph.integers(0, model.key_heads, -1, model.size))
        hidden = form.hidden_keys()  # (batch, 1, 1, key)
        if self.with_prefix:
            shape = form.once(
                "shown", lambda: form.add("Concat", self.batch, graph.integers(1, 1), self.prefix_vector, axis=0)
            )
            shown = form.add("Expand", graph.number(0.0), shape)
            hidden = form.add("Concat", shown, hidden, axis=3)
        shares = form.add("Softmax", form.add("Add", form.product(q, keys, model.size**-0.5), hidden), axis=-1)
        mixed = form.add("MatMul", shares, values)  # (batch, key head, heads that share it, size)
        return form.add("Reshape", mixed, graph.integers(0, 1, model.heads * model.size))

    def _layer(self, x: str, mixed: str, number: int) -> str:
        """What follows the attention, for any tokens: ``x`` went into the layer, ``mixed`` came out of its attention."""
        model, form, place = self.model, self.form, f"layers.{number}"
        output = Linear(f"{place}.self_attn.o_proj", model.heads * model.size, self.width, model.output_bias)
        x = form.add("Add", x, form.linear(mixed, output))
        h = self._norm(x, f"{place}.post_attention_layernorm", self.width)
        gate, up = (
            form.linear(h, Linear(f"{place}.mlp.{part}_proj", self.width, model.inner, False))
            for part in ("gate", "up")
        )
        inner = form.add("Mul", form.activation(model.activation, gate), up)
        return form.add("Add", x, form.linear(inner, Linear(f"{place}.mlp.down_proj", model.inner, self.width, False)))

    def _last_token(self, x: str) -> str:
        """(batch, token, width) at each row's last token: (batch, 1, width)."""
        return self.form.add("Unsqueeze", self.form.add("GatherND", x, self.last, batch_dims=1), self.graph.integers(1))

    def _behind(self) -> str:
        """The causal mask, (query, key): what is added to the scores of keys behind a query. The keys begin with the prefix."""
        form, graph = self.form, self.graph

        query, end = form.numbers_up_to(form.length()), form.length()
        if self.with_prefix:
            query, end = form.add("Add", query, self.prefix), form.add("Add", end, self.prefix)
        query = form.add("Unsqueeze", query, graph.integers(1))
        key = form.add("Unsqueeze", form.numbers_up_to(end), graph.integers(0))
        return form.hidden_if(form.add("Greater", key, query))
