"""``zoo run``"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from click.core import ParameterSource

from zoo.cli.common import catalogue_of, json_option, verbosity_options
from zoo.cli.device_options import DeviceCommand
from zoo.cli.model_options import model_options
from zoo.cli.precision import chosen_precision
from zoo.cli.progress import Progress, progress_option
from zoo.cli.tecorigin import chosen_half, expected_scores, model_argument, pasted_options
from zoo.cli.threads import bound_tokenizer
from zoo.cli.valid_options import BATCH_SIZE, TOP_K, ValidChoices, check_mode, split_dataset, valid_options
from zoo.numerals import whole_number
from zoo.settings import RunSettings


class Rows(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # see KeyValue
    """A positive number of rows, or ``auto``, which is 0."""

    name = "N|auto"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value in ("auto", 0):
            return 0
        rows = whole_number(str(value)) or 0
        if rows < 1:
            self.fail(f"'{str(value)[:100]}' is neither a positive number nor 'auto'", param, ctx)
        return rows


@click.command("run", cls=DeviceCommand)
@model_argument
@click.option(
    "--mode",
    type=click.Choice(["single", "valid", "multi", "bench"]),
    help="single: a score for each pair. valid: rerank a data set's candidates and evaluate. multi: files of pairs into files of "
    "scores. bench: latency and throughput on random inputs. Default: valid if --data-path is a folder of a data set, else single.",
)
@click.option(
    "--data-path",
    metavar="PATH",
    multiple=True,
    help="single: pairs to score, one a line: a Python literal, JSON, or two tab-separated columns; '-' reads stdin. Default: the "
    "panda demo. valid: a data set's folder, in MLDR's, BEIR's or TREC's layout. Default: the bundled mldr-mini. multi: a folder, a "
    "glob or a file, repeatable; lines as above, JSONL, TSV, CSV, Parquet, Arrow, also with .gz or .zst.",
)
@click.option(
    "--batch-size",
    type=Rows(),
    help="Pairs a batch; 'auto' lets the device choose by the pairs' length, which is fastest for large inputs.  "
    f"[default: 1; valid: {BATCH_SIZE}, fewer where long pairs fill a device's budget, as on cpu; multi: auto]",
)
@click.option(
    "--half/--no-half",
    default=None,
    help="The same as --precision fp16, or fp32.",
)
@click.option("--normalize", is_flag=True, help="Print sigmoid(logit), between 0 and 1, in place of the logit.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="single: write results to this file in place of stdout. valid: folder of the result files.  "
    "[default: zoo-results/MODEL/DATASET] multi: the folder that gets a file of results for each file. "
    "bench: the file that gets the report.",
)
@model_options(
    target="Device to run on, see 'zoo devices'; 'onnx' is Tecorigin's name of cpu. Default: the best one available, SDAA first. "
    "bench: several, separated by commas, are measured in turns; DEVICE/PRECISION names a precision, too."
)
@progress_option
@valid_options
@pasted_options
@json_option
@verbosity_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    settings: RunSettings,
    mode: str | None,
    data_path: tuple[str, ...],
    batch_size: int | None,
    half: bool | None,
    normalize: bool,
    output: Path | None,
    progress: Progress,
    valid: ValidChoices,
    need_fp16: bool,
    onnx_datas: Path | None,
    as_json: bool,
) -> None:
    """Score pairs or files of pairs with MODEL, or evaluate it on a data set.

    Results go to stdout, everything else to stderr.
    """
    mode = mode or ("valid" if len(data_path) == 1 and Path(data_path[0]).is_dir() else "single")
    check_mode(ctx, mode, data_path, output)
    bound_tokenizer(settings.threads)
    settings = replace(
        settings,
        precision=chosen_precision(chosen_half(half, need_fp16), settings.precision, settings.ckpt),
        batch_size=chosen_rows(batch_size, mode),
    )
    expected = expected_scores(onnx_datas, mode, settings.model, settings.batch_size)
    given = ctx.get_parameter_source("workers") is not ParameterSource.DEFAULT
    actors = settings.workers if valid.cluster is not None and given else None
    if mode == "single":
        from zoo.cli.single import score_pairs

        path = data_path[0] if data_path else None
        score_pairs(
            catalogue_of(ctx),
            settings,
            path,
            output=output,
            as_json=as_json,
            normalize=normalize,
            style=progress,
            expected=expected,
        )
        return
    if mode == "bench":
        from zoo.cli.bench import measure

        measure(catalogue_of(ctx), settings, valid, output=output, as_json=as_json)
        return
    if mode == "multi":
        from zoo.cli.multi import score_folder

        assert output is not None  # check_mode
        score_folder(
            catalogue_of(ctx), settings, data_path, output, valid, style=progress, as_json=as_json, actors=actors
        )
        return
    dataset, languages = split_dataset(valid)
    from zoo.cli.valid import evaluate_and_print
    from zoo.evaluation.datasets import DataRequest
    from zoo.evaluation.harness import EvaluationRequest

    data = DataRequest(
        data_path=Path(data_path[0]) if data_path else None,
        dataset=dataset,
        languages=languages,
        split=valid.split,
        candidates=valid.candidates,
        top_k=valid.top_k or TOP_K,
        limit=valid.limit,
        ignore_identical_ids=valid.ignore_identical_ids,
        offline=settings.offline,
    )
    request = EvaluationRequest(
        data=data,
        output=output,
        overwrite=valid.overwrite,
        long_doc=valid.long_doc,
        normalize=normalize,
        rows_given=batch_size is not None,
    )
    evaluate_and_print(
        catalogue_of(ctx), settings, request, style=progress, as_json=as_json, cluster=valid.cluster, actors=actors
    )


def chosen_rows(given: int | None, mode: str) -> int | None:
    """Rows a batch: the mode's default if nothing is given, None if the device is to choose."""
    if given is None:
        return {"valid": BATCH_SIZE, "multi": None}.get(mode, 1)
    return given or None
