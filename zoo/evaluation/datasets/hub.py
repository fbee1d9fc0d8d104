"""MLDR's raw files as the hub serves them: ``mldr-v1.0-LANG/{corpus,train,dev,test}.jsonl.gz`` of ``Shitao/MLDR``.

The hub's data set is a script, which ``datasets`` from version 4 on refuses and whose addresses pass a mirror by; the
raw files need neither. ``HF_ENDPOINT`` names a mirror.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from zoo.checkpoints.download import hub_endpoint, hub_reason
from zoo.checkpoints.sources import is_offline
from zoo.errors import UnknownNameError, ZooError
from zoo.evaluation.datasets.collection import DataRequest, Judged, Queries
from zoo.evaluation.datasets.layout import Layout, Split, first_stage_file, usual_places
from zoo.evaluation.datasets.lines import Form, Lines, json_lines
from zoo.evaluation.datasets.passages import HubDocument

logger = logging.getLogger(__name__)

REPOSITORY, REVISION = "Shitao/MLDR", "main"
LANGUAGES = ("ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "pt", "ru", "th", "zh")
SPLITS = ("train", "dev", "test")


class NamedPassage(msgspec.Struct):
    """A passage of a row; its text is in the corpus too and is not read here."""

    docid: str | int


class Row(msgspec.Struct):
    """A line of ``SPLIT.jsonl.gz``: a query with its judgements."""

    query_id: str | int
    query: str
    positive_passages: list[NamedPassage]
    negative_passages: list[NamedPassage]


ROW = Form(
    Row,
    '{"query_id": "...", "query": "...", "positive_passages": [{"docid": "...", "text": "..."}], "negative_passages": []}',
)


def find(request: DataRequest, path: Path) -> list[Layout]:
    """The layouts asked for in a folder of raw files, or nothing where it has none."""
    there = sorted(folder.name.removeprefix("mldr-v1.0-") for folder in path.glob("mldr-v1.0-*"))
    for language in request.languages if there else ():
        if language not in there:
            raise UnknownNameError(f"language in {path} called", language, there)
    return (
        [_layout(request, path / f"mldr-v1.0-{language}", language) for language in request.languages or there]
        if there
        else []
    )


def download(request: DataRequest) -> list[Layout]:
    """The layouts of the languages asked for, their files fetched into the hub's cache. Raises ZooError."""
    if request.split not in SPLITS:
        raise UnknownNameError("split of MLDR called", request.split, SPLITS)
    for language in request.languages:
        if language not in LANGUAGES:
            raise UnknownNameError("language of MLDR called", language, LANGUAGES)
    if not request.languages:
        raise ZooError(
            f"the data set mldr needs a language, for example mldr/en (`dataset`). There are {', '.join(LANGUAGES)}"
        )
    return [_layout(request, _fetch(language, request), language) for language in request.languages]


def _fetch(language: str, request: DataRequest) -> Path:
    from huggingface_hub import hf_hub_download

    offline = is_offline(request.offline)
    folder = Path()
    for name in ("corpus", request.split):
        file = f"mldr-v1.0-{language}/{name}.jsonl.gz"
        try:
            path = hf_hub_download(
                REPOSITORY,
                file,
                repo_type="dataset",
                revision=REVISION,
                endpoint=hub_endpoint(),
                local_files_only=offline,
            )
        except Exception as error:  # network faults come as requests', httpx' or the hub client's own classes
            where = "the Hugging Face cache (offline)" if offline else hub_endpoint()
            raise ZooError(
                f"{file} of {REPOSITORY} is not available from {where}: {hub_reason(error)}. Set HF_ENDPOINT to a mirror, "
                f"or put the file into DIR/{file} and name DIR (`data_path`), or use the data set mldr-mini, which comes with zoo"
            ) from error
        logger.info("%s: %s", file, path)
        folder = Path(path).parent
    return folder


def _layout(request: DataRequest, folder: Path, language: str) -> Layout:
    dataset = request.dataset or "mldr"
    return Layout(
        dataset=dataset,
        language=language,
        split=request.split,
        corpus=folder / "corpus.jsonl.gz",
        document=HubDocument,
        read=_reader(folder, request.split),
        candidates=first_stage_file(
            usual_places(folder.parent), [f"{language}-{request.split}.json"], request.candidates
        ),
        eval_names={dataset, "mldr"},
        dataset_names={language},
    )


def _reader(folder: Path, split: str) -> Callable[[], Split]:
    def read() -> Split:
        lines = Lines(folder / f"{split}.jsonl.gz")
        queries = Queries(lines)
        judged = Judged(lines, None)
        for line, row in json_lines(lines, ROW):
            query = str(row.query_id)
            queries.add(line, query, row.query)
            for passage, relevance in (
                *((passage, 1) for passage in row.positive_passages),
                *((passage, 0) for passage in row.negative_passages),
            ):
                judged.add(line, query, str(passage.docid), relevance)
        return Split(queries.table, judged, {"queries": lines.sha256})

    return read
