"""ELECTRA: BERT with embeddings of a width of their own, and a classifier of two layers with GELU between them."""

from __future__ import annotations

from dataclasses import dataclass

from zoo_direct.config import Config
from zoo_direct.families.encoder import Layers, Table, add_token_types, read_layers
from zoo_direct.families.model import Head, Model
from zoo_direct.form import Form, Linear


@dataclass(frozen=True)
class Electra(Model):
    """ms-marco-electra-base and its relatives."""

    words: Table
    positions: Table
    types: Table
    layers: Layers

    classifiers = ("ElectraForSequenceClassification",)

    @classmethod
    def read(cls, config: Config, head: Head) -> Electra:
        # These are read by heads for multiple choice, and by the generator of the pretraining.
        config.ignore("summary_activation", "summary_type", "summary_use_proj", "generator_size")
        layers, place = read_layers(config, "electra.encoder.layer."), "electra.embeddings."
        width = config.integer("embedding_size", 128)
        return cls(
            words=Table(f"{place}word_embeddings.weight", config.integer("vocab_size"), width),
            positions=Table(f"{place}position_embeddings.weight", config.integer("max_position_embeddings"), width),
            types=Table(f"{place}token_type_embeddings.weight", config.integer("type_vocab_size", 2), width),
            layers=layers,
        )

    def write(self, form: Form) -> None:
        narrow, width, layers = self.words.width, self.layers.width, self.layers
        x = add_token_types(form, self.words.at(form, form.graph.input("input_ids")), self.types)
        x = form.add("Add", x, self.positions.first_rows(form))
        x = form.layer_norm(x, "electra.embeddings.LayerNorm", narrow, layers.epsilon)
        if narrow != width:
            x = form.linear(x, Linear("electra.embeddings_project", narrow, width))
        x = form.dense(layers.first_token(form, x), Linear("classifier.dense", width, width))
        # The GELU of the head is the exact one, whatever the layers' activation is.
        self.give_logits(form, form.activation("gelu", x), Linear("classifier.out_proj", width, 1))
