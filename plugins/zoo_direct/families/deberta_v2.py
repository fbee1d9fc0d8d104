"""DeBERTa-v2 and -v3: attention scores from content and from distances, the one with the other in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zoo_direct.config import Config, UnsupportedError
from zoo_direct.families.encoder import LayerNames, Layers, Table, add_token_types, read_layers
from zoo_direct.families.model import Head, Model
from zoo_direct.families.relative import Distances, by_distance, deberta_bucket
from zoo_direct.form import Form, Linear

FURTHEST = 100_000
"""Far more than any model has; the bucket of each distance is a constant of the graph."""
CONTENT_TO_POSITION, POSITION_TO_CONTENT = "c2p", "p2c"


@dataclass(frozen=True)
class Relative:
    """How distances enter the scores."""

    directions: Sequence[str]
    buckets: int
    """0: each distance has a bucket of its own."""
    furthest: int
    normalised: bool
    shared: bool
    """Whether the table is projected by the queries' and keys' own matrices."""

    @property
    def span(self) -> int:
        """Half the rows of the table of embeddings of distances."""
        return self.buckets or self.furthest

    def distances(self) -> Distances:
        """The row of the table for each distance. The table's own size was compared with the weights before."""

        def row(distance: int) -> int:
            bucket = deberta_bucket(distance, self.buckets, self.furthest) if self.buckets else distance
            return min(max(bucket + self.span, 0), 2 * self.span - 1)

        return Distances.of(row, self.furthest)


@dataclass(frozen=True)
class Convolution:
    """Over the embeddings, added behind the first layer."""

    kernel: int
    groups: int
    activation: str


@dataclass(frozen=True)
class DebertaV2(Model):
    """mxbai-rerank v1 and other cross-encoders on DeBERTa-v3."""

    words: Table
    positions: Table | None
    types: Table | None
    layers: Layers
    parts: int
    """Scores are the sum of so many products if distances enter them, and are scaled by that number."""
    relative: Relative | None
    convolution: Convolution | None
    head_activation: str

    classifiers = ("DebertaV2ForSequenceClassification",)
    needless = (
        "deberta.embeddings.position_embeddings.",
        "deberta.encoder.LayerNorm.",
        "deberta.encoder.rel_embeddings.",
    )

    @classmethod
    def read(cls, config: Config, head: Head) -> DebertaV2:
        config.ignore("legacy")
        names = LayerNames(
            query="attention.self.query_proj", key="attention.self.key_proj", value="attention.self.value_proj"
        )
        layers = read_layers(config, "deberta.encoder.layer.", names, epsilon=1e-7)
        config.only("attention_head_size", layers.width // layers.heads)
        config.only("pooler_hidden_size", layers.width)
        width, most = config.integer("embedding_size", layers.width), config.integer("max_position_embeddings")
        types = config.integer("type_vocab_size", 0, least=0)
        place, directions = "deberta.embeddings.", list(dict.fromkeys(config.names("pos_att_type", [])))
        if unknown := sorted(set(directions) - {CONTENT_TO_POSITION, POSITION_TO_CONTENT}):
            raise UnsupportedError(
                f"config.json has 'pos_att_type' with '{unknown[0]}'; only 'c2p' and 'p2c' are understood"
            )
        biased = config.flag("position_biased_input", True)
        return cls(
            words=Table(f"{place}word_embeddings.weight", config.integer("vocab_size"), width),
            positions=Table(f"{place}position_embeddings.weight", most, width) if biased else None,
            types=Table(f"{place}token_type_embeddings.weight", types, width) if types else None,
            layers=layers,
            parts=1 + len(directions),
            relative=_read_relative(config, directions, most),
            convolution=_read_convolution(config),
            head_activation=config.activation("pooler_hidden_act", "gelu"),
        )

    def write(self, form: Form) -> None:
        layers, width = self.layers, self.layers.width
        x = embedded = self._embedded(form)
        last = layers.count - 1
        # The convolution reads the neighbours of a token, so the layer before it cannot be cut down to one.
        cut = form.cut_last_layer and not (self.convolution and last == 0)
        for number in range(layers.count):
            only_first = cut and number == last
            mixed = self._attention(form, x, number, only_first=only_first)
            x = layers.dense(form, form.first_token(x) if only_first else x, mixed, number)
            if number == 0 and self.convolution:
                x = self._convolved(form, x, embedded, self.convolution)
        x = form.squeezed(x if cut else form.first_token(x))
        x = form.dense(x, Linear("pooler.dense", width, width))
        self.give_logits(form, form.activation(self.head_activation, x), Linear("classifier", width, 1))

    def _embedded(self, form: Form) -> str:
        x = self.words.at(form, form.graph.input("input_ids"))
        if self.positions:
            x = form.add("Add", x, self.positions.first_rows(form))
        if self.types:
            x = add_token_types(form, x, self.types)
        if self.words.width != self.layers.width:
            x = form.linear(x, Linear("deberta.embeddings.embed_proj", self.words.width, self.layers.width, bias=False))
        return form.layer_norm(x, "deberta.embeddings.LayerNorm", self.layers.width, self.layers.epsilon)

    def _attention(self, form: Form, x: str, number: int, *, only_first: bool) -> str:
        """The attention's output for every token, or for the first one alone."""
        layers = self.layers
        size = layers.width // layers.heads
        queries, keys, values = layers.projections(number)
        q = form.heads_first(form.linear(form.first_token(x) if only_first else x, queries), layers.heads, size)
        k, v = (form.heads_first(form.linear(x, part), layers.heads, size) for part in (keys, values))
        scale = (size * self.parts) ** -0.5
        scores = form.product(q, k, scale)
        for direction in self.relative.directions if self.relative else ():
            add = self._content_to_position if direction == CONTENT_TO_POSITION else self._position_to_content
            scores = form.add("Add", scores, add(form, q, k, number, scale, only_first))
        return form.mix(scores, v, layers.width)

    def _content_to_position(self, form: Form, q: str, k: str, number: int, scale: float, only_first: bool) -> str:
        """Content to position: products of queries with embeddings of distances, (batch, head, query, key)."""
        products = form.product(q, self._by_distance(form, number, "key", only_first), scale)
        return products if only_first else by_distance(form, products)

    def _position_to_content(self, form: Form, q: str, k: str, number: int, scale: float, only_first: bool) -> str:
        """Position to content: products of keys with embeddings of distances, (batch, head, query, key)."""
        embeddings = self._by_distance(form, number, "query", only_first)
        if only_first:  # one number for each key
            sums = form.add("ReduceSum", form.add("Mul", k, embeddings), form.graph.integers(-1), keepdims=0)
            return form.add("Mul", form.add("Unsqueeze", sums, form.graph.integers(2)), form.graph.number(scale))
        by_key = by_distance(form, form.product(k, embeddings, scale))
        return form.add("Transpose", by_key, perm=[0, 1, 3, 2])

    def _by_distance(self, form: Form, number: int, part: str, only_first: bool) -> str:
        """Projected embeddings of distances, (1, head, distance, size).

        For all queries: of the distances that ``by_distance`` wants, a row's own token less the other. A distance is the query's
        place less the key's; rows of keys are ordered the other way round. For the first query: of its distance to each key.
        """
        assert self.relative
        layers = self.layers
        size = layers.width // layers.heads
        table = form.once("distances", lambda: self._table(form))
        name = f"{layers.prefix}{number}.attention.self.{'' if self.relative.shared else 'pos_'}{part}_proj"
        projected = form.project_table(table, Linear(name, layers.width, layers.width))
        by_head = form.add("Reshape", projected, form.graph.integers(1, 2 * self.relative.span, layers.heads, size))
        key = ("rows", part if not only_first else "first")
        return form.add(
            "Gather", form.swap(by_head), form.once(key, lambda: self._rows(form, part, only_first)), axis=2
        )

    def _rows(self, form: Form, part: str, only_first: bool) -> str:
        """The rows of the table for the distances in question, a vector."""
        assert self.relative
        graph, length = form.graph, form.length()
        if only_first:
            return self.relative.distances().of_tensor(form, form.add("Neg", form.numbers_up_to(length)))
        first, end = form.add("Sub", graph.integer(1), length), form.add("Add", length, graph.integer(1))
        offsets = form.numbers_up_to(end, first)
        return self.relative.distances().of_tensor(form, form.add("Neg", offsets) if part == "key" else offsets)

    def _table(self, form: Form) -> str:
        """The embeddings of distances, (2 * span, width)."""
        assert self.relative
        layers = self.layers
        table = form.graph.weight("deberta.encoder.rel_embeddings.weight", (2 * self.relative.span, layers.width))
        if not self.relative.normalised:
            return table
        return form.layer_norm(table, "deberta.encoder.LayerNorm", layers.width, layers.epsilon)

    def _convolved(self, form: Form, x: str, embedded: str, convolution: Convolution) -> str:
        """``x`` with a convolution of the embeddings added; padding is 0 before and after, as in the pretraining."""
        width, kernel, groups, graph = self.layers.width, convolution.kernel, convolution.groups, form.graph
        shown = form.add("Unsqueeze", form.mask_as_numbers(), graph.integers(2))
        weight = graph.weight("deberta.encoder.conv.conv.weight", (width, width // groups, kernel))
        bias = graph.weight("deberta.encoder.conv.conv.bias", (width,))
        channels = form.add("Transpose", form.add("Mul", embedded, shown), perm=[0, 2, 1])
        channels = form.add("Conv", channels, weight, bias, group=groups, kernel_shape=[kernel], pads=[kernel // 2] * 2)
        y = form.add("Mul", form.add("Transpose", channels, perm=[0, 2, 1]), shown)
        y = form.add("Add", x, form.activation(convolution.activation, y))
        return form.add("Mul", form.layer_norm(y, "deberta.encoder.conv.LayerNorm", width, self.layers.epsilon), shown)


def _read_relative(config: Config, directions: Sequence[str], most: int) -> Relative | None:
    buckets, furthest = (
        config.integer("position_buckets", -1, least=-1),
        config.integer("max_relative_positions", -1, least=-1),
    )
    normalised, shared = "layer_norm" in config.names("norm_rel_ebd", ["none"]), config.flag("share_att_key", False)
    if not config.flag("relative_attention", False):
        return None
    furthest, buckets = most if furthest < 1 else furthest, max(buckets, 0)
    if furthest > FURTHEST or (buckets and not 1 < buckets // 2 < furthest - 1):
        raise UnsupportedError(
            f"config.json has 'position_buckets': {buckets}, which do not reach up to {furthest} positions"
        )
    return Relative(directions, buckets, furthest, normalised, shared)


def _read_convolution(config: Config) -> Convolution | None:
    kernel = config.integer("conv_kernel_size", 0, least=0)
    groups, activation = config.integer("conv_groups", 1), config.activation("conv_act", "tanh")
    if kernel and kernel % 2 == 0:
        raise UnsupportedError(
            f"config.json has 'conv_kernel_size': {kernel}; only an odd one keeps the length of a text"
        )
    return Convolution(kernel, groups, activation) if kernel else None
