"""config.json: how long a model's input may be, family by family, and one clear error for a value of a wrong type."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from zoo.checkpoints.model_config import COUNT_FROM_PAD, COUNT_FROM_TWO, read_config
from zoo.errors import InputError

pytestmark = [pytest.mark.export, pytest.mark.lowest]


def config_of(folder: Path, **keys: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(keys), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("keys", "limit"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512, "pad_token_id": 0}, 512),
        ({"model_type": "bert", "pad_token_id": 3}, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 8194, "pad_token_id": 1}, 8192),
        ({"model_type": "camembert", "max_position_embeddings": 514, "pad_token_id": None}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 5}, 508),
        ({"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 0}, 512),
        ({"model_type": "modernbert", "max_position_embeddings": 8192, "pad_token_id": 50283}, 8192),
    ],
)
def test_the_longest_input_follows_from_the_family(tmp_path: Path, keys: dict[str, Any], limit: int) -> None:
    assert read_config(config_of(tmp_path, **keys)).position_limit == limit


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "not a JSON object"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"vocab_size": ' + "9" * 5000 + "}", "is not JSON"),
        ('{"vocab_size": "many"}', r"a wrong type: Expected `int \| null`, got `str` - at `\$.vocab_size`"),
        ('{"max_position_embeddings": [512]}', "max_position_embeddings"),
        ('{"pad_token_id": 1.5}', "pad_token_id"),
        ('{"id2label": ["a"]}', "id2label"),
        ('{"model_type": {}}', "model_type"),
        ('{"architectures": "BertModel"}', "architectures"),
        ('{"model_type": "roberta", "max_position_embeddings": 2, "pad_token_id": 1}', "leaves no position"),
        ('{"max_position_embeddings": -1}', "leaves no position"),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=said) as caught:
        read_config(tmp_path)
    assert str(tmp_path / "config.json") in str(caught.value)


@pytest.mark.slow  # it imports transformers
def test_the_list_of_families_whose_positions_count_from_the_padding_is_that_of_transformers() -> None:
    auto = pytest.importorskip("transformers.models.auto.modeling_auto", reason="the list is read in transformers")
    from transformers.models.auto.configuration_auto import model_type_to_module_name

    from_pad, from_one = set(), set()
    for kind, class_name in auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.items():
        name = model_type_to_module_name(kind)
        place = Path(inspect.getfile(importlib.import_module("transformers"))).parent / "models" / name
        sources = [path.read_text(encoding="utf-8") for path in place.glob("modeling_*.py")]
        source = next((text for text in sources if f"class {class_name}" in text and "import torch" in text), "")
        if "create_position_ids_from_input_ids(" in source:
            (from_one if "self.padding_idx = 1\n" in source else from_pad).add(kind)
    assert from_pad == set(COUNT_FROM_PAD)
    assert from_one == set(COUNT_FROM_TWO) - {"ernie_m"}, "a deprecated family that adds 2 by itself"
