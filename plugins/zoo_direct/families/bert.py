"""BERT: the classifier reads ``[CLS]`` through the pooler."""

from __future__ import annotations

from dataclasses import dataclass

from zoo_direct.config import Config
from zoo_direct.families.encoder import Layers, Table, add_token_types, read_layers
from zoo_direct.families.model import Head, Model
from zoo_direct.form import Form, Linear


@dataclass(frozen=True)
class Bert(Model):
    """The MS MARCO MiniLM and TinyBERT cross-encoders and their relatives."""

    words: Table
    positions: Table
    types: Table
    layers: Layers

    classifiers = ("BertForSequenceClassification",)

    @classmethod
    def read(cls, config: Config, head: Head) -> Bert:
        config.ignore(
            "directionality",
            "pooler_fc_size",
            "pooler_num_attention_heads",
            "pooler_num_fc_layers",
            "pooler_size_per_head",
            "pooler_type",
        )  # fmt: skip -- of Google's first files; nothing reads them
        layers, place = read_layers(config, "bert.encoder.layer."), "bert.embeddings."
        return cls(
            words=Table(f"{place}word_embeddings.weight", config.integer("vocab_size"), layers.width),
            positions=Table(
                f"{place}position_embeddings.weight", config.integer("max_position_embeddings"), layers.width
            ),
            types=Table(f"{place}token_type_embeddings.weight", config.integer("type_vocab_size", 2), layers.width),
            layers=layers,
        )

    def write(self, form: Form) -> None:
        width, layers = self.layers.width, self.layers
        x = add_token_types(form, self.words.at(form, form.graph.input("input_ids")), self.types)
        x = form.add("Add", x, self.positions.first_rows(form))
        x = form.layer_norm(x, "bert.embeddings.LayerNorm", width, layers.epsilon)
        x = form.dense(layers.first_token(form, x), Linear("bert.pooler.dense", width, width))
        self.give_logits(form, form.activation("tanh", x), Linear("classifier", width, 1))
