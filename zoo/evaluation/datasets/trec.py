"""TREC's files with a corpus: ``corpus.jsonl``, ``queries.tsv`` (or ``.jsonl``), qrels of four columns, and a run of six.

The qrels are ``qrels.txt``, ``qrels.SPLIT.txt``, ``SPLIT.qrels`` or their like; the run is ``run.txt``, ``SPLIT.run``, ``run.trec`` or
``--candidates FILE``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from zoo.errors import InputError
from zoo.evaluation.datasets import beir, mldr
from zoo.evaluation.datasets.collection import DataRequest, Judged, Queries
from zoo.evaluation.datasets.layout import Layout, Split, first_stage_file
from zoo.evaluation.datasets.lines import Lines, columns, json_lines
from zoo.evaluation.datasets.passages import BeirDocument, Document, MldrDocument

CORPORA = ("corpus.jsonl", "corpus.jsonl.gz")
QUERIES = ("queries.tsv", "queries.jsonl", "topics.tsv")


def find(request: DataRequest, path: Path) -> list[Layout]:
    """The one layout of the folder ``path``, or nothing where it has no corpus and no TREC qrels."""
    split = request.split
    corpus = _first(path, CORPORA)
    qrels = _first(path, [
        f"{stem}{end}" for stem in (f"qrels.{split}", f"{split}.qrels", f"qrels-{split}", "qrels") for end in (".txt", ".trec", "")
    ])  # fmt: skip
    queries = _first(path, QUERIES)
    if corpus is None or qrels is None:
        return []
    if queries is None:
        raise InputError(path, None, f"has a corpus and qrels and no queries: one of {', '.join(QUERIES)}")
    runs = [f"{stem}{end}" for stem in (f"run.{split}", "run") for end in (".txt", ".trec", "")]
    name, dataset = path.name, request.dataset or path.name
    return [
        Layout(
            dataset=dataset,
            language=name,
            split=split,
            corpus=corpus,
            document=_document(corpus),
            read=_reader(queries, qrels),
            candidates=first_stage_file([path], [f"{split}.run", *runs, f"{name}-{split}.json"], request.candidates),
            eval_names={dataset, name},
            dataset_names={dataset, name},
        )
    ]


def _first(folder: Path, names: tuple[str, ...] | list[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _document(corpus: Path) -> type[Document]:
    """Corpora say ``_id`` or ``id``; the first line decides for all."""
    lines = Lines(corpus)
    for line in lines:
        return BeirDocument if '"_id"' in lines.text(line) else MldrDocument
    return BeirDocument  # an empty corpus is refused where it is read


def _read_queries(path: Path) -> Queries:
    if path.suffix == ".jsonl":
        lines = Lines(path)
        first = next((lines.text(line) for line in lines), "")
        if '"_id"' in first:
            return beir.read_queries(path)
        queries = Queries(Lines(path))
        for line, query in json_lines(queries.lines, mldr.QUERY):
            queries.add(line, str(query.id), query.text)
        return queries
    queries = Queries(Lines(path))
    for line, (query_id, text) in columns(queries.lines, "query-id text", "\t"):
        queries.add(line, query_id, text)
    return queries


def _reader(queries_path: Path, qrels_path: Path) -> Callable[[], Split]:
    def read() -> Split:
        queries = _read_queries(queries_path)
        judged = Judged(Lines(qrels_path), queries.table)
        for line, (query, _, passage, relevance) in columns(judged.lines, "query 0 passage relevance", None):
            if line.number > 1 or not beir.is_header((query, passage, relevance)):
                judged.add(line, query, passage, relevance)
        inputs = {"queries": queries.lines.sha256, "judgements": judged.lines.sha256}
        return Split(queries.table, judged, inputs)

    return read
