"""Options of ``zoo run`` that the vendor's scripts have for SDAA. They are device options under the vendor's spelling."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

NAMES = ("card_id", "pass_path", "save_engine")


def sdaa_options(function: F) -> F:
    """``--card-id``, ``--pass-path`` and ``--save-engine``, handed to ``function`` among its ``device_options``."""

    @functools.wraps(function)
    def merged(*args: Any, device_options: tuple[tuple[str, str], ...], **rest: Any) -> Any:
        spelled = {name: rest.pop(name) for name in NAMES}
        given = tuple((name, value) for name, value in spelled.items() if value)
        return function(*args, device_options=(*device_options, *given), **rest)

    decorated: Any = merged
    for option in (
        click.option(
            "--save-engine",
            is_flag=False,
            flag_value=".",
            metavar="[FILE]",
            callback=_truth,
            help="SDAA: keep the compiled engine as FILE too (alone: here, named by model and shape); --ckpt takes it.",
        ),
        click.option(
            "--pass-path", metavar="FILE", help="SDAA: Python file with use_passes(ir_module), run when compiling."
        ),
        click.option("--card-id", metavar="N", help="SDAA: the card, as in --target sdaa:N."),
    ):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def _truth(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The vendor's scripts write a truth value after this option."""
    return {"true": ".", "1": ".", "false": None, "0": None}.get(value.casefold(), value) if value else None
