"""Weights that fill the model are read whatever lies beside them; those that do not fill it are refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from families import make
from zoo.errors import ZooError

pytestmark = [pytest.mark.export]
Tensors = dict[str, Any]


def rewritten(folder: Path, change: Callable[[Tensors], Tensors], family: str = "xlm-roberta") -> Any:
    """A checkpoint whose tensors were changed; returns the model as it was."""
    model = make(folder, family)
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    return model


def load(folder: Path) -> tuple[Any, str]:
    from zoo_optimum.torch_export import load

    return load(folder)


def with_heads(tensors: Tensors) -> Tensors:
    extra = {
        name: tensors["classifier.dense.weight"].clone()
        for name in ("roberta.pooler.dense.weight", "lm_head.dense.weight")
    }
    return {**tensors, **extra}


def test_heads_of_the_pre_training_that_were_kept_are_a_note(tmp_path: Path) -> None:
    model = rewritten(tmp_path, with_heads)
    loaded, note = load(tmp_path)
    assert note == "left unread: lm_head.dense.weight, roberta.pooler.dense.weight"
    expected = dict(model.named_parameters())
    assert all(bool((value == expected[name]).all()) for name, value in loaded.named_parameters())


def test_a_checkpoint_that_is_whole_has_no_note(tmp_path: Path) -> None:
    make(tmp_path, "bert")
    assert load(tmp_path)[1] == ""


def test_other_left_over_tensors_are_refused(tmp_path: Path) -> None:
    rewritten(
        tmp_path, lambda tensors: {**tensors, "roberta.adapter.weight": tensors["classifier.dense.weight"].clone()}
    )
    with pytest.raises(
        ZooError, match=r"unexpected: roberta.adapter.weight. Weights and config.json are not of the same model"
    ):
        load(tmp_path)


@pytest.mark.parametrize("prefix", ["module.", "model."])
def test_keys_that_a_training_program_prefixed_are_told_apart_from_another_model(tmp_path: Path, prefix: str) -> None:
    rewritten(tmp_path, lambda tensors: {prefix + name: value for name, value in tensors.items()})
    with pytest.raises(ZooError, match=rf"Every key begins with '{prefix}'"):
        load(tmp_path)


def test_an_encoder_without_a_classifier_is_said_to_be_no_reranker(tmp_path: Path) -> None:
    rewritten(
        tmp_path, lambda tensors: {name: value for name, value in tensors.items() if not name.startswith("classifier")}
    )
    with pytest.raises(ZooError, match="no trained classifier, so it is an encoder and no reranker"):
        load(tmp_path)
