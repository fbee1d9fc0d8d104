"""``--precision`` and ``--half/--no-half``: two options for one setting, which must not contradict each other."""

from __future__ import annotations

from pathlib import Path

import click

from zoo.settings import PrecisionChoice
from zoo.types import Precision


def chosen_precision(half: bool | None, precision: PrecisionChoice | None, ckpt: Path | None) -> PrecisionChoice | None:
    """What both options say together. Raises UsageError if they contradict each other, or for ``auto`` with a model file of the user's."""
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
