"""The files of a run that hold scores and metrics: FlagEmbedding's and TREC's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.evaluation.datasets.collection import NO_RERANKER, Collection
from zoo.evaluation.metrics import ranked
from zoo.evaluation.rerank import Result
from zoo.files import atomic_write, make_folder
from zoo.types import Run


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
