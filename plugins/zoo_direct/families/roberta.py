"""XLM-RoBERTa, RoBERTa and CamemBERT: positions count from the padding's id on, two dense layers over ``<s>``."""

from __future__ import annotations

from dataclasses import dataclass

from zoo_direct.config import Config
from zoo_direct.families.encoder import Layers, Table, positions_from, read_layers
from zoo_direct.families.model import Head, Model
from zoo_direct.form import Form, Linear


@dataclass(frozen=True)
class Roberta(Model):
    """bge-reranker-base, -large and -v2-m3, bce-reranker, mmarco-mMiniLMv2 and their relatives."""

    words: Table
    positions: Table
    types: Table
    layers: Layers
    pad: int

    classifiers = (
        "XLMRobertaForSequenceClassification",
        "RobertaForSequenceClassification",
        "CamembertForSequenceClassification",
    )

    @classmethod
    def read(cls, config: Config, head: Head) -> Roberta:
        layers = read_layers(config, "roberta.encoder.layer.")
        width, place = layers.width, "roberta.embeddings."
        return cls(
            words=Table(f"{place}word_embeddings.weight", config.integer("vocab_size"), width),
            positions=Table(f"{place}position_embeddings.weight", config.integer("max_position_embeddings"), width),
            types=Table(f"{place}token_type_embeddings.weight", config.integer("type_vocab_size", 2), width),
            layers=layers,
            pad=config.integer("pad_token_id", 1, least=0),
        )

    def write(self, form: Form) -> None:
        width, layers = self.layers.width, self.layers
        x = form.add(
            "Add", self.words.at(form, form.graph.input("input_ids")), positions_from(form, self.positions, self.pad)
        )
        x = form.add("Add", x, self.types.row(form, 0))  # no tokenizer of these families knows a second type
        x = form.layer_norm(x, "roberta.embeddings.LayerNorm", width, layers.epsilon)
        x = form.dense(layers.first_token(form, x), Linear("classifier.dense", width, width))
        self.give_logits(form, form.activation("tanh", x), Linear("classifier.out_proj", width, 1))
