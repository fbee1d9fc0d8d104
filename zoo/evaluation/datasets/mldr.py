"""MLDR as FlagEmbedding keeps it on the disk: a folder a language, ``corpus.jsonl`` and ``SPLIT_{queries,qrels}.jsonl``.

The first stage's results lie one level above the data (``mldr/en-test.json``, the TecoInference harness's place) or in
``RESULTS/RETRIEVER/NoReranker/en-test.json`` (FlagEmbedding's).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from zoo.errors import UnknownNameError, ZooError
from zoo.evaluation.datasets.collection import DataRequest, Judged, Queries
from zoo.evaluation.datasets.layout import Layout, Split, first_stage_file, usual_places
from zoo.evaluation.datasets.lines import Form, Lines, json_lines
from zoo.evaluation.datasets.passages import MldrDocument


class Query(msgspec.Struct):
    """A line of ``SPLIT_queries.jsonl``."""

    id: str | int
    text: str


class Judgement(msgspec.Struct):
    """A line of ``SPLIT_qrels.jsonl``."""

    qid: str | int
    docid: str | int
    relevance: int


QUERY = Form(Query, '{"id": "...", "text": "..."}')
JUDGEMENT = Form(Judgement, '{"qid": "...", "docid": "...", "relevance": 1}')


def find(request: DataRequest, path: Path) -> list[Layout]:
    """The layouts asked for under ``path``, or nothing if this is not an MLDR folder."""
    root = next((root for root in (path, path / "data", path.parent) if _languages(root)), None)
    if root is None or (root == path.parent and path.name not in _languages(root)):
        return []
    there = _languages(root)
    wanted = request.languages or ((path.name,) if root == path.parent else there)
    for language in wanted:
        if language not in there:
            raise UnknownNameError(f"language in {root} called", language, there)
    dataset = request.dataset or (root.parent.name if root.name == "data" else root.name)
    with_split = [language for language in wanted if (root / language / f"{request.split}_queries.jsonl").is_file()]
    if not with_split or (request.languages and len(with_split) < len(wanted)):
        raise UnknownNameError(f"split in {root} called", request.split, _splits(root))
    return [_layout(request, root, dataset, language) for language in with_split]


def _languages(root: Path) -> list[str]:
    return sorted({path.parent.name for path in root.glob("*/*_queries.jsonl")}) if root.is_dir() else []


def _splits(root: Path) -> list[str]:
    return sorted({path.name.removesuffix("_queries.jsonl") for path in root.glob("*/*_queries.jsonl")})


def _layout(request: DataRequest, root: Path, dataset: str, language: str) -> Layout:
    folder, name = root / language, f"{language}-{request.split}.json"
    if request.candidates is not None and request.candidates.is_file() and len(request.languages) > 1:
        raise ZooError(
            f"{request.candidates} (`candidates`) is one file for {len(request.languages)} languages: name a folder"
        )
    return Layout(
        dataset=dataset,
        language=language,
        split=request.split,
        corpus=folder / "corpus.jsonl",
        document=MldrDocument,
        read=_reader(folder, request.split),
        candidates=first_stage_file(usual_places(root), [name], request.candidates),
        eval_names={dataset} if request.dataset else {dataset, "mldr"},
        dataset_names={language},
    )


def _reader(folder: Path, split: str) -> Callable[[], Split]:
    def read() -> Split:
        queries = Queries(Lines(folder / f"{split}_queries.jsonl"))
        for line, query in json_lines(queries.lines, QUERY):
            queries.add(line, str(query.id), query.text)
        judged = Judged(Lines(folder / f"{split}_qrels.jsonl"), queries.table)
        for line, judgement in json_lines(judged.lines, JUDGEMENT):
            judged.add(line, str(judgement.qid), str(judgement.docid), judgement.relevance)
        return Split(queries.table, judged, {"queries": queries.lines.sha256, "judgements": judged.lines.sha256})

    return read
