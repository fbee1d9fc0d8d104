"""ModernBERT, packed: rotary positions, local attention in most layers, a gated feed-forward; its head reads the first token or the mean.

Source of the arithmetic: transformers, ``ModernBertForSequenceClassification``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  # the name that torch's users know

from zoo.api import Tensors
from zoo_torch.attention import Layout
from zoo_torch.kernels import Kernels
from zoo_torch.model import Check, Cost
from zoo_torch.modernbert_shape import Config, Shape, shape_of
from zoo_torch.packing import HostBatch, check_below, pack, padded_slots
from zoo_torch.weights import Weights

Part = tuple[torch.Tensor, "torch.Tensor | None"]
"""Weight, and bias where config.json says that there is one."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Weights of one layer."""

    norm: Part | None
    """None in the first layer: the embeddings are normalised already."""
    qkv: Part
    out: Part
    wide_norm: Part
    wide: Part
    """Two matrices, one below the other: what is activated, and its gate."""
    down: Part


@dataclass(frozen=True, kw_only=True)
class Head:
    """Weights behind the last layer."""

    final_norm: Part
    dense: Part
    norm: Part
    classifier: Part


def build(config: Config, weights: Weights, kernels: Kernels) -> PackedModernBert:
    """The packed model of a checkpoint. Raises NotPackable, or ZooError when weights are missing or of another shape."""
    shape = shape_of(config)
    attention, mlp, norms, final = (
        bool(config.get(key, False)) for key in ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias")
    )
    hidden, inner = shape.widths.hidden, shape.widths.inner

    def linear(name: str, out: int, into: int, bias: bool) -> Part:
        return weights.take(f"{name}.weight", out, into), weights.take(f"{name}.bias", out) if bias else None

    def norm(name: str) -> Part:
        return weights.take(f"{name}.weight", hidden), weights.take(f"{name}.bias", hidden) if norms else None

    layers = [
        Layer(
            norm=norm(f"{prefix}.attn_norm") if number else None,
            qkv=linear(f"{prefix}.attn.Wqkv", 3 * hidden, hidden, attention),
            out=linear(f"{prefix}.attn.Wo", hidden, hidden, attention),
            wide_norm=norm(f"{prefix}.mlp_norm"),
            wide=linear(f"{prefix}.mlp.Wi", 2 * inner, hidden, mlp),
            down=linear(f"{prefix}.mlp.Wo", hidden, inner, mlp),
        )
        for number in range(shape.layers)
        for prefix in [f"model.layers.{number}"]
    ]
    head = Head(
        final_norm=norm("model.final_norm"),
        dense=linear("head.dense", hidden, hidden, final),
        norm=norm("head.norm"),
        classifier=linear("classifier", 1, hidden, bias=True),
    )
    words = weights.take("model.embeddings.tok_embeddings.weight", int(config["vocab_size"]), hidden)
    return PackedModernBert(shape, words, norm("model.embeddings.norm"), layers, head, kernels)


class PackedModernBert:
    """A cross-encoder of ModernBERT's kind whose batches are packed."""

    input_names: Sequence[str] = ("input_ids", "attention_mask")

    def __init__(
        self, shape: Shape, words: torch.Tensor, norm: Part, layers: Sequence[Layer], head: Head, kernels: Kernels
    ) -> None:
        self._shape, self._words, self._norm, self._layers, self._head = shape, words, norm, layers, head
        self._kernels, self._widths = kernels, shape.widths
        hidden, inner = shape.widths.hidden, shape.widths.inner
        self._angles = {theta: self._table(theta) for theta in set(shape.thetas)}
        self.described = f"packed, {kernels.described}"
        self.cost = Cost(
            operations=2.0 * shape.layers * (4 * hidden**2 + 3 * hidden * inner),
            bytes=words.element_size() * (10 * hidden + 4 * inner),
            longest=shape.longest,
        )

    def prepare(self, inputs: Tensors) -> HostBatch:
        batch = pack({name: inputs[name] for name in self.input_names})
        check_below("the token id", batch.arrays["input_ids"], len(self._words))
        check_below("a token at position", batch.arrays["places"], self._shape.longest)
        arrays = dict(batch.arrays)
        if self._kernels.attention.needs_slots:
            arrays["slots"] = padded_slots(batch)
        return HostBatch(arrays=arrays, rows=batch.rows, tokens=batch.tokens, longest=batch.longest)

    def forward(self, tensors: Mapping[str, torch.Tensor], batch: HostBatch, between_layers: Check) -> torch.Tensor:
        layout = Layout(borders=tensors["borders"], slots=tensors.get("slots"), rows=batch.rows, longest=batch.longest)
        turned = {theta: self._turn(table, tensors["places"]) for theta, table in self._angles.items()}
        x = self._normed(F.embedding(tensors["input_ids"], self._words), self._norm)
        normed = x
        for number, layer in enumerate(self._layers):
            between_layers()
            if number == len(self._layers) - 1 and not self._shape.mean:
                return self._score(self._last(layer, x, normed, layout, turned))
            mixed = self._attend(layer, number, normed, layout, turned)
            x, normed = self._add_then_norm(x, F.linear(mixed, *layer.out), layer.wide_norm)
            wide = F.linear(self._gate(F.linear(normed, *layer.wide)), *layer.down)
            following = self._layers[number + 1].norm if number + 1 < len(self._layers) else self._head.final_norm
            assert following is not None
            x, normed = self._add_then_norm(x, wide, following)
        means = torch.segment_reduce(normed.float(), "mean", lengths=layout.borders.diff().long(), unsafe=True)
        return self._score(means.to(normed.dtype))

    def _attend(
        self, layer: Layer, number: int, x: torch.Tensor, layout: Layout, turned: Mapping[float, Part]
    ) -> torch.Tensor:
        q, k, v = self._heads(F.linear(x, *layer.qkv), 3).unbind(1)
        q, k = (self._kernels.elementwise.rotate(part, *turned[self._shape.thetas[number]]) for part in (q, k))
        return self._kernels.attention(q, k, v, layout, self._shape.reaches[number]).reshape(x.shape)

    def _last(
        self, layer: Layer, x: torch.Tensor, normed: torch.Tensor, layout: Layout, turned: Mapping[float, Part]
    ) -> torch.Tensor:
        """The last layer for a head that reads the rows' first tokens: nothing behind its attention is computed for others."""
        number = len(self._layers) - 1
        if self._shape.reaches[number] is None:
            mixed = self._attend_first(layer, normed, layout, turned[self._shape.thetas[number]])
        else:
            mixed = self._attend(layer, number, normed, layout, turned).index_select(0, layout.first)
        x = x.index_select(0, layout.first) + F.linear(mixed, *layer.out)
        wide = F.linear(self._normed(x, layer.wide_norm), *layer.wide)
        a, b = wide.chunk(2, dim=-1)
        x = x + F.linear(self._shape.activation(a) * b, *layer.down)
        return self._normed(x, self._head.final_norm)

    def _attend_first(self, layer: Layer, x: torch.Tensor, layout: Layout, turned: Part) -> torch.Tensor:
        hidden, (weight, bias) = self._widths.hidden, layer.qkv
        first = x.index_select(0, layout.first)
        # The first token is at position 0, where nothing is turned.
        q = self._heads(F.linear(first, weight[:hidden], None if bias is None else bias[:hidden]), 1)[:, 0]
        k, v = self._heads(F.linear(x, weight[hidden:], None if bias is None else bias[hidden:]), 2).unbind(1)
        return self._kernels.attention.first(q, self._kernels.elementwise.rotate(k, *turned), v, layout).reshape(
            first.shape
        )

    def _score(self, x: torch.Tensor) -> torch.Tensor:
        head = self._head
        x = self._normed(self._shape.head_activation(F.linear(x, *head.dense)), head.norm)
        logits: torch.Tensor = F.linear(x, *head.classifier).float()[:, 0]
        return logits

    def _gate(self, x: torch.Tensor) -> torch.Tensor:
        if self._shape.activation is F.gelu:
            return self._kernels.elementwise.gelu_gate(x)
        a, b = x.chunk(2, dim=-1)
        return self._shape.activation(a) * b

    def _normed(self, x: torch.Tensor, norm: Part) -> torch.Tensor:
        return F.layer_norm(x, norm[0].shape, *norm, self._widths.eps)

    def _add_then_norm(self, x: torch.Tensor, y: torch.Tensor, norm: Part) -> tuple[torch.Tensor, torch.Tensor]:
        return self._kernels.elementwise.add_then_norm(x, y, *norm)

    def _heads(self, x: torch.Tensor, parts: int) -> torch.Tensor:
        return x.view(-1, parts, self._widths.heads, self._widths.size)

    def _table(self, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and sine of every position, shape (longest, size), computed in float32 as transformers does."""
        size, device = self._widths.size, self._words.device
        steps = torch.arange(0, size, 2, dtype=torch.float32, device=device) / size
        angles = torch.outer(torch.arange(self._shape.longest, dtype=torch.float32, device=device), theta**-steps)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(self._words.dtype), angles.sin().to(self._words.dtype)

    @staticmethod
    def _turn(table: tuple[torch.Tensor, torch.Tensor], places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cosine, sine = (part.index_select(0, places)[:, None] for part in table)
        return cosine, sine
