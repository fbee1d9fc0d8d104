"""What a user asked for, free of anything that computes: commands import it before they know that they will run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from zoo.types import Precision

PrecisionChoice: TypeAlias = Precision | Literal["auto"]
"""What may be asked for: a precision, or the one that measurements allow."""

DEFAULT_LENGTH = 512
"""Tecorigin's default for ``--shape``, and for the query inside it."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a user asked for; None means the model's or the device's own default."""

    model: str
    ckpt: Path | None = None
    config_path: Path | None = None
    target: str | None = None
    precision: PrecisionChoice | None = None
    batch_size: int | None = 1
    """Rows a batch; None leaves them to the device."""
    batch_tokens: int | None = None
    """Rows times padded length of a batch, if rows are left to the device; None is the device's own choice."""
    max_length: int | None = None
    query_max_length: int = DEFAULT_LENGTH
    threads: int | None = None
    workers: int = 1
    offline: bool = False
    allow_pickle: bool = False
    exporter: str = ""
    """Who makes a model file of the checkpoint; empty means the one that takes the least time."""
    device_options: Mapping[str, str] = field(default_factory=dict)
    model_options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ExportSettings(RunSettings):
    """The same for an export. ``optimize`` None is the device's own recipe; ``shapes`` are those of the trace, as optimum names them."""

    output: Path | None = None
    """A new folder that gets the model file with its tokenizer; None leaves it in the cache."""
    link: bool = False
    """Whether the folder gets hard links to weights in place of copies."""
    optimize: str | None = None
    shapes: Mapping[str, str | int | bool] = field(default_factory=dict)
