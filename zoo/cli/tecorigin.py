"""Spellings of Tecorigin's scripts, so that a command of its pages works with ``zoo`` in the place of ``python example_*.py``.

Underscores in options are hyphens everywhere (see ``zoo.cli``). Here are truth values behind options that need none (``--half True``),
and options that ``zoo`` has no use for.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from zoo.checks.expected import ExpectedScores

logger = logging.getLogger(__name__)

TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no")


class TecoriginCommand(click.Command):
    """A command whose flags may have a truth value behind them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(without_truth_values(args, self.get_params(ctx))))


def without_truth_values(args: Iterable[str], params: Iterable[click.Parameter]) -> Iterator[str]:
    """``--half True`` as ``--half``, ``--half False`` as ``--no-half``; a flag without an opposite is left out if it is False."""
    opposites = {
        spelling: param.secondary_opts[0] if param.secondary_opts else None
        for param in params
        if isinstance(param, click.Option) and param.is_flag and param.is_bool_flag and not param.is_eager
        for spelling in param.opts
        if spelling.startswith("--")
    }
    flag: str | None = None
    rest = iter(args)
    for arg in rest:
        if arg == "--":
            yield from ([] if flag is None else [flag])
            yield arg
            yield from rest
            return
        name, separator, value = arg.partition("=")
        name = name.replace("_", "-")
        if flag is not None:
            waiting, flag = flag, None
            if arg.casefold() in (*TRUE, *FALSE):
                yield from _spelled(waiting, opposites[waiting], arg)
                continue
            yield waiting
        if name not in opposites:
            yield arg
        elif separator:
            yield from _spelled(name, opposites[name], value)
        else:
            flag = name
    if flag is not None:
        yield flag


def _spelled(flag: str, opposite: str | None, value: str) -> Iterator[str]:
    if value.casefold() in TRUE:
        yield flag
    elif value.casefold() not in FALSE:
        yield f"{flag}={value}"  # click says what is wrong with it
    elif opposite:
        yield opposite


def model_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """``MODEL`` as an argument or, as Tecorigin's scripts have it, as ``--model-name``: the parameter ``model``."""

    @functools.wraps(function)
    def named(*, model: str | None, model_name: str | None, **values: Any) -> Any:
        if model is not None and model_name is not None and model != model_name:
            raise click.UsageError(f"MODEL is '{model}' and --model-name is '{model_name}': name one model.")
        chosen = model or model_name
        if chosen is None:
            raise click.UsageError("Missing argument 'MODEL'.")
        return function(model=chosen, **values)

    option = click.option("--model-name", metavar="MODEL", help="The same as the argument MODEL.")
    return click.argument("model", required=False, metavar="MODEL")(option(named))


def pasted_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of Tecorigin's scripts: one that changes nothing here, and the parameters ``need_fp16`` and ``onnx_datas``."""

    @functools.wraps(function)
    def told(*, file_type: str | None, **values: Any) -> Any:
        if file_type is not None:
            logger.info("--file-type is not needed: each line of a file is read as what it is")
        return function(**values)

    for option in (
        click.option("--need-fp16", is_flag=True, hidden=True, help="The same as --half."),
        click.option("--file-type", hidden=True, help="Not needed: each line is read as what it is."),
        click.option(
            "--onnx-datas",
            type=click.Path(path_type=Path),
            metavar="DIR",
            hidden=True,
            help="single: folder of Tecorigin's expected scores, to tell the error against them.",
        ),
    ):
        told = option(told)
    return told


def expected_scores(folder: Path | None, mode: str, model: str, batch_size: int | None) -> ExpectedScores | None:
    """What ``--onnx-datas`` is for, if it is given and the folder has it; a warning says so if it does not."""
    if folder is None:
        return None
    if mode != "single":
        logger.warning("--onnx-datas is not read with --mode %s: it is for the scores of a file of pairs", mode)
        return None
    from zoo.checks.expected import read_expected

    found = read_expected(folder, model, batch_size)
    if found is None:
        logger.warning(
            "--onnx-datas: there is no %s, so the error against it is not told. 'zoo verify MODEL --data-path FILE' computes that figure "
            "against ONNX Runtime on this machine",
            folder / model / f"{model}_bs{batch_size}_onnx.npy",
        )
    return found


def chosen_half(half: bool | None, need_fp16: bool) -> bool | None:
    """``--half``, or ``--need-fp16`` in its place."""
    if need_fp16 and half is False:
        raise click.UsageError("--need-fp16 and --no-half contradict each other.")
    return True if need_fp16 else half
