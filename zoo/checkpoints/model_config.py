"""``config.json``: the keys that zoo reads for itself, their types checked where the file is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from zoo.errors import InputError
from zoo.strict_json import read_object

T = TypeVar("T")

COUNT_FROM_PAD = frozenset({
    "camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm", "roberta",
    "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
})  # fmt: skip
"""Model types whose first token has the position ``pad_token_id + 1``, so that the rows of the table before it go unused.

transformers calls it ``create_position_ids_from_input_ids``; a test holds this list against its modules.
"""
COUNT_FROM_TWO = frozenset({"ernie_m", "mpnet"})
"""The same with a padding id of 1 written into the model, whatever config.json says."""
FURTHEST = {"deberta": 128, "deberta-v2": 128, "mpnet": 128}
"""Model types that count distances one by one up to half their buckets, and past them in steps that grow; half of DeBERTa's 256 buckets,
and MPNet's last bucket."""
DEFAULT_POSITIONS = 512
DEFAULT_PAD = 1


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What config.json says of a model, under transformers' own names.

    A key that is null counts as absent; exporters read the keys of their families themselves.

    ``model_type`` is the family, ``tokenizer_class`` transformers' class of the tokenizer. ``vocab_size`` counts tokens, ``pad_token_id``
    is the one that fills rows, and ``max_position_embeddings`` counts rows of the table of positions, of which a family may leave some
    unused (``position_limit``). ``hidden_size`` is the width of a token; ``num_attention_heads``, ``num_key_value_heads`` and ``head_dim``
    describe attention, ``local_attention`` how many tokens it sees in layers with a window. ``num_labels`` and ``id2label`` tell how many
    outputs a classifier has.
    """

    model_type: str | None = None
    architectures: list[str] | None = None
    """transformers' class."""
    tokenizer_class: str | None = None
    auto_map: dict[str, Any] | None = None
    """Classes that lie as code in the repository."""
    vocab_size: int | None = None
    pad_token_id: int | None = None
    max_position_embeddings: int | None = None
    hidden_size: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    local_attention: int | None = None
    num_labels: int | None = None
    id2label: dict[str, Any] | None = None

    @property
    def kind(self) -> str:
        """The class of transformers, or the model type, for messages."""
        return (self.architectures or [""])[0] or self.model_type or "unnamed"

    @property
    def labels(self) -> int:
        """Outputs of the classification head; 1 if the file does not say."""
        return len(self.id2label or ()) or self.num_labels or 1

    @property
    def furthest(self) -> int | None:
        """Tokens apart from which some layers see others otherwise than near ones, or not at all; None if all layers see all alike."""
        return FURTHEST.get(self.model_type or "", self.local_attention)

    @property
    def position_limit(self) -> int:
        """Longest input in tokens, special tokens included: positions of the table that a token can have."""
        positions = self.max_position_embeddings or DEFAULT_POSITIONS
        if self.model_type in COUNT_FROM_TWO:
            return positions - 2
        if self.model_type in COUNT_FROM_PAD:
            return positions - (DEFAULT_PAD if self.pad_token_id is None else self.pad_token_id) - 1
        return positions


def read_config(folder: Path) -> ModelConfig:
    """The config.json in ``folder``. Raises InputError naming the key whose value has another type than it should."""
    path = folder / "config.json"
    config = checked(read_object(path), ModelConfig, path)
    if config.position_limit < 1:
        raise InputError(
            path,
            None,
            f"leaves no position for a token: max_position_embeddings is {config.max_position_embeddings}, "
            f"pad_token_id is {config.pad_token_id}",
        )
    return config


def checked(content: object, kind: type[T], path: Path) -> T:
    """``content`` of the JSON file ``path`` as ``kind``. Raises InputError naming the key."""
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise InputError(path, None, f"has a value of a wrong type: {error}") from error
