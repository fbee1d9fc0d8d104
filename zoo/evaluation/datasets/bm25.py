"""Candidates by BM25, for a collection that comes without a first stage. Needs the extra ``bm25``."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from zoo.errors import InputError, NotInstalledError
from zoo.evaluation.datasets.collection import NO_RERANKER
from zoo.evaluation.datasets.lines import Lines, json_lines
from zoo.evaluation.datasets.passages import Document, form_of
from zoo.files import atomic_write, make_folder

logger = logging.getLogger(__name__)

NAME = "bm25"
UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
"""Thai, kana, Han and Hangul: written without blanks between words."""
WORD = re.compile(rf"[{UNSPACED}]+|[^\W{UNSPACED}]+")


class Naming(NamedTuple):
    """What the file says of itself."""

    eval_name: str
    dataset_name: str
    split: str


def words(text: str) -> Iterator[str]:
    """The terms of a text: words in lower case; overlapping pairs of characters where words are not set apart.

    Pairs of characters are what Lucene's CJK analyser indexes: no dictionary, and close to one in quality.
    """
    for match in WORD.finditer(text.casefold()):
        run = match.group()
        if run[0] in _UNSPACED and len(run) > 1:
            yield from (run[i : i + 2] for i in range(len(run) - 1))
        else:
            yield run


class _Characters:
    """Membership of a character class, without a table of all its characters."""

    def __init__(self, characters: str) -> None:
        self._match = re.compile(f"[{characters}]").match

    def __contains__(self, character: str) -> bool:
        return self._match(character) is not None


_UNSPACED = _Characters(UNSPACED)


def make(
    corpus: Path, form: type[Document], queries: Mapping[str, str], naming: Naming, *, top_k: int, work: Path
) -> Path:
    """Write the ``top_k`` best passages of each query in the reference's form, or find the file from last time.

    Raises NotInstalledError without the extra.
    """
    path = work / "search_results" / NAME / NO_RERANKER / f"{naming.dataset_name}-{naming.split}.json"
    made_from = _fingerprint(corpus, queries, top_k)
    if _made_from(path) == made_from:
        logger.info("candidates: %s, made before", path)
        return path
    results = _search(corpus, form, queries, top_k)
    make_folder(path.parent)
    with atomic_write(path, quiet=True) as handle:
        json.dump(
            {
                "eval_name": naming.eval_name,
                "model_name": NAME,
                "reranker_name": NO_RERANKER,
                "split": naming.split,
                "dataset_name": naming.dataset_name,
                "made_from": made_from,
                "search_results": results,
            },
            handle,
            indent=4,
        )
    logger.info("candidates: %s, the %d best by BM25 for each of %d queries", path, top_k, len(queries))
    return path


def _fingerprint(corpus: Path, queries: Mapping[str, str], top_k: int) -> dict[str, Any]:
    if not corpus.is_file():
        raise InputError(corpus, None, "no such file")
    stat = corpus.stat()
    asked = hashlib.sha256(json.dumps(list(queries.items())).encode()).hexdigest()
    return {"corpus_bytes": stat.st_size, "corpus_changed_ns": stat.st_mtime_ns, "queries": asked, "top_k": top_k}


def _made_from(path: Path) -> object:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content.get("made_from") if isinstance(content, dict) else None


def _search(corpus: Path, form: type[Document], queries: Mapping[str, str], top_k: int) -> dict[str, dict[str, float]]:
    try:
        import bm25s
    except ImportError as error:
        raise NotInstalledError(
            f"{corpus} comes without first-stage results. Name them (`candidates`), or have them made by BM25: "
            "pip install 'zoo-runner[bm25]'"
        ) from error
    logger.info("no first-stage results: indexing %s for BM25", corpus)
    vocabulary: dict[str, int] = {}
    ids: list[str] = []
    tokens: list[array[int]] = []
    for _, document in json_lines(Lines(corpus), form_of(form)):
        ids.append(document.key)
        tokens.append(array("i", (vocabulary.setdefault(word, len(vocabulary)) for word in words(document.passage))))
    if not vocabulary:
        raise InputError(corpus, None, "has no words to search for")
    index = bm25s.BM25()
    index.index((tokens, vocabulary), show_progress=False)
    return {query: _best(index, vocabulary, text, ids, top_k) for query, text in queries.items()}


def _best(index: Any, vocabulary: Mapping[str, int], text: str, ids: list[str], top_k: int) -> dict[str, float]:
    """Passages that share a word with the query, best first, earlier in the corpus first among equals."""
    import numpy as np

    known = [vocabulary[word] for word in words(text) if word in vocabulary]
    if not known:
        return {}
    scores = index.get_scores_from_ids(known)
    count = min(top_k, len(ids))
    order = np.argsort(-scores, kind="stable")[:count]
    return {ids[place]: round(float(scores[place]), 5) for place in order.tolist() if scores[place] > 0}
