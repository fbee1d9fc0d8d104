"""The options of every command that opens or exports a model, together in its parameter ``settings``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import click

from zoo.cli.device_options import KeyValue
from zoo.cli.numbers import IntRange
from zoo.settings import DEFAULT_LENGTH, RunSettings

PRECISION = (
    "Precision of weights and arithmetic, see 'zoo devices'. auto: the fastest that a kept quality report ('zoo export --quality') "
    "shows to rank as fp32 does (rank correlation 0.99 or more, nDCG@10 at most 0.01 lower), else fp32. "
    "Default: the device's own (SDAA fp16, CPU fp32)."
)

OPTIONS: dict[str, dict[str, Any]] = {
    "ckpt": {
        "type": click.Path(path_type=Path),
        "metavar": "FILE",
        "help": "Model file to open, ONNX or a device's own form; skips the export.",
    },
    "config_path": {
        "type": click.Path(path_type=Path),
        "metavar": "DIR",
        "help": "Folder with tokenizer and config, or a whole checkpoint. Default: the first place that has the model.",
    },
    "target": {
        "metavar": "DEVICE",
        "help": "Device to run on, see 'zoo devices'. Default: the best one available, SDAA first.",
    },
    "precision": {"type": click.Choice(["fp32", "fp16", "bf16", "int8", "auto"]), "help": PRECISION},
    "max_length": {
        "type": IntRange(min=1),
        "metavar": "TOKENS",
        "help": f"Length limit of query and passage together, in tokens.  [default: {DEFAULT_LENGTH}]",
    },
    "query_max_length": {
        "type": IntRange(min=1),
        "default": DEFAULT_LENGTH,
        "show_default": True,
        "metavar": "TOKENS",
        "help": "Length limit of the query alone. FlagEmbedding's own default is 384 (three quarters of --shape).",
    },
    "allow_pickle": {
        "is_flag": True,
        "help": "Read pytorch_model.bin where there are no safetensors; what is pickled in it is not executed.",
    },
    "offline": {"is_flag": True, "help": "Never touch the network."},
    "threads": {
        "type": IntRange(min=1),
        "metavar": "N",
        "help": "Threads to compute with. Default: what this process may use.",
    },
    "workers": {
        "type": IntRange(min=1),
        "default": 1,
        "show_default": True,
        "help": "Processes that each load the model and compute on their share of the threads, for machines of many cores.",
    },
    "exporter": {
        "default": "",
        "metavar": "NAME",
        "help": "Who makes the model file. Default: who takes the least time.",
    },
    "model_options": {
        "type": KeyValue(),
        "multiple": True,
        "help": "An option of the model's architecture, repeatable, over those of its card.",
    },
}
"""By the settings that they fill."""

SPELLINGS = {"max_length": "--shape", "model_options": "--model-option"}


def model_options(
    *, leave_out: Collection[str] = (), kind: type[RunSettings] = RunSettings, **helps: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options that fill a ``kind`` of settings, and the settings in their place.

    ``leave_out`` names those that mean nothing to the command; ``helps`` has the words for those that mean something else to it. Takes
    the parameters ``model`` and, of a DeviceCommand, ``device_options``.
    """
    names = [name for name in OPTIONS if name not in leave_out]

    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def gathered(**values: Any) -> Any:
            taken = ["model", *names, *(["device_options"] if "device_options" in values else [])]
            chosen = {name: values.pop(name) for name in taken}
            chosen["model_options"] = dict(chosen["model_options"])
            return function(settings=kind(**chosen), **values)

        for name in reversed(names):
            spelling = SPELLINGS.get(name, "--" + name.replace("_", "-"))
            gathered = click.option(spelling, name, **{**OPTIONS[name], **_help(helps, name)})(gathered)
        return gathered

    return decorated


def _help(helps: dict[str, str], name: str) -> dict[str, str]:
    return {"help": helps[name]} if name in helps else {}
