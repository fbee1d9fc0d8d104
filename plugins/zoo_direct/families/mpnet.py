"""MPNet: RoBERTa with a number for each head and distance added to the attention scores of every layer."""

from __future__ import annotations

from dataclasses import dataclass

from zoo_direct.config import Config
from zoo_direct.families.encoder import LayerNames, Layers, Table, positions_from, read_layers
from zoo_direct.families.model import Head, Model
from zoo_direct.families.relative import Distances, mpnet_bucket
from zoo_direct.form import Form, Linear

NAMES = LayerNames(
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    output="attention.attn.o",
    attention_norm="attention.LayerNorm",
)
BUCKETS, FURTHEST, PAD = 32, 128, 1
"""Fixed in transformers' code, whatever config.json says of buckets and of the padding's id."""


@dataclass(frozen=True)
class MPNet(Model):
    """Cross-encoders on mpnet-base."""

    words: Table
    positions: Table
    layers: Layers

    classifiers = ("MPNetForSequenceClassification",)

    @classmethod
    def read(cls, config: Config, head: Head) -> MPNet:
        config.only("relative_attention_num_buckets", BUCKETS)
        layers, place = read_layers(config, "mpnet.encoder.layer.", NAMES), "mpnet.embeddings."
        return cls(
            words=Table(f"{place}word_embeddings.weight", config.integer("vocab_size"), layers.width),
            positions=Table(
                f"{place}position_embeddings.weight", config.integer("max_position_embeddings"), layers.width
            ),
            layers=layers,
        )

    def write(self, form: Form) -> None:
        layers, width, graph = self.layers, self.layers.width, form.graph
        x = form.add("Add", self.words.at(form, graph.input("input_ids")), positions_from(form, self.positions, PAD))
        x = form.layer_norm(x, "mpnet.embeddings.LayerNorm", width, layers.epsilon)
        for number in range(layers.count):
            only_first = form.cut_last_layer and number == layers.count - 1
            queried = form.first_token(x) if only_first else x
            x = layers.dense(form, queried, self._attention(form, x, queried, number, only_first=only_first), number)
        x = form.squeezed(x if form.cut_last_layer else form.first_token(x))
        x = form.dense(x, Linear("classifier.dense", width, width))
        self.give_logits(form, form.activation("tanh", x), Linear("classifier.out_proj", width, 1))

    def _attention(self, form: Form, x: str, queried: str, number: int, *, only_first: bool) -> str:
        heads, size = self.layers.heads, self.layers.width // self.layers.heads
        sources = zip((queried, x, x), self.layers.projections(number), strict=True)
        q, k, v = (form.heads_first(form.linear(source, part), heads, size) for source, part in sources)
        bias = form.once(("bias", only_first), lambda: self._bias(form, only_first=only_first))
        return form.mix(form.add("Add", form.product(q, k, size**-0.5), bias), v, self.layers.width)

    def _bias(self, form: Form, *, only_first: bool) -> str:
        """What distances add to the scores, (1, head, query, key); the query's place is subtracted from the key's."""
        graph = form.graph
        place = form.numbers_up_to(form.length())
        keys = form.add("Unsqueeze", place, graph.integers(0))
        distance = keys if only_first else form.add("Sub", keys, form.add("Unsqueeze", place, graph.integers(1)))
        distances = Distances.of(lambda apart: mpnet_bucket(apart, BUCKETS, FURTHEST), FURTHEST)
        table = Table("mpnet.encoder.relative_attention_bias.weight", BUCKETS, self.layers.heads)
        by_key = form.add("Transpose", table.at(form, distances.of_tensor(form, distance)), perm=[2, 0, 1])
        return form.add("Unsqueeze", by_key, graph.integers(0))
