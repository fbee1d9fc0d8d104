"""The options of ``zoo run`` that belong to ``--mode valid``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import click
from click.core import ParameterSource

BATCH_SIZE = 32
"""Pairs a batch in valid mode, where neither ``--batch-size`` nor a budget of the device says it."""


@dataclass(frozen=True, kw_only=True)
class ValidChoices:
    """The options as the user gave them."""

    dataset: str | None
    split: str
    languages: tuple[str, ...]
    candidates: Path | None
    top_k: int
    limit: int | None
    ignore_identical_ids: bool | None
    overwrite: bool
    long_doc: Literal["truncate", "max", "mean"]


class Names(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.4 on
    """``A,B,C``"""

    name = "A,B"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(name.strip() for name in str(value).split(","))
        if not all(names) or len(set(names)) < len(names):
            self.fail(f"'{value}' is no list of different names separated by commas", param, ctx)
        return names


OPTIONS = (
    click.option(
        "--dataset",
        metavar="NAME[/LANG]",
        help="valid: data set, and its language. mldr/en is downloaded where --data-path does not have it; mldr-mini comes with "
        "zoo. With --data-path: what the data set there is called. Default: mldr-mini, or the name of the folder.",
    ),
    click.option("--split", default="test", show_default=True, metavar="NAME", help="valid: split of the data set."),
    click.option(
        "--languages",
        type=Names(),
        default=(),
        metavar="A,B",
        help="valid: languages to evaluate. Default: all that are there.",
    ),
    click.option(
        "--candidates",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="valid: first-stage results, FlagEmbedding's JSON or a TREC run, or a folder of them. Default: where the data set "
        "has them, else made by BM25 (pip install 'zoo-runner[bm25]').",
    ),
    click.option(
        "--top-k",
        type=click.IntRange(min=1),
        default=100,
        show_default=True,
        metavar="N",
        help="valid: candidates reranked for each query, the best of the first stage.",
    ),
    click.option(
        "--limit", type=click.IntRange(min=1), metavar="N", help="valid: only the first N queries of each language."
    ),
    click.option(
        "--ignore-identical-ids/--keep-identical-ids",
        default=None,
        help="valid: leave out candidates whose id is the query's own, as in collections whose queries are passages. Default: the "
        "reference's rule, which leaves them out in BEIR's layout and keeps them in MLDR's and TREC's.",
    ),
    click.option(
        "--overwrite", is_flag=True, help="valid: throw away the scores that an earlier run left in the output folder."
    ),
    click.option(
        "--long-doc",
        type=click.Choice(["truncate", "max", "mean"]),
        default="truncate",
        show_default=True,
        help="valid: passages past the length limit are cut there, or scored in overlapping chunks of which the maximum or "
        "the mean counts.",
    ),
)


def valid_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of valid mode, together in its parameter ``valid``."""
    names = [field.name for field in fields(ValidChoices)]

    @functools.wraps(function)
    def gathered(**values: Any) -> Any:
        return function(valid=ValidChoices(**{name: values.pop(name) for name in names}), **values)

    for option in reversed(OPTIONS):
        gathered = option(gathered)
    return gathered


def check_mode(ctx: click.Context, mode: str, data_path: str | None, output: Path | None) -> None:
    """Refuse what belongs to the other mode. Raises click.UsageError."""
    if mode == "single":
        for field in fields(ValidChoices):
            if ctx.get_parameter_source(field.name) not in (ParameterSource.DEFAULT, None):
                option = "--" + field.name.replace("_", "-")
                raise click.UsageError(f"{option} belongs to --mode valid.")
        if output is not None and output.is_dir():
            raise click.UsageError(f"--output {output} is a folder; --mode single writes a file.")
        return
    if data_path == "-":
        raise click.UsageError("--data-path - belongs to --mode single; --mode valid takes a folder.")
    if output is not None and output.exists() and not output.is_dir():
        raise click.UsageError(f"--output {output} is a file; --mode valid writes a folder.")


def split_dataset(valid: ValidChoices) -> tuple[str | None, tuple[str, ...]]:
    """``--dataset NAME/LANG`` and ``--languages`` as a name and languages. Raises click.UsageError."""
    if valid.dataset is None:
        return None, valid.languages
    name, separator, language = valid.dataset.partition("/")
    if not name or (separator and not language) or "/" in language:
        raise click.UsageError(f"--dataset '{valid.dataset}' is not of the form NAME or NAME/LANG.")
    if language and valid.languages:
        raise click.UsageError("--dataset NAME/LANG and --languages both name languages; use one of them.")
    return name, (language,) if language else valid.languages
