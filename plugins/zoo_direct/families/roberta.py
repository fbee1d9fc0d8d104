"""XLM-RoBERTa, RoBERTa and CamemBERT: positions count from the padding's id on, two dense layers over ``<s>``."""

from __future__ import annotations

from dataclasses import dataclass

from zoo_direct.config import Config
from zoo_direct.families.encoder import Layers, Table, read_layers
from zoo_direct.families.model import Head, Model
from zoo_direct.form import Form, Linear
from zoo_direct.onnx_bytes import INT64


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
        x = form.add("Add", self.words.at(form, form.graph.input("input_ids")), self._positions(form))
        x = form.add("Add", x, self.types.row(form, 0))  # no tokenizer of these families knows a second type
        x = form.layer_norm(x, "roberta.embeddings.LayerNorm", width, layers.epsilon)
        x = form.dense(layers.first_token(form, x), Linear("classifier.dense", width, width))
        self.give_logits(form, form.activation("tanh", x), Linear("classifier.out_proj", width, 1))

    def _positions(self, form: Form) -> str:
        """Tokens are counted from pad + 1 on; padding itself stays at the row ``pad``, from which on the table is read."""
        graph, table = form.graph, self.positions
        padding = form.add("Equal", graph.input("input_ids"), graph.integer(self.pad))
        token = form.add("Cast", form.add("Not", padding), to=INT64)
        count = form.add("Mul", form.add("CumSum", token, graph.integer(1)), token)
        return graph.rows_at(table.name, (table.rows, table.width), count, rows=(self.pad, table.rows - self.pad))
