"""``--precision`` and ``--half/--no-half``: two ways to say one thing, which must not contradict each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from zoo.types import Precision

F = TypeVar("F", bound=Callable[..., Any])

precision_option = click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    help="Precision of weights and arithmetic, see 'zoo devices'. Default: the device's own (SDAA fp16, CPU fp32).",
)

allow_pickle_option = click.option(
    "--allow-pickle",
    is_flag=True,
    help="Read pytorch_model.bin where there are no safetensors; what is pickled in it is not executed.",
)


def chosen_precision(half: bool | None, precision: Precision | None) -> Precision | None:
    """What both options say together. Raises UsageError where they contradict each other."""
    if half is None:
        return precision
    said: Precision = "fp16" if half else "fp32"
    if precision is not None and precision != said:
        raise click.UsageError(
            f"--{'' if half else 'no-'}half means --precision {said}, and --precision {precision} is given"
        )
    return said
