"""The options of ``zoo run`` that belong to one mode or another, not to ``single``."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import click
from click.core import ParameterSource

from zoo.cli.numbers import FloatRange, IntRange

BATCH_SIZE = 32
"""Pairs a batch in valid mode, if neither ``--batch-size`` nor a budget of the device decides it."""

TOP_K = 100
"""Candidates of a query in valid mode."""

MODES = {
    **dict.fromkeys(("top_k", "overwrite", "cluster"), ("valid", "multi")),
    **dict.fromkeys(("columns", "form"), ("multi",)),
    **dict.fromkeys(("shapes", "duration", "iterations", "rounds", "plot"), ("bench",)),
}
"""The modes that an option belongs to, if that is not valid alone."""


@dataclass(frozen=True, kw_only=True)
class ValidChoices:
    """The options as the user gave them."""

    dataset: str | None
    split: str
    languages: tuple[str, ...]
    candidates: Path | None
    top_k: int | None
    limit: int | None
    ignore_identical_ids: bool | None
    overwrite: bool
    long_doc: Literal["truncate", "max", "mean"]
    columns: dict[str, str]
    form: Literal["jsonl", "csv", "parquet"]
    shapes: tuple[tuple[int, int], ...] | None
    duration: float
    iterations: int | None
    rounds: int
    plot: Path | None
    cluster: str | None


class Names(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.4 on
    """``A,B,C``"""

    name = "A,B"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(name.strip() for name in str(value).split(","))
        if not all(names) or len(set(names)) < len(names):
            self.fail(f"'{value}' is not a list of different names separated by commas", param, ctx)
        return names


class ColumnNames(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.4 on
    """``query=NAME,passage=NAME``, one or both."""

    name = "query=..,passage=.."

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, str]:
        if isinstance(value, dict):
            return value
        chosen: dict[str, str] = {}
        for part in str(value).split(","):
            key, _, name = part.partition("=")
            if key not in ("query", "passage") or not name or key in chosen:
                self.fail(f"'{value}' is not of the form query=NAME,passage=NAME", param, ctx)
            chosen[key] = name
        return chosen


class ShapeList(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.4 on
    """``1x128,8x512``: rows and tokens of batches."""

    name = "ROWSxTOKENS,.."

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[int, int], ...]:
        if isinstance(value, tuple):
            return value
        found = [re.fullmatch(r"([1-9][0-9]{0,6})x([1-9][0-9]{0,6})", part.strip()) for part in str(value).split(",")]
        if not all(found):
            self.fail(f"'{value}' is not of the form ROWSxTOKENS,ROWSxTOKENS, for example 1x128,8x512", param, ctx)
        return tuple((int(each[1]), int(each[2])) for each in found if each)


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
        type=IntRange(min=1),
        metavar="N",
        help="valid: candidates reranked for each query, the best of the first stage. multi: rows kept of each query, the best "
        f"by their scores.  [default: {TOP_K}; multi: all]",
    ),
    click.option(
        "--limit", type=IntRange(min=1), metavar="N", help="valid: only the first N queries of each language."
    ),
    click.option(
        "--ignore-identical-ids/--keep-identical-ids",
        default=None,
        help="valid: leave out candidates whose id is the query's own, as in collections whose queries are passages. Default: the "
        "reference's rule, which leaves them out in BEIR's layout and keeps them in MLDR's and TREC's.",
    ),
    click.option(
        "--overwrite",
        is_flag=True,
        help="valid, multi: throw away the scores that an earlier run left in the output folder.",
    ),
    click.option(
        "--long-doc",
        type=click.Choice(["truncate", "max", "mean"]),
        default="truncate",
        show_default=True,
        help="valid: passages past the length limit are cut there, or scored in overlapping chunks of which the maximum or "
        "the mean counts.",
    ),
    click.option(
        "--columns",
        type=ColumnNames(),
        default={},
        help="multi: names of the columns that hold the query and the passage, or a list of passages. Default: query, and the first "
        "of passage, passages, text, document, documents.",
    ),
    click.option(
        "--format",
        "form",
        type=click.Choice(["jsonl", "csv", "parquet"]),
        default="jsonl",
        show_default=True,
        help="multi: form of the result files; parquet needs pip install 'zoo-runner[table]'.",
    ),
    click.option(
        "--shapes",
        type=ShapeList(),
        help="bench: batches to measure.  [default: 1x512,4x512,8x512,16x512, as far as --shape and a device that is compiled for "
        "--batch-size rows take them]",
    ),
    click.option(
        "--duration",
        type=FloatRange(min=0, min_open=True),
        default=1.0,
        show_default=True,
        metavar="SECONDS",
        help="bench: time of each pass, one for latency and one for throughput, of each shape in each round.",
    ),
    click.option(
        "--iterations",
        type=IntRange(min=1),
        metavar="N",
        help="bench: batches of a pass, in place of --duration.",
    ),
    click.option(
        "--rounds",
        type=IntRange(min=1),
        default=5,
        show_default=True,
        metavar="N",
        help="bench: turns that each device and shape gets; their spread is the noise that 'zoo bench --compare' goes by.",
    ),
    click.option(
        "--plot",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="bench: draw throughput and latency to this SVG file; needs pip install 'zoo-runner[plot]'.",
    ),
    click.option(
        "--cluster",
        metavar="auto|HOST:PORT|local",
        help="valid, multi: score on a Ray cluster, the one of this machine, the one at an address, or a new one here; needs "
        "pip install 'zoo-runner[ray]'. --workers is then the number of actors, of --threads CPUs or a card each.  [default: as many "
        "as fit]",
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


def check_mode(ctx: click.Context, mode: str, data_path: Sequence[str], output: Path | None) -> None:
    """Refuse what belongs to another mode. Raises click.UsageError."""
    for field in fields(ValidChoices):
        modes = MODES.get(field.name, ("valid",))
        if mode not in modes and ctx.get_parameter_source(field.name) not in (ParameterSource.DEFAULT, None):
            option = {"form": "--format"}.get(field.name, "--" + field.name.replace("_", "-"))
            raise click.UsageError(f"{option} belongs to --mode {' and --mode '.join(modes)}.")
    if len(data_path) > 1 and mode != "multi":
        raise click.UsageError("--data-path is given more than once, which only --mode multi takes.")
    if mode == "bench" and data_path:
        raise click.UsageError("--mode bench makes its own inputs; --data-path does not belong to it.")
    if mode in ("single", "bench"):
        if output is not None and output.is_dir():
            raise click.UsageError(f"--output {output} is a folder; --mode {mode} writes a file.")
        return
    if "-" in data_path:
        raise click.UsageError(f"--data-path - belongs to --mode single; --mode {mode} reads files.")
    if output is not None and output.exists() and not output.is_dir():
        raise click.UsageError(f"--output {output} is a file; --mode {mode} writes a folder.")
    if mode == "multi" and not (data_path and output):
        raise click.UsageError("--mode multi needs --data-path, a folder, a glob or files, and --output, a folder.")


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
