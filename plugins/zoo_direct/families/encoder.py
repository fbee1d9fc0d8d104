"""What the BERT-like families share: post-norm layers over absolute positions, read at the first token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zoo_direct.config import Config, UnsupportedError
from zoo_direct.form import Form, Linear
from zoo_direct.onnx_bytes import INT64


@dataclass(frozen=True)
class LayerNames:
    """Where one layer keeps its parameters, below the layer's own prefix."""

    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    norm: str = "output.LayerNorm"


@dataclass(frozen=True)
class Layers:
    """A stack of layers: attention, then two dense layers, each added to its input and normalised."""

    prefix: str  # "roberta.encoder.layer."
    count: int
    width: int
    heads: int
    inner: int
    activation: str
    epsilon: float
    names: LayerNames = LayerNames()

    def first_token(self, form: Form, x: str) -> str:
        """(batch, width): the first token after all layers; ``x`` is (batch, token, width)."""
        for number in range(self.count - 1):
            x = self.dense(form, x, form.attention(x, self.projections(number), self.heads), number)
        last = self.count - 1
        if form.cut_last_layer:
            first, mixed = form.first_attention(x, self.projections(last), self.heads)
        else:
            first, mixed = x, form.attention(x, self.projections(last), self.heads)
        x = self.dense(form, first, mixed, last)
        return form.squeezed(x if form.cut_last_layer else form.first_token(x))

    def projections(self, number: int) -> Sequence[Linear]:
        """What gives queries, keys and values."""
        prefix, names = f"{self.prefix}{number}.", self.names
        return [Linear(prefix + part, self.width, self.width) for part in (names.query, names.key, names.value)]

    def dense(self, form: Form, x: str, mixed: str, number: int) -> str:
        """What follows the attention, for any tokens: ``x`` went into the attention, ``mixed`` came out."""
        prefix, names = f"{self.prefix}{number}.", self.names
        mixed = form.linear(mixed, Linear(prefix + names.output, self.width, self.width))
        x = form.layer_norm(form.add("Add", mixed, x), prefix + names.attention_norm, self.width, self.epsilon)
        y = form.activation(self.activation, form.linear(x, Linear(prefix + names.up, self.width, self.inner)))
        y = form.linear(y, Linear(prefix + names.down, self.inner, self.width))
        return form.layer_norm(form.add("Add", y, x), prefix + names.norm, self.width, self.epsilon)


def read_layers(config: Config, prefix: str, names: LayerNames = LayerNames(), *, epsilon: float = 1e-12) -> Layers:
    """The stack as BERT's keys describe it; ``epsilon`` is the family's own if no key gives it."""
    config.only("position_embedding_type", "absolute")
    config.only("is_decoder", False)
    return Layers(
        prefix=prefix,
        count=config.layers(),
        width=(width := config.integer("hidden_size")),
        heads=divided(config.integer("num_attention_heads"), width),
        inner=config.integer("intermediate_size"),
        activation=config.activation("hidden_act", "gelu"),
        epsilon=config.number("layer_norm_eps", epsilon),
        names=names,
    )


def divided(heads: int, width: int) -> int:
    """``heads``, if they divide the width. Raises UnsupportedError if they do not."""
    if width % heads:
        raise UnsupportedError(f"config.json has {heads} attention heads, which do not divide the width {width}")
    return heads


@dataclass(frozen=True)
class Table:
    """A table of embeddings: ``rows`` of ``width``."""

    name: str
    rows: int
    width: int

    def at(self, form: Form, positions: str) -> str:
        """The rows at ``positions``, as float32."""
        return form.graph.rows_at(self.name, (self.rows, self.width), positions)

    def first_rows(self, form: Form) -> str:
        """As many rows from the first on as the batch has tokens: (token, width)."""
        graph = form.graph
        stored = graph.weight(self.name, (self.rows, self.width), widen=False)
        rows = form.add("Slice", stored, graph.integers(0), form.length_vector(), graph.integers(0))
        return graph.widened(rows, graph.weights.take(self.name, (self.rows, self.width)))

    def row(self, form: Form, number: int) -> str:
        """One row, (width,)."""
        return form.graph.weight(self.name, (self.rows, self.width), rows=(number, 1), view=(self.width,))


def add_token_types(form: Form, x: str, types: Table) -> str:
    """``x`` with the embedding of each token's type; where there is a single type, the graph has no input for it."""
    if types.rows == 1:
        return form.add("Add", x, types.row(form, 0))
    return form.add("Add", x, types.at(form, form.graph.input("token_type_ids")))


def positions_from(form: Form, table: Table, pad: int) -> str:
    """Rows of a table of positions as fairseq counts them: tokens from ``pad`` + 1 on, padding at ``pad``, from which on it is read."""
    graph = form.graph
    padding = form.add("Equal", graph.input("input_ids"), graph.integer(pad))
    token = form.add("Cast", form.add("Not", padding), to=INT64)
    count = form.add("Mul", form.add("CumSum", token, graph.integer(1)), token)
    return graph.rows_at(table.name, (table.rows, table.width), count, rows=(pad, table.rows - pad))
