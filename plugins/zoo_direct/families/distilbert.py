"""DistilBERT: BERT without token types and pooler, and with names of its own."""

from __future__ import annotations

from dataclasses import dataclass

from zoo_direct.config import Config
from zoo_direct.families.encoder import LayerNames, Layers, Table, divided
from zoo_direct.families.model import Head, Model
from zoo_direct.form import Form, Linear

NAMES = LayerNames(
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    output="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    norm="output_layer_norm",
)
EPSILON = 1e-12
"""Of every normalisation; no key changes it."""


@dataclass(frozen=True)
class DistilBert(Model):
    """Cross-encoders distilled from BERT."""

    words: Table
    positions: Table
    layers: Layers

    classifiers = ("DistilBertForSequenceClassification",)

    @classmethod
    def read(cls, config: Config, head: Head) -> DistilBert:
        config.ignore("sinusoidal_pos_embds")  # how the table of positions began; it is among the weights
        width, place = config.integer("dim"), "distilbert.embeddings."
        return cls(
            words=Table(f"{place}word_embeddings.weight", config.integer("vocab_size"), width),
            positions=Table(f"{place}position_embeddings.weight", config.integer("max_position_embeddings"), width),
            layers=Layers(
                prefix="distilbert.transformer.layer.",
                count=config.layers("n_layers"),
                width=width,
                heads=divided(config.integer("n_heads"), width),
                inner=config.integer("hidden_dim"),
                activation=config.activation("activation", "gelu"),
                epsilon=EPSILON,
                names=NAMES,
            ),
        )

    def write(self, form: Form) -> None:
        width = self.layers.width
        x = self.words.at(form, form.graph.input("input_ids"))
        x = form.add("Add", x, self.positions.first_rows(form))
        x = form.layer_norm(x, "distilbert.embeddings.LayerNorm", width, EPSILON)
        x = form.dense(self.layers.first_token(form, x), Linear("pre_classifier", width, width))
        self.give_logits(form, form.activation("relu", x), Linear("classifier", width, 1))
