"""BEIR's layout: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/SPLIT.tsv``; a folder of such folders is a data set of several parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from zoo.errors import InputError, UnknownNameError
from zoo.evaluation.datasets.collection import DataRequest, Judged, Queries
from zoo.evaluation.datasets.layout import Layout, Split, first_stage_file
from zoo.evaluation.datasets.lines import Lines, columns, json_lines, whole_number
from zoo.evaluation.datasets.passages import BeirDocument

QUERY = '{"_id": "...", "text": "..."}'
HEADER = ["query-id", "corpus-id", "score"]


class Query(msgspec.Struct, rename={"id": "_id"}):
    """A line of ``queries.jsonl``."""

    id: str | int
    text: str


def find(request: DataRequest, path: Path) -> list[Layout]:
    """The layouts asked for under ``path``, or nothing where this is no BEIR folder."""
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
    )


def read_queries(path: Path) -> Queries:
    """``queries.jsonl``. Raises InputError."""
    queries = Queries(Lines(path))
    for line, query in json_lines(queries.lines, Query, QUERY):
        queries.add(line, str(query.id), query.text)
    return queries


def _reader(folder: Path, split: str) -> Callable[[], Split]:
    def read() -> Split:
        queries = read_queries(folder / "queries.jsonl")
        judged = Judged(Lines(folder / "qrels" / f"{split}.tsv"), queries.table)
        for line, row in columns(judged.lines, " ".join(HEADER), "\t"):
            if row != HEADER:
                judged.add(line, row[0], row[1], whole_number(judged.lines, line, row[2], "score"))
            elif line.number != 1:
                raise InputError(judged.lines.path, line.number, "repeats the header. Remove the line")
        return Split(queries.table, judged, _hashes(queries.lines, judged.lines))

    return read


def _hashes(queries: Lines, judged: Lines) -> dict[str, str]:
    return {queries.path.name: queries.sha256, f"qrels/{judged.path.name}": judged.sha256}
