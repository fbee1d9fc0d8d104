"""The command-line spelling of settings: messages of the library name a setting as `max_length`, in backquotes; users type a flag."""

from __future__ import annotations

import re
from collections.abc import Mapping

FLAGS: Mapping[str, str] = {
    "api_key_file": "--api-key-file",
    "allow_pickle": "--allow-pickle",
    "batch_size": "--batch-size",
    "candidates": "--candidates",
    "checkpoint": "--config-path",
    "ckpt": "--ckpt",
    "cluster": "--cluster",
    "columns": "--columns",
    "config_path": "--config-path",
    "data_path": "--data-path",
    "dataset": "--dataset",
    "device": "--target",
    "device_options": "--device-option",
    "exporter": "--exporter",
    "format": "--format",
    "host": "--host",
    "ignore_identical_ids": "--ignore-identical-ids",
    "languages": "--languages",
    "limit": "--limit",
    "link": "--link",
    "max_length": "--shape",
    "model_options": "--model-option",
    "offline": "--offline",
    "output": "--output",
    "overwrite": "--overwrite",
    "port": "--port",
    "precision": "--precision",
    "quality": "--quality",
    "query_max_length": "--query-max-length",
    "save_name": "--save-name",
    "shapes": "--shapes",
    "split": "--split",
    "threads": "--threads",
    "top_k": "--top-k",
    "torch": "--torch",
    "workers": "--workers",
}

QUOTED = re.compile("`([a-z_]+)`")


def as_flags(message: str) -> str:
    """``message`` with the settings in it spelled as the command line has them."""
    return QUOTED.sub(lambda found: FLAGS.get(found[1], found[0]), message)
