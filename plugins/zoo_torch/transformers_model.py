"""Everything that has no packed forward: transformers' own classes, on padded rows.

A sequence classifier gives its logit as it is. A decoder is read at each row's last real token: with a causal mask that is right whichever
side is padded. Of a language model's head only the tokens that make the score are multiplied.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.api import Tensors, ZooError
from zoo_torch.faults import first_line
from zoo_torch.head import ScoreTokens
from zoo_torch.model import Check, Cost
from zoo_torch.packing import HostBatch, check_below
from zoo_torch.weights import NOT_WEIGHTS

logger = logging.getLogger("zoo.torch")

UNKNOWN_LENGTH = 2**20
"""Tokens of a row where config.json sets no limit."""
ATTENTION_COPIES = 4
"""Matrices of scores (rows, heads, length, length) that live at once where attention is written out: DeBERTa adds two to its own."""


class TransformersModel:
    """A model that transformers loaded. ``head`` is needed for a language model and refused for a classifier."""

    def __init__(self, model: Any, head: ScoreTokens | None) -> None:
        self._model, self._config = model, model.config
        kind = type(model).__name__
        language_model = kind.endswith("ForCausalLM")
        if language_model and head is None:
            raise ZooError(f"{kind} gives logits over a vocabulary: its card must name the tokens that make the score")
        if head is not None and not language_model:
            raise ZooError(
                f"{kind} has a head of its own, and a card that names tokens for one: take them out of the card"
            )
        # Classes made for decoders call the head 'score' and pick the last token by the padding id, which a text may contain.
        self._decoder = language_model or hasattr(model, "score")
        self._head = self._folded(head) if head is not None else None
        self._types = getattr(self._config, "type_vocab_size", 0) > 1 and _takes(model, "token_type_ids")
        self._places = self._decoder and _takes(model.base_model, "position_ids")
        self.input_names: Sequence[str] = ["input_ids", "attention_mask", *(["token_type_ids"] if self._types else [])]
        attention = getattr(self._config, "_attn_implementation", None) or "eager"
        self.described = f"padded, {kind} of transformers, attention {attention}"
        self.cost = self._cost(written_out=attention == "eager")

    def prepare(self, inputs: Tensors) -> HostBatch:
        chosen = {name: inputs[name] for name in self.input_names}
        check_below("the token id", chosen["input_ids"], int(self._config.vocab_size))
        if self._types:
            check_below("the token type", chosen["token_type_ids"], int(self._config.type_vocab_size))
        rows, length = chosen["input_ids"].shape
        if length > self.cost.longest:
            raise ZooError(f"a batch has rows of {length} tokens; the model reads {self.cost.longest} at most")
        arrays = {name: np.ascontiguousarray(array, dtype=np.int32) for name, array in chosen.items()}
        return HostBatch(arrays=arrays, rows=rows, tokens=rows * length, longest=length)

    def forward(self, tensors: Mapping[str, torch.Tensor], batch: HostBatch, between_layers: Check) -> torch.Tensor:
        inputs = {name: tensor.long() for name, tensor in tensors.items()}
        hooks = [layer.register_forward_pre_hook(lambda *_: between_layers()) for layer in self._layers()]
        try:
            if not self._decoder:
                logits: torch.Tensor = self._model(**inputs).logits.float()[:, 0]
                return logits
            return self._last_token(inputs)
        finally:
            for hook in hooks:
                hook.remove()

    def _last_token(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        mask = inputs["attention_mask"]
        if self._places:
            inputs = {**inputs, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
        states = self._model.base_model(**inputs, use_cache=False).last_hidden_state
        length = mask.shape[1]
        last = length - 1 - mask.flip(1).argmax(1)
        hidden = states[torch.arange(len(states), device=states.device), last]
        if self._head is None:
            logits: torch.Tensor = self._model.score(hidden).float()[:, 0]
            return logits
        rows, biases, cap = self._head
        each = hidden.float() @ rows.T + biases
        if cap is not None:
            each = cap * torch.tanh(each / cap)
        return each[:, 0] - each[:, 1] if each.shape[1] == 2 else each[:, 0]

    def _folded(self, head: ScoreTokens) -> tuple[torch.Tensor, torch.Tensor, float | None]:
        """Rows of the head for the tokens of the score, shape (tokens, hidden), their biases, and where logits are capped the cap."""
        for key in ("logits_scaling", "logit_scale", "mup_width_multiplier"):
            if getattr(self._config, key, None) not in (None, 1, 1.0):
                raise ZooError(f"config.json has {key}, which scales logits; no score is defined for that")
        output = self._model.get_output_embeddings()
        for token in head.ids:
            if not 0 <= token < len(output.weight):
                raise ZooError(f"the card's token id {token} is not in the model's vocabulary of {len(output.weight)}")
        biases = torch.zeros(len(head.ids), device=output.weight.device)
        if getattr(output, "bias", None) is not None:
            biases = output.bias.detach()[head.ids].float()
        cap = getattr(self._config, "final_logit_softcapping", None)
        return output.weight.detach()[head.ids].float(), biases, float(cap) if cap else None

    def _layers(self) -> list[Any]:
        """The blocks of the model: the longest list of modules in it."""
        lists = [module for module in self._model.modules() if isinstance(module, torch.nn.ModuleList)]
        return list(max(lists, key=len, default=[]))

    def _cost(self, *, written_out: bool) -> Cost:
        config, weights = self._config, 0
        for parameter in self._model.parameters():
            weights += parameter.numel() if parameter.dim() == 2 else 0
        embeddings = self._model.get_input_embeddings().weight.numel()
        hidden = int(config.hidden_size)
        inner = int(getattr(config, "intermediate_size", 4 * hidden))
        longest = int(getattr(config, "max_position_embeddings", None) or UNKNOWN_LENGTH)
        if "roberta" in config.model_type or config.model_type in ("camembert", "mpnet", "longformer", "data2vec-text"):
            longest -= int(config.pad_token_id) + 1  # positions are counted from behind the padding token's id
        itemsize = next(self._model.parameters()).element_size()
        scores = ATTENTION_COPIES * int(config.num_attention_heads) * min(longest, 512) if written_out else 0
        return Cost(
            operations=2.0 * max(weights - embeddings, hidden),
            bytes=itemsize * (12 * hidden + 3 * inner + scores),
            longest=longest,
        )


def load(
    folder: Path, config: Mapping[str, Any], tokens: ScoreTokens | None, device: torch.device, dtype: torch.dtype
) -> TransformersModel:
    """Have transformers load a checkpoint. Raises ZooError when it does not know it, or when weights and config do not fit together."""
    import transformers

    architecture = str((config.get("architectures") or [""])[0])
    language_model = architecture.endswith("ForCausalLM") or tokens is not None
    auto = transformers.AutoModelForCausalLM if language_model else transformers.AutoModelForSequenceClassification
    try:
        model, info = auto.from_pretrained(
            folder,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **{_dtype_name(): dtype},
        )
    except Exception as error:  # torch, safetensors and transformers raise classes of their own
        raise ZooError(
            f"transformers cannot load {folder} ({architecture or config.get('model_type')}): {first_line(error)} "
            "Without transformers, the devices cpu and openvino may know it"
        ) from error
    _check_keys(folder, info)
    # transformers leaves 8-bit floats in their type, in which nothing is computed.
    return TransformersModel(model.to(device, dtype).eval(), tokens)


def _dtype_name() -> str:
    """What transformers calls the argument: 'dtype' from 4.56 on."""
    from transformers import __version__

    return "dtype" if tuple(map(int, __version__.split(".")[:2])) >= (4, 56) else "torch_dtype"


def _check_keys(folder: Path, info: Mapping[str, Any]) -> None:
    missing = sorted(str(key) for key in info.get("missing_keys", ()) if not str(key).endswith(NOT_WEIGHTS))
    if missing:
        no_head = any("classifier" in key or "score" in key for key in missing)
        remark = (
            "The checkpoint has no trained classifier, so it is not a reranker."
            if no_head
            else "Weights and config.json are not of the same model."
        )
        raise ZooError(f"the weights in {folder} lack {', '.join(missing[:8])}. {remark}")
    unexpected = [str(key) for key in info.get("unexpected_keys", ()) if not str(key).endswith(NOT_WEIGHTS)]
    if unexpected:
        logger.info("nothing reads these weights in %s: %s", folder, ", ".join(sorted(unexpected)[:8]))


def _takes(model: Any, argument: str) -> bool:
    return argument in inspect.signature(model.forward).parameters
