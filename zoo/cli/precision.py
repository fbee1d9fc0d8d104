"""``--precision`` and ``--half/--no-half``: two ways to say one thing, which must not contradict each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from zoo.settings import PrecisionChoice
from zoo.types import Precision

F = TypeVar("F", bound=Callable[..., Any])

precision_option = click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8", "auto"]),
    help="Precision of weights and arithmetic, see 'zoo devices'. auto: the fastest that a kept quality report ('zoo export --quality') "
    "shows to rank as fp32 does (rank correlation 0.99 or more, nDCG@10 at most 0.01 lower), else fp32. "
    "Default: the device's own (SDAA fp16, CPU fp32).",
)

allow_pickle_option = click.option(
    "--allow-pickle",
    is_flag=True,
    help="Read pytorch_model.bin where there are no safetensors; what is pickled in it is not executed.",
)


def chosen_precision(half: bool | None, precision: PrecisionChoice | None, ckpt: Path | None) -> PrecisionChoice | None:
    """What both options say together. Raises UsageError where they contradict each other, or ``auto`` meets a file of its own."""
    if precision == "auto" and ckpt is not None:
        raise click.UsageError(
            "--precision auto goes by reports on a checkpoint, and --ckpt names a file: name its precision"
        )
    if half is None:
        return precision
    said: Precision = "fp16" if half else "fp32"
    if precision is not None and precision != said:
        raise click.UsageError(
            f"--{'' if half else 'no-'}half means --precision {said}, and --precision {precision} is given"
        )
    return said
