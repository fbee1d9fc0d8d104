"""Where the parts of one collection lie, and how they are put together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Collection as Group
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from zoo.errors import Faults, InputError, ZooError
from zoo.evaluation.datasets.candidates import Expected, FirstStage, line_with, read_candidates
from zoo.evaluation.datasets.collection import NO_RERANKER, Collection, DataRequest, Judged, absent_passages
from zoo.evaluation.datasets.passages import Document, Passages, read_corpus

logger = logging.getLogger(__name__)


class Split(NamedTuple):
    """What a split asks: queries in the order of their file, their judgements, and the hashes of the files read."""

    queries: Mapping[str, str]
    judged: Judged
    inputs: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One language and split of a data set on the disk. Nothing has been read yet."""

    dataset: str
    language: str
    split: str
    corpus: Path
    document: type[Document]
    read: Callable[[], Split]
    candidates: Path | None
    eval_names: Group[str]
    dataset_names: Group[str]
    ignore_identical_ids: bool = False
    """The reference's rule for this format: whether a candidate whose id is the query's own is left out."""

    def load(self, request: DataRequest) -> Collection:
        """Read and check everything. Raises InputError with every fault of a file, ZooError if there are no candidates."""
        asked = self.read()
        judged = [query for query in asked.queries if query in asked.judged.table]
        if not judged:
            raise InputError(asked.judged.lines.path, None, "judges none of the queries")
        if len(judged) < len(asked.queries):
            logger.info(
                "%s: %d of %d queries have no judgements in the split '%s' and are left out",
                self.language, len(asked.queries) - len(judged), len(asked.queries), self.split,
            )  # fmt: skip
        path = self.candidates or self._make_candidates(asked, judged, request)
        stage = read_candidates(path, self._expected(path), request.top_k)
        self._check_queries(path, stage, asked)
        chosen = judged[: request.limit]
        passages, corpus_hash = self._read_corpus(path, stage, asked, chosen)
        ignored = self.ignore_identical_ids if request.ignore_identical_ids is None else request.ignore_identical_ids
        identical = sum(query in stage.results.get(query, ()) for query in chosen)
        candidates = {
            query: {p: score for p, score in stage.results[query].items() if not (ignored and p == query)}
            for query in chosen
            if query in stage.results
        }
        return Collection(
            dataset=request.dataset or stage.eval_name or self.dataset,
            language=self.language,
            split=self.split,
            retriever=stage.retriever,
            first_stage=path,
            queries={query: asked.queries[query] for query in chosen},
            qrels={query: asked.judged.table[query] for query in chosen},
            candidates=candidates,
            passages=passages,
            inputs={**asked.inputs, "corpus": corpus_hash, "first stage": stage.sha256},
            missing=tuple(query for query in chosen if query not in candidates),
            identical=identical,
            identical_left_out=ignored,
            absent=absent_passages(asked.judged, passages, self.corpus),
        )

    def _expected(self, path: Path) -> Expected:
        in_reference_place = path.parent.name == NO_RERANKER
        return Expected(
            eval_names=self.eval_names,
            dataset_names=self.dataset_names,
            split=self.split,
            retriever=path.parent.parent.name if in_reference_place and path == self.candidates else None,
        )

    def _check_queries(self, path: Path, stage: FirstStage, asked: Split) -> None:
        faults = Faults()
        for query in stage.results:
            if query not in asked.queries:
                line = line_with(path, query) if faults.listing else None
                problem = f"has results for the query '{query}', which the queries' file does not have"
                faults.add(InputError(path, line, problem))
        faults.refuse()
        unjudged = [query for query in stage.results if query not in asked.judged.table]
        if unjudged:
            logger.warning(
                "%s has results for %d queries without judgements (the first is '%s'); they are left out",
                path, len(unjudged), unjudged[0],
            )  # fmt: skip

    def _read_corpus(self, path: Path, stage: FirstStage, asked: Split, chosen: list[str]) -> tuple[Passages, str]:
        named = {passage for scores in stage.results.values() for passage in scores}
        logger.info("reading %s: %d passages are wanted", self.corpus, len(named))
        passages, digest = read_corpus(self.corpus, self.document, named | set(asked.judged.places))
        faults = Faults()
        for query in chosen:
            for passage in stage.results.get(query, ()):
                if passage not in passages:
                    line = line_with(path, passage) if faults.listing else None
                    problem = (
                        f"names the passage '{passage}' for the query '{query}', which {self.corpus} does not have. "
                        "Use the corpus that the first stage searched"
                    )
                    faults.add(InputError(path, line, problem))
        faults.refuse()
        return passages, digest

    def _make_candidates(self, asked: Split, judged: list[str], request: DataRequest) -> Path:
        from zoo.evaluation.datasets import bm25

        return bm25.make(
            self.corpus,
            self.document,
            {query: asked.queries[query] for query in judged},
            bm25.Naming(eval_name=self.dataset, dataset_name=self.language, split=self.split),
            top_k=request.top_k,
            work=request.work,
        )


def usual_places(data: Path) -> list[Path]:
    """Where the reference keeps first-stage files of the data in ``data``: one level above, or in the folder itself."""
    return [data.parent, data] if data.name == "data" else [data, data.parent]


def first_stage_file(places: Iterable[Path], names: Iterable[str], asked: Path | None) -> Path | None:
    """The first-stage file: the one asked for, or the only one of ``names`` in the usual places. Raises ZooError.

    Each place is looked at for the file itself (the harness's layout) and then for ``RETRIEVER/NoReranker/file`` up to two folders
    down (FlagEmbedding's layout). ``asked`` may be a file or a folder with files of those names.
    """
    names = list(names)
    if asked is not None and not asked.is_dir():
        return asked
    for place in [asked] if asked is not None else places:
        direct = [place / name for name in names if (place / name).is_file()]
        stored = [place / NO_RERANKER / name for name in names]
        deeper = [
            path for name in names for depth in ("*", "*/*") for path in place.glob(f"{depth}/{NO_RERANKER}/{name}")
        ]
        found = direct or [path for path in (*stored, *sorted(deeper)) if path.is_file()]
        if len(found) > 1:
            files = ", ".join(map(str, found))
            raise ZooError(f"there is more than one first-stage file: {files}. Choose one (`candidates`)")
        if found:
            return found[0]
    if asked is not None:
        raise ZooError(
            f"the folder {asked} (`candidates`) has no {' and no '.join(names)}, nor one in RETRIEVER/{NO_RERANKER}/"
        )
    return None
