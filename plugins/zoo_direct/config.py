"""``config.json``, read with a list of what is understood: a key or value that may change the arithmetic is refused, not ignored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from zoo.api import ZooError

INERT = frozenset({
    # what the file is, and who wrote it
    "architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "name_or_path", "finetuning_task", "tokenizer_class",
    "task_specific_params", "problem_type", "license", "sentence_transformers", "sbert_ce_default_activation_function",
    # labels: the shape of the classifier's weights tells how many; tied embeddings concern the head of a language model alone, and its
    # family reads that key
    "id2label", "label2id", "num_labels", "tie_word_embeddings",
    # training; settings that change how results are computed, and not the results
    "initializer_range", "initializer_cutoff_factor", "gradient_checkpointing", "use_cache", "output_past", "torchscript", "use_bfloat16",
    "attn_implementation", "chunk_size_feed_forward", "tf_legacy_loss", "tie_weights_", "keys_to_ignore_at_inference",
    # what forward returns beside the logits
    "output_attentions", "output_hidden_states", "output_scores", "return_dict", "return_dict_in_generate", "use_return_dict",
    # generating text
    "bad_words_ids", "begin_suppress_tokens", "diversity_penalty", "do_sample", "early_stopping", "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty", "length_penalty", "max_length", "max_new_tokens", "min_length", "no_repeat_ngram_size",
    "num_beam_groups", "num_beams", "num_return_sequences", "prefix", "remove_invalid_values", "repetition_penalty", "suppress_tokens",
    "temperature", "tie_encoder_decoder", "top_k", "top_p", "typical_p",
})  # fmt: skip
"""Keys that change no logit of any family here."""
ACTIVATIONS: Mapping[str, str] = {
    "gelu": "gelu", "gelu_python": "gelu",
    "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_python_tanh": "gelu_tanh",
    "relu": "relu", "silu": "silu", "swish": "silu", "tanh": "tanh",
}  # fmt: skip
"""transformers' names of activations (``ACT2FN``), with the function each one is."""
MOST_LAYERS = 10_000
LARGEST_NUMBER = 1e18
"""A larger number in a config.json is a mistake: epsilons are near 1e-6, bases of frequencies up to 1e7. float32 holds 3e38."""
_ABSENT: Any = object()


class UnsupportedError(ZooError):
    """The checkpoint has something that no graph is known for; the message names it."""


class Config:
    """The values of a config.json. Each key is read once by the family that knows it; ``close`` refuses what is left.

    Every method raises UnsupportedError, naming the key, if the value is missing or is not understood.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._read: set[str] = set()

    def integer(self, key: str, default: int = _ABSENT, *, least: int = 1) -> int:
        found = self._take(key, default)
        if isinstance(found, bool) or not isinstance(found, int) or found < least:
            raise self._refusal(key, f"an integer of at least {least}")
        return found

    def layers(self, key: str = "num_hidden_layers") -> int:
        """How many layers there are: an integer that no model exceeds, because there is something to write for each."""
        found = self.integer(key)
        if found > MOST_LAYERS:
            raise self._refusal(key, f"an integer of at most {MOST_LAYERS}")
        return found

    def number(self, key: str, default: float = _ABSENT) -> float:
        """A number above zero, such as an epsilon."""
        found = self._take(key, default)
        if isinstance(found, bool) or not isinstance(found, (int, float)) or not 0 < found < LARGEST_NUMBER:
            raise self._refusal(key, "a number above 0")
        return float(found)

    def flag(self, key: str, default: bool) -> bool:
        found = self._take(key, default)
        if not isinstance(found, bool):
            raise self._refusal(key, "true or false")
        return found

    def choice(self, key: str, known: Sequence[str], default: str = _ABSENT) -> str:
        found = self._take(key, default)
        if found not in known:
            raise self._refusal(key, " or ".join(f"'{name}'" for name in known))
        return str(found)

    def activation(self, key: str, default: str = _ABSENT) -> str:
        """The function behind transformers' name for it: one of ``ACTIVATIONS``' values."""
        return ACTIVATIONS[self.choice(key, list(ACTIVATIONS), default)]

    def names(self, key: str, default: Sequence[str]) -> list[str]:
        """A list of names, also if it is written as ``a|b``, as DeBERTa's files do."""
        found = self._take(key, default)
        if isinstance(found, str):
            found = [part.strip() for part in found.lower().split("|") if part.strip()]
        if not isinstance(found, (list, tuple)) or not all(isinstance(name, str) for name in found):
            raise self._refusal(key, "a list of names")
        return list(found)

    def mapping(self, key: str) -> Config | None:
        """A nested object, to be read and closed like the file itself; None if it is absent or null."""
        found = self._take(key, None)
        if found is not None and not isinstance(found, Mapping):
            raise self._refusal(key, "an object or null")
        return None if found is None else Config(found)

    def only(self, key: str, *known: Any) -> None:
        """The key may be absent, or have one of these values: others change the arithmetic in ways that are not written."""
        found = self._take(key, known[0])
        # 0 == False in Python, and the two are written for each other in old files.
        if found not in known:
            raise self._refusal(key, " or ".join(_json(value) for value in known))

    def ignore(self, *keys: str) -> None:
        """Keys that change nothing in this family."""
        self._read.update(keys)

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self._values.get(key) is not None

    def is_null(self, key: str) -> bool:
        """Whether the key is there and null, which for some means something else than being absent."""
        return key in self._values and self._values[key] is None

    def close(self, inert: Collection[str] = INERT) -> None:
        """Raises UnsupportedError if a key is left that nobody has read and that may change the arithmetic."""
        left = [key for key in self._values if key not in self._read and key not in inert and not _harmless(key)]
        if left:
            first = min(left)
            raise UnsupportedError(
                f"config.json has the key '{first:.100}' ({_json(self._values[first])}), which is not understood"
            )

    def _take(self, key: str, default: Any) -> Any:
        self._read.add(key)
        found = self._values.get(key)
        if found is None:
            found = default
        if found is _ABSENT:
            raise UnsupportedError(f"config.json lacks the key '{key}'")
        return found

    def _refusal(self, key: str, wanted: str) -> UnsupportedError:
        return UnsupportedError(f"config.json has '{key}': {_json(self._values.get(key))}; only {wanted} is understood")


def _harmless(key: str) -> bool:
    """Dropout acts in training alone, ids of special tokens are the tokenizer's, and a leading underscore is transformers' own note."""
    return "dropout" in key or key.endswith(("_token_id", "_token_ids", "_token_index")) or key.startswith("_")


def _json(value: Any) -> str:
    import json

    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
