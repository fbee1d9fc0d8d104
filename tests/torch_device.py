"""A device of the tests that opens a checkpoint itself: transformers' own model in a session's place, on rows padded as zoo pads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from zoo.api import (
    Artifact,
    Availability,
    Checkpoint,
    Option,
    Precision,
    PrecisionInfo,
    SessionOptions,
    ShapeRule,
    Tensors,
    hookimpl,
)


class TorchSession:
    """Float32, no masks but the attention mask; ``seen`` keeps the ids of every batch."""

    device_seconds = None
    shape_rule = ShapeRule(tokens=4096)

    def __init__(self, artifact: Artifact) -> None:
        import torch
        import transformers

        self.head = dict(artifact.head)
        kind = (
            transformers.AutoModelForCausalLM
            if self.head.get("positive") is not None
            else transformers.AutoModelForSequenceClassification
        )
        self.model: Any = kind.from_pretrained(artifact.model, dtype=torch.float32).float().eval()
        types = getattr(self.model.config, "type_vocab_size", 0) > 1
        self.input_names: Sequence[str] = ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]

    def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
        future: Future[Tensors] = Future()
        future.set_result({"logits": self._logits(inputs)})
        return future

    def _logits(self, inputs: Tensors) -> Any:
        import torch

        given = {name: torch.from_numpy(array) for name, array in inputs.items()}
        with torch.inference_mode():
            logits = self.model(**given).logits
        if self.head.get("positive") is None:
            return logits.numpy()
        last = given["attention_mask"].sum(1) - 1
        rows = logits[torch.arange(len(last)), last]
        score = rows[:, self.head["positive"]]
        if self.head.get("negative") is not None:
            score = score - rows[:, self.head["negative"]]
        return score[:, None].numpy()

    def close(self) -> None:
        pass

    def __enter__(self) -> TorchSession:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class TorchDevice:
    """Needs no export: its recipe is empty."""

    name = "torch-reference"
    aliases: Sequence[str] = ()
    priority = -1
    precisions: Mapping[Precision, PrecisionInfo] = {"fp32": PrecisionInfo(offered=True)}
    options: Sequence[Option] = ()

    def probe(self) -> Availability:
        return Availability(ok=True)

    def recipe(self, precision: Precision, checkpoint: Checkpoint | None = None) -> tuple[str, ...]:
        return ()

    def open(self, artifact: Artifact, options: SessionOptions) -> TorchSession:
        return TorchSession(artifact)


class TorchPlugin:
    """``Catalogue.of(..., torch=TorchPlugin())``"""

    @hookimpl
    def zoo_devices(self) -> list[TorchDevice]:
        return [TorchDevice()]
