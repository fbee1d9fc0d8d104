"""What a run of ``--mode valid`` tells: Tecorigin's closing lines, the table beside them, and the files.

The times are defined in docs/evaluation.md.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import zoo
from zoo.cpus import usable_threads
from zoo.evaluation.datasets.collection import NO_RERANKER, Collection
from zoo.evaluation.metrics import MAIN, PLACES, ranked
from zoo.evaluation.rerank import Result
from zoo.evaluation.timing import BatchTime, Stopwatch
from zoo.files import atomic_write, make_folder
from zoo.registry.card import ModelCard, Reference
from zoo.scoring.scorer import RunStats
from zoo.statistics import percentile
from zoo.types import Run

PACKAGES = ("numpy", "onnxruntime", "pytrec_eval-terrier", "tokenizers", "bm25s")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds and rates of this invocation; batches that the journal had are not in them."""

    e2e: float
    """From the first byte of the data read to the last score."""
    data: float
    """In all, that the device had nothing to do."""
    inference: float
    """A batch, on the device."""
    preprocess: float
    postprocess: float
    pairs: int
    pairs_per_second: float
    tokens_per_second: float
    vendor_samples_per_second: float
    """Rows that only fill a fixed shape counted as samples, as Tecorigin does."""
    batches: int
    recalled_batches: int
    latency: Mapping[str, float]

    @classmethod
    def of(cls, e2e: float, watch: Stopwatch, stats: RunStats, recalled_batches: int, recalled_rows: int) -> Timing:
        """What the stopwatch saw, a batch; ``recalled_rows`` of the stats's pairs came from the journal."""
        rows = sum(batch.rows for batch in watch.batches)
        surplus = max(rows + recalled_rows - stats.pairs, 0)
        pairs, count = max(rows - surplus, 0), max(len(watch.batches), 1)
        seconds = [batch.seconds for batch in watch.batches]
        return cls(
            e2e=e2e,
            data=watch.idle,
            inference=sum(seconds) / count,
            preprocess=watch.preprocess / count,
            postprocess=watch.postprocess / count,
            pairs=pairs,
            pairs_per_second=pairs / e2e,
            tokens_per_second=sum(batch.tokens for batch in watch.batches) / e2e,
            vendor_samples_per_second=rows / e2e,
            batches=len(watch.batches),
            recalled_batches=recalled_batches,
            latency={f"p{share}": percentile(seconds, share / 100) for share in (50, 90, 99)},
        )

    def by_counter(self, device_seconds: float | None) -> Timing:
        """The same, with the device's time by its runtime's own counter where it has one."""
        return self if device_seconds is None else replace(self, inference=device_seconds / max(self.batches, 1))

    @property
    def summary(self) -> str:
        """Tecorigin's summary line, to the letter."""
        return (
            f"summary: avg_sps: {self.pairs_per_second}, e2e_time: {self.e2e}, data_time: {self.data}, "
            f"avg_inference_time: {self.inference}, avg_preprocess_time: {self.preprocess}, avg_postprocess: {self.postprocess}"
        )


def overall(results: Sequence[Result]) -> float:
    """nDCG@10, the mean over the languages, as Tecorigin's last line gives it."""
    return round(sum(result.reranked[MAIN] for result in results) / len(results), PLACES)


def table(results: Iterable[Result]) -> list[str]:
    """First stage against reranked, metric by metric."""
    lines = []
    for result in results:
        lines.append(
            f"{result.collection.dataset} {result.collection.label}: {len(result.per_query)} queries, "
            f"{result.collection.pairs} candidates of {result.collection.retriever}"
        )
        lines.append(f"  {'metric':<16} {'first stage':>11} {'reranked':>9} {'difference':>10}")
        for name, value in result.reranked.items():
            before = result.first_stage.get(name, math.nan)  # a plugin's metric may have failed on the first stage
            lines.append(f"  {name:<16} {before:>11.5f} {value:>9.5f} {value - before:>+10.5f}")
    return lines


def reference_checks(card: ModelCard, results: Iterable[Result], limited: bool) -> list[dict[str, Any]]:
    """The card's values for what was measured, each with the difference and whether it is inside the tolerance."""
    return [
        {
            **_fields(reference),
            "measured": result.reranked[reference.metric],
            "difference": round(result.reranked[reference.metric] - reference.value, PLACES),
            "reproduced": abs(result.reranked[reference.metric] - reference.value) <= reference.tolerance,
            "comparable": not limited,
        }
        for result in results
        for reference in card.reference
        if reference.dataset == f"{result.collection.dataset}/{result.collection.language}"
        and reference.metric in result.reranked
    ]


def _fields(reference: Reference) -> dict[str, Any]:
    return {name: getattr(reference, name) for name in reference.__struct_fields__}


def notes(results: Sequence[Result], checks: Iterable[Mapping[str, Any]], stats: RunStats, timing: Timing) -> list[str]:
    """What belongs beside the figures, a sentence a line."""
    lines = []
    for check in checks:
        verdict = "reproduced" if check["reproduced"] else "NOT reproduced"
        if not check["comparable"]:
            verdict = "not comparable, because the queries are limited"
        lines.append(
            f"reference: {check['metric']} on {check['dataset']} is {check['value']} ± {check['tolerance']} "
            f"({check['settings']}; {check['source']}): measured {check['measured']}, {verdict}"
        )
    for result in results:
        collection, ties = result.collection, result.ties
        lines += [f"warning: {warning}" for warning in result.warnings]
        if collection.missing:
            lines.append(
                f"{collection.label}: {len(collection.missing)} judged queries have no candidates (the first is "
                f"'{collection.missing[0]}'): trec_eval's means leave them out, MRR and capped recall count them as 0"
            )
        lines += [f"{collection.label}: {sentence}" for sentence in data_notes(collection)]
        if ties.scores:
            lines.append(
                f"{collection.label}: {ties.scores} tied scores in the top 10 of {ties.queries} queries; by the order among them "
                f"{MAIN} lies between {ties.worst} and {ties.best}"
            )
        else:
            lines.append(f"{collection.label}: no tied scores in the top 10")
        if result.chunks > collection.pairs:
            lines.append(
                f"{collection.label}: {collection.pairs} passages were scored in {result.chunks} chunks, "
                f"{result.chunks / collection.pairs:.2f} times the cost of cutting them off"
            )
    lines += [
        f"{result.collection.label}: {result.reading.share:.1%} of the tokens are unknown to the model's vocabulary"
        for result in results
        if result.reading.share >= 0.001
    ]
    cut = f"{stats.passages_truncated} of {stats.pairs} passages cut, {stats.queries_truncated} queries cut"
    lines.append(f"{cut}; padding ratio {stats.padding_ratio:.3f}")
    if timing.recalled_batches:
        lines.append(
            f"{timing.recalled_batches} of {timing.recalled_batches + timing.batches} batches came from the journal; "
            "times and rates are those of the others (measure all of them with `overwrite`)"
        )
    if timing.batches:
        p50, p90, p99 = timing.latency.values()
        lines.append(
            f"{timing.pairs} pairs in {timing.e2e:.2f} s: {timing.pairs_per_second:.1f} pairs/s, {timing.tokens_per_second:.0f} "
            f"tokens/s; a batch took {p50 * 1e3:.1f} / {p90 * 1e3:.1f} / {p99 * 1e3:.1f} ms (p50 / p90 / p99)"
        )
    return lines


def data_notes(collection: Collection) -> list[str]:
    """What is unusual about the data and decides figures, a sentence each."""
    notes = []
    if collection.identical:
        several = collection.identical > 1
        ranked_too = "were left out, as the rule is" if collection.identical_left_out else "were ranked with the others"
        notes.append(
            f"{collection.identical} candidate{'s' * several} had the id of {'their' if several else 'its'} own query and "
            f"{ranked_too if several else ranked_too.replace('were', 'was')} (`ignore_identical_ids`)"
        )
    if collection.absent:
        several = len(collection.absent) > 1
        notes.append(
            f"{len(collection.absent)} judged passage{'s are' if several else ' is'} not in the corpus (the first is "
            f"'{collection.absent[0]}') and count{'' if several else 's'} as not found"
        )
    return notes


def document(
    settings: Mapping[str, Any],
    results: Sequence[Result],
    checks: Sequence[Mapping[str, Any]],
    stats: RunStats,
    timing: Timing,
    batches: Sequence[BatchTime],
    device: Mapping[str, str],
    plugins: Mapping[str, str],
) -> dict[str, Any]:
    """``report.json``: everything that was measured, and what it was measured with."""
    return {
        "eval_metric": overall(results),
        "settings": dict(settings),
        "results": [_result(result) for result in results],
        "reference": list(checks),
        "truncation": {
            "pairs": stats.pairs,
            "passages_truncated": stats.passages_truncated,
            "queries_truncated": stats.queries_truncated,
        },
        "padding_ratio": round(stats.padding_ratio, PLACES),
        "timing": asdict(timing),
        "slowest_batches": [asdict(batch) for batch in sorted(batches, key=lambda b: -b.seconds)[:10]],
        "versions": {"zoo": zoo.__version__, "python": platform.python_version(), **_versions()},
        "plugins": dict(plugins),
        "device": dict(device),
        "host": {"platform": platform.platform(), "machine": platform.machine(), "threads": usable_threads()},
    }


def _result(result: Result) -> dict[str, Any]:
    collection = result.collection
    return {
        "dataset": collection.dataset,
        "language": collection.language,
        "split": collection.split,
        "retriever": collection.retriever,
        "first_stage_file": str(collection.first_stage),
        "queries": len(collection.queries),
        "queries_without_candidates": list(collection.missing),
        "identical_ids": {"candidates": collection.identical, "left_out": collection.identical_left_out},
        "judged_passages_not_in_the_corpus": list(collection.absent),
        "candidates": collection.pairs,
        "scored_pairs": result.chunks,
        "first_stage": dict(result.first_stage),
        "reranked": dict(result.reranked),
        "difference": {
            name: round(value - result.first_stage[name], PLACES)
            for name, value in result.reranked.items()
            if name in result.first_stage
        },
        "ties_in_top_10": asdict(result.ties),
        "tokens": result.reading.tokens,
        "unknown_share": round(result.reading.share, PLACES),
        "warnings": list(result.warnings),
        "per_query": {
            query: {
                "first_stage": result.first_per_query[query][MAIN],
                "reranked": values[MAIN],
                "unknown_share": round(result.reading.queries.get(query, 0.0), PLACES),
            }
            for query, values in result.per_query.items()
        },
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_files(output: Path, model: str, results: Sequence[Result]) -> list[Path]:
    """FlagEmbedding's result files and TREC runs. They hold no times: the same scores give the same bytes."""
    paths = []
    for stage in (NO_RERANKER, model):
        by_retriever: dict[str, dict[str, Any]] = {}
        for result in results:
            collection = result.collection
            retriever = _folder_name(collection)
            folder = output / "search_results" / retriever / stage
            run = collection.candidates if stage == NO_RERANKER else result.run
            if stage == model:
                paths.append(_write_json(folder / f"{collection.label}.json", _search_results(result, model)))
            paths.append(
                _write_trec(output / f"{collection.label}.{_file_name(stage)}.trec", run, "_".join(stage.split()))
            )
            figures = result.first_stage if stage == NO_RERANKER else result.reranked
            by_retriever.setdefault(retriever, {})[collection.label] = {
                name.replace("@", "_at_"): value for name, value in figures.items()
            }
        for retriever, figures in by_retriever.items():
            paths.append(
                _write_json(output / "search_results" / retriever / stage / "EVAL" / "eval_results.json", figures)
            )
    return paths


def make_folders(output: Path, model: str, collections: Iterable[Collection]) -> None:
    """The folders of the result files. Raises ZooError if one of them cannot be made."""
    for collection in collections:
        for stage in (NO_RERANKER, model):
            make_folder(output / "search_results" / _folder_name(collection) / stage / "EVAL")


def _folder_name(collection: Collection) -> str:
    return collection.retriever.replace("/", "_")


def _search_results(result: Result, model: str) -> dict[str, Any]:
    return {
        "eval_name": result.collection.dataset,
        "model_name": result.collection.retriever,
        "reranker_name": model,
        "split": result.collection.split,
        "dataset_name": result.collection.language,
        "search_results": {query: dict(scores) for query, scores in result.run.items()},
    }


def _file_name(stage: str) -> str:
    return "first-stage" if stage == NO_RERANKER else "reranked"


def _write_trec(path: Path, run: Run, tag: str) -> Path:
    """A TREC run whose ranks are trec_eval's own; nine digits give each float32 back."""
    with atomic_write(path, quiet=True) as handle:
        for query, scores in run.items():
            for rank, passage in enumerate(ranked(scores), start=1):
                handle.write(f"{query} Q0 {passage} {rank} {scores[passage]:.9g} {tag}\n")
    return path


def _write_json(path: Path, content: Mapping[str, Any]) -> Path:
    make_folder(path.parent)
    with atomic_write(path, quiet=True) as handle:
        json.dump(content, handle, indent=4)
    return path
