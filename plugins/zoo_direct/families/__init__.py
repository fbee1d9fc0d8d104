"""The families of models that a graph is known for, and how a checkpoint's own is found."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from zoo_direct.config import Config, UnsupportedError
from zoo_direct.families.model import Head, Model

FAMILIES: Mapping[str, str] = {
    "bert": "bert:Bert",
    "camembert": "roberta:Roberta",
    "deberta-v2": "deberta_v2:DebertaV2",
    "distilbert": "distilbert:DistilBert",
    "electra": "electra:Electra",
    "gemma": "gemma:Gemma",
    "modernbert": "modernbert:ModernBert",
    "mpnet": "mpnet:MPNet",
    "new": "gte_new:GteNew",
    "qwen2": "qwen:Qwen2",
    "qwen3": "qwen:Qwen3",
    "roberta": "roberta:Roberta",
    "xlm-roberta": "roberta:Roberta",
}
"""``model_type`` of config.json -> the module here and its class."""


def supports(config: Mapping[str, Any], head: Mapping[str, Any]) -> str:
    """Empty if a graph can be written for this config.json and head, else the reason, which names the key or value that is not known.

    It needs no weights. Raises ZooError if ``head`` is not a valid one.
    """
    try:
        read(config, Head.parse(head))
    except UnsupportedError as error:
        return str(error)
    return ""


def read(config: Mapping[str, Any], head: Head) -> Model:
    """The model that config.json describes. Raises UnsupportedError, naming the key, for what is not known."""
    keys = Config(config)
    kind = str(config.get("model_type"))
    if kind not in FAMILIES:
        raise UnsupportedError(f"config.json has the model type '{kind}'; known are {', '.join(FAMILIES)}")
    module, name = FAMILIES[kind].split(":")
    family: type[Model] = getattr(import_module(f"zoo_direct.families.{module}"), name)
    _check_class(config, family, head)
    for key, harmless in (
        ("pruned_heads", {}), ("is_encoder_decoder", False), ("add_cross_attention", False), ("cross_attention_hidden_size", None),
    ):  # fmt: skip
        keys.only(key, harmless)
    model = family.read(keys, head)
    keys.close()
    return model


def _check_class(config: Mapping[str, Any], family: type[Model], head: Head) -> None:
    """Raises UnsupportedError if the checkpoint's class does not give what the head reads."""
    wanted = family.generators if head.tokens else family.classifiers
    what = "a language model's head" if head.tokens else "a classifier of one label"
    if not wanted:
        raise UnsupportedError(f"the model type '{config['model_type']}' does not have {what}")
    classes = config.get("architectures")
    if classes and not (isinstance(classes, list) and len(classes) == 1 and classes[0] in wanted):
        raise UnsupportedError(f"config.json has 'architectures': {classes}; {what} is in {' or '.join(wanted)}")
    labels = config.get("num_labels", len(config["id2label"]) if isinstance(config.get("id2label"), dict) else 1)
    if not head.tokens and labels != 1:
        raise UnsupportedError(f"config.json describes a classifier with {labels} labels; a reranker has one")
