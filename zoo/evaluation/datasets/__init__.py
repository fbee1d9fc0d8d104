"""Data sets to evaluate on. One file a format; ``open_collections`` finds out which one a folder is in."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from zoo.errors import InputError, UnknownNameError, ZooError
from zoo.evaluation.datasets import beir, hub, mldr, trec
from zoo.evaluation.datasets.collection import Collection, DataRequest
from zoo.evaluation.datasets.layout import Layout
from zoo.evaluation.datasets.names import unfit_name
from zoo.files import resolved
from zoo.paths import bundled

__all__ = ["Collection", "DataRequest", "find_layouts", "open_collections"]

logger = logging.getLogger(__name__)

MINIATURE = "mldr-mini"
FORMATS = (mldr.find, hub.find, beir.find, trec.find)
EXPECTED = (
    "It takes a folder in MLDR's layout (LANG/corpus.jsonl, LANG/SPLIT_queries.jsonl, LANG/SPLIT_qrels.jsonl), MLDR's raw files "
    "(mldr-v1.0-LANG/corpus.jsonl.gz), BEIR's layout (corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv) or TREC's "
    "(corpus.jsonl, queries.tsv, qrels.txt)"
)


def find_layouts(request: DataRequest) -> list[Layout]:
    """What there is of what was asked for; nothing is read but names. Raises ZooError."""
    for name, text in (("split", request.split), ("dataset", request.dataset)):
        if text is not None and (problem := unfit_name(text) or ("contains '/'" if "/" in text else "")):
            raise ZooError(f"the name {text!r:.100} (`{name}`) {problem}, and files are called by it")
    if request.data_path is None:
        name = request.dataset or MINIATURE
        if name == MINIATURE:
            return mldr.find(replace(request, dataset=MINIATURE), bundled("datas") / MINIATURE / "data")
        if name == "mldr":
            return hub.download(request)
        raise UnknownNameError(
            "data set that zoo gets by itself called",
            name,
            ["mldr", MINIATURE],
            "Others need their folder (`data_path`).",
        )
    # '.' and '..' have a name and a parent too; any other path is called what the user called it.
    path = Path(request.data_path)
    path = resolved(path) if ".." in path.parts else path.absolute()
    if not path.is_dir():
        problem = "is a file, not a folder" if path.exists() else "no such folder"
        if path.is_file():
            problem += ". Pairs without judgements are scored in mode single, or compared with ONNX Runtime's scores by 'zoo verify'"
        raise InputError(path, None, f"{problem}. {EXPECTED}")
    for find in FORMATS:
        layouts = find(request, path)
        if layouts:
            return layouts
    raise InputError(path, None, f"is a folder, but not a data set. {EXPECTED}")


def open_collections(layouts: list[Layout], request: DataRequest) -> list[Collection]:
    """Each layout, read and checked. Raises ZooError with the faults of the first file that has some, before anything is scored."""
    return [layout.load(request) for layout in layouts]
