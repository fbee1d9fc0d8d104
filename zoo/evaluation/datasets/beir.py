"""BEIR's layout: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/SPLIT.tsv``; a folder of such folders is a data set of several parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from zoo.errors import UnknownNameError
from zoo.evaluation.datasets.collection import DataRequest, Judged, Queries
from zoo.evaluation.datasets.layout import Layout, Split, first_stage_file
from zoo.evaluation.datasets.lines import Form, Lines, columns, json_lines
from zoo.evaluation.datasets.passages import BeirDocument

COLUMNS = "query-id corpus-id score"
SPELLINGS = (
    frozenset({"queryid", "query", "qid", "topicid", "topic"}),
    frozenset(
        {"corpusid", "corpus", "documentid", "document", "docid", "docno", "doc", "passageid", "passage", "pid", "did"}
    ),
    frozenset({"score", "relevance", "rel", "grade", "label", "judgement", "judgment"}),
)
"""What published files call their columns, without case, hyphens, underscores and blanks."""


class Query(msgspec.Struct, rename={"id": "_id"}):
    """A line of ``queries.jsonl``."""

    id: str | int
    text: str


QUERY = Form(Query, '{"_id": "...", "text": "..."}')


def find(request: DataRequest, path: Path) -> list[Layout]:
    """The layouts asked for under ``path``, or nothing if this is not a BEIR folder."""
    parts = {path.name: path} if _is_beir(path) else {p.name: p for p in sorted(path.iterdir()) if _is_beir(p)}
    if not parts:
        return []
    for name in request.languages:
        if name not in parts:
            raise UnknownNameError(f"part of {path} called", name, parts)
    chosen = {name: parts[name] for name in request.languages or parts}
    return [_layout(request, folder, path.name) for folder in chosen.values()]


def _is_beir(path: Path) -> bool:
    return (path / "corpus.jsonl").is_file() and (path / "qrels").is_dir() and any((path / "qrels").glob("*.tsv"))


def _layout(request: DataRequest, folder: Path, top: str) -> Layout:
    splits = sorted(path.stem for path in (folder / "qrels").glob("*.tsv"))
    if request.split not in splits:
        raise UnknownNameError(f"split in {folder / 'qrels'} called", request.split, splits)
    dataset, name = request.dataset or top, folder.name
    files = [f"{label}-{request.split}.json" for label in dict.fromkeys((name, dataset))]
    return Layout(
        dataset=dataset,
        language=name,
        split=request.split,
        corpus=folder / "corpus.jsonl",
        document=BeirDocument,
        read=_reader(folder, request.split),
        candidates=first_stage_file([folder, folder.parent], files, request.candidates),
        eval_names={dataset} if request.dataset else {dataset, name, "beir"},
        dataset_names={name, dataset},
        ignore_identical_ids=True,  # as BEIR's own EvaluateRetrieval.evaluate does
    )


def read_queries(path: Path) -> Queries:
    """``queries.jsonl``. Raises InputError."""
    queries = Queries(Lines(path))
    for line, query in json_lines(queries.lines, QUERY):
        queries.add(line, str(query.id), query.text)
    return queries


def _reader(folder: Path, split: str) -> Callable[[], Split]:
    def read() -> Split:
        queries = read_queries(folder / "queries.jsonl")
        judged = Judged(Lines(folder / "qrels" / f"{split}.tsv"), queries.table)
        for line, row in columns(judged.lines, COLUMNS, "\t"):
            if not is_header(row):
                judged.add(line, *row)
            elif line.number != 1:
                judged.lines.faults.add(judged.lines.fault(line, "repeats the header. Remove the line"))
        return Split(queries.table, judged, {"queries": queries.lines.sha256, "judgements": judged.lines.sha256})

    return read


def is_header(row: Sequence[str]) -> bool:
    """Whether the columns of a line of judgements are their names."""
    plain = ("".join(filter(str.isalnum, column.casefold())) for column in row)
    return all(column in known for column, known in zip(plain, SPELLINGS, strict=True))
