"""BERT and its relatives, packed: no padding is computed, and no mask is needed.

One forward pass for XLM-RoBERTa, RoBERTa, CamemBERT, BERT, ELECTRA and DistilBERT: the families differ in names, in how positions are
counted and in the head, which ``families`` says. After the last attention only the rows' first tokens are computed, since the head reads
nothing else. Source of the arithmetic: transformers' classes ...ForSequenceClassification.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  # the name that torch's users know

from zoo.api import Tensors
from zoo_torch.attention import Layout
from zoo_torch.kernels import Activation, Kernels
from zoo_torch.model import Check, Cost
from zoo_torch.packing import HostBatch, check_below, pack, padded_slots, roberta_positions
from zoo_torch.widths import Widths

Linear = tuple[torch.Tensor, torch.Tensor]
"""Weight (out, in) and bias (out,)."""
Head = Callable[[torch.Tensor], torch.Tensor]
"""The rows' first tokens, shape (rows, hidden), to logits, shape (rows, 1)."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Weights of one layer."""

    qkv: Linear
    """Query, key and value, one below the other: one product in place of three."""
    out: Linear
    norm: Linear
    up: Linear
    down: Linear
    last_norm: Linear


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Tables and the normalisation over their sum. ``types`` is None where a model has one type, which is then added to ``places``."""

    words: torch.Tensor
    places: torch.Tensor
    types: torch.Tensor | None
    norm: Linear
    projection: Linear | None = None


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the weights alone do not tell."""

    widths: Widths
    activation: Activation
    padding: int | None
    """The padding token's id where positions are counted from it, as RoBERTa does; None where they are counted from 0."""
    longest: int
    """Tokens of a row at most: what positions allow."""


class PackedEncoder:
    """A cross-encoder whose batches are packed."""

    def __init__(
        self, shape: Shape, embeddings: Embeddings, layers: Sequence[Layer], head: Head, kernels: Kernels
    ) -> None:
        self._shape, self._embeddings, self._layers, self._head = shape, embeddings, layers, head
        self._kernels, self._widths = kernels, shape.widths
        types = [] if embeddings.types is None else ["token_type_ids"]
        self.input_names: Sequence[str] = ["input_ids", "attention_mask", *types]
        self.described = f"packed, {kernels.described}"
        itemsize, hidden, inner = embeddings.words.element_size(), shape.widths.hidden, shape.widths.inner
        self.cost = Cost(
            operations=2.0 * len(layers) * (4 * hidden**2 + 2 * hidden * inner),
            # x, its sum with what is added, query, key, value and their mix; the widest activation before and after it is activated
            bytes=itemsize * (8 * hidden + 2 * inner),
            longest=shape.longest,
        )

    def prepare(self, inputs: Tensors) -> HostBatch:
        batch = pack({name: inputs[name] for name in self.input_names})
        check_below("the token id", batch.arrays["input_ids"], len(self._embeddings.words))
        padding = self._shape.padding
        positions = batch.arrays["places"] if padding is None else roberta_positions(batch, padding)
        check_below("a token at position", positions, len(self._embeddings.places))
        arrays = {
            "input_ids": batch.arrays["input_ids"],
            "positions": positions,
            "borders": batch.arrays["borders"],
        }
        if self._embeddings.types is not None:
            arrays["token_type_ids"] = batch.arrays["token_type_ids"]
            check_below("the token type", arrays["token_type_ids"], len(self._embeddings.types))
        if self._kernels.attention.needs_slots:
            arrays["slots"] = padded_slots(batch)
        return HostBatch(arrays=arrays, rows=batch.rows, tokens=batch.tokens, longest=batch.longest)

    def forward(self, tensors: Mapping[str, torch.Tensor], batch: HostBatch, between_layers: Check) -> torch.Tensor:
        layout = Layout(borders=tensors["borders"], slots=tensors.get("slots"), rows=batch.rows, longest=batch.longest)
        x = self._embed(tensors)
        for layer in self._layers[:-1]:
            between_layers()
            x = self._after_attention(layer, x, self._attend(layer, x, layout))
        between_layers()
        last = self._layers[-1]
        first, mixed = self._attend_first(last, x, layout)
        first = self._after_attention(last, first, mixed)
        logits: torch.Tensor = self._head(first).float()[:, 0]
        return logits

    def _embed(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        tables = self._embeddings
        x = F.embedding(tensors["input_ids"], tables.words)
        if tables.types is not None:
            x = x + F.embedding(tensors["token_type_ids"], tables.types)
        places = F.embedding(tensors["positions"], tables.places)
        if tables.projection is None:
            return self._kernels.elementwise.add_norm(x, places, *tables.norm)
        narrow = F.layer_norm(x + places, x.shape[1:], *tables.norm, self._widths.eps)
        return F.linear(narrow, *tables.projection)

    def _attend(self, layer: Layer, x: torch.Tensor, layout: Layout) -> torch.Tensor:
        q, k, v = self._heads(F.linear(x, *layer.qkv), 3).unbind(1)
        return self._kernels.attention(q, k, v, layout).reshape(x.shape)

    def _attend_first(self, layer: Layer, x: torch.Tensor, layout: Layout) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows' first tokens, and what their attention gives; keys and values are of all tokens."""
        hidden = self._widths.hidden
        weight, bias = layer.qkv
        first = x.index_select(0, layout.first)
        q = self._heads(F.linear(first, weight[:hidden], bias[:hidden]), 1)[:, 0]
        k, v = self._heads(F.linear(x, weight[hidden:], bias[hidden:]), 2).unbind(1)
        return first, self._kernels.attention.first(q, k, v, layout).reshape(first.shape)

    def _heads(self, x: torch.Tensor, parts: int) -> torch.Tensor:
        return x.view(-1, parts, self._widths.heads, self._widths.size)

    def _after_attention(self, layer: Layer, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        add_norm = self._kernels.elementwise.add_norm
        x = add_norm(F.linear(mixed, *layer.out), x, *layer.norm)
        wide = self._kernels.up(x, *layer.up, self._shape.activation)
        return add_norm(F.linear(wide, *layer.down), x, *layer.last_norm)
