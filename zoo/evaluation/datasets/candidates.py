"""First-stage results: FlagEmbedding's search-results JSON, or a TREC run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from zoo.errors import Faults, InputError
from zoo.evaluation.datasets.collection import NO_RERANKER
from zoo.evaluation.datasets.lines import Lines, columns
from zoo.evaluation.datasets.names import unfit_id, unfit_name, unfit_score
from zoo.files import reason
from zoo.numerals import decimal_number
from zoo.streams import as_file

FORM = (
    '{"eval_name": "...", "model_name": "...", "reranker_name": "NoReranker", "split": "...", "dataset_name": "...", '
    '"search_results": {query id: {passage id: score}}}'
)


LARGEST = 2 << 30
"""Bytes of a JSON file, which is held in memory whole; a TREC run may be longer."""
KEYS = ("eval_name", "model_name", "reranker_name", "split", "dataset_name", "search_results")


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a first-stage file must say of itself; ``eval_names`` and ``dataset_names`` list what is accepted."""

    eval_names: Collection[str]
    dataset_names: Collection[str]
    split: str
    retriever: str | None = None
    """The retriever that the file's own folder names, where it does."""


@dataclass(frozen=True, kw_only=True)
class FirstStage:
    """``results`` are the ``top_k`` best passages of each query, best first."""

    results: Mapping[str, Mapping[str, float]]
    retriever: str
    eval_name: str | None

    @property
    def sha256(self) -> str:
        """Of the results alone: what a file says of itself decides no score."""
        return hashlib.sha256(msgspec.json.encode(self.results)).hexdigest()


def read_candidates(path: Path, expected: Expected, top_k: int) -> FirstStage:
    """Read a first-stage file of either form; a stream is kept aside first. Raises InputError with every fault."""
    with as_file(path, longest_line=LARGEST) as file:
        try:
            with file.open("rb") as handle:
                start = handle.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
        except OSError as error:
            raise InputError(path, None, f"cannot be read: {reason(error)}") from error
        if not start:
            raise InputError(path, None, f"is empty. It should hold {FORM}, or a TREC run")
        is_json = start[:1] in b"{["
        stage = _Json(path, file, top_k).read(expected) if is_json else _read_run(path, file, top_k)
    if problem := unfit_name(stage.retriever):
        raise InputError(
            path, None, f"the retriever's name {stage.retriever[:300]!r} {problem}, and files are called by it"
        )
    return stage


def best(scores: Mapping[str, float], top_k: int) -> dict[str, float]:
    """The ``top_k`` highest, highest first; equal ones stay in the order they came in (the reference's rule)."""
    return dict(sorted(scores.items(), key=lambda item: item[1], reverse=True)[:top_k])


class _Json:
    """One file of search results. ``path`` is what messages call it, ``file`` where its content lies."""

    def __init__(self, path: Path, file: Path, top_k: int) -> None:
        self.path, self.file, self.top_k = path, file, top_k
        self.faults = Faults()

    def read(self, expected: Expected) -> FirstStage:
        content = self._content()
        if not isinstance(content, dict):
            raise self._fault(f"holds no JSON object. It should hold {FORM}")
        lacking = [key for key in KEYS if key not in content]
        if lacking:
            raise self._fault(f"lacks {', '.join(repr(key) for key in lacking)}. It should hold {FORM}")
        self._check_metadata(content, expected)
        results = content["search_results"]
        if not isinstance(results, dict) or not results:
            raise self._fault(f"'search_results' is not an object with at least one query. It should hold {FORM}")
        for query, scores in results.items():
            self._check_query(query, scores)
        self.faults.refuse()
        return FirstStage(
            results={query: best(scores, self.top_k) for query, scores in results.items()},
            retriever=content["model_name"],
            eval_name=content["eval_name"],
        )

    def _content(self) -> object:
        raw = b""
        try:
            if self.file.stat().st_size > LARGEST:
                raise self._fault(
                    f"is larger than {LARGEST >> 30} GB. Write it as a TREC run, which is read line by line"
                )
            raw = self.file.read_bytes()
            return json.loads(
                raw.decode("utf-8-sig"),
                object_pairs_hook=self._object,
                parse_constant=self._refuse_constant,
                parse_int=float,  # a number of thousands of digits becomes infinity at once; int() would take seconds
            )
        except OSError as error:
            raise self._fault(f"cannot be read: {reason(error)}") from error
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            raise InputError(self.path, line, "is not UTF-8. Convert the file, for example with iconv") from error
        except json.JSONDecodeError as error:
            problem = f"is not JSON: {error.msg} (column {error.colno}). It should hold {FORM}"
            raise InputError(self.path, error.lineno, problem) from error
        except RecursionError as error:
            raise self._fault(f"is nested too deeply. It should hold {FORM}") from error
        except MemoryError as error:
            raise self._fault("does not fit into the memory that this process may use") from error

    def _object(self, items: list[tuple[str, Any]]) -> dict[str, Any]:
        """A JSON object: a key that is there twice is refused, and only the best of a query's passages are kept."""
        made = dict(items)
        if len(made) < len(items):
            seen: set[str] = set()
            for key, _ in items:
                if key in seen:
                    self.faults.add(
                        self._fault(f"the key '{key}' is there twice in one object. Remove one of the two", key)
                    )
                seen.add(key)
        if len(made) > self.top_k and all(type(value) is float and not unfit_score(value) for value in made.values()):
            return best(made, self.top_k)
        return made

    def _refuse_constant(self, constant: str) -> NoReturn:
        line = _line_of(self.file, constant.encode())
        problem = f"has {constant} where a finite number belongs. Make the first stage's results again"
        raise InputError(self.path, line, problem)

    def _check_query(self, query: str, scores: object) -> None:
        if problem := unfit_id(query):
            self.faults.add(self._fault(f"the query id {query!r} {problem}", query))
        if not isinstance(scores, dict):
            problem = f"the results of the query '{query}' are not an object of passage ids and scores"
            self.faults.add(self._fault(problem, query))
            return
        for passage, score in scores.items():
            if problem := unfit_id(passage):
                self.faults.add(self._fault(f"the passage id {passage!r} {problem}", passage))
            if problem := unfit_score(score):
                shown = f"{score!r:.40}"
                problem = f"the score of passage '{passage}' for query '{query}' is {shown}, which {problem}"
                self.faults.add(self._fault(problem, passage))

    def _check_metadata(self, content: Mapping[str, Any], expected: Expected) -> None:
        checks: list[tuple[str, Collection[str], str]] = [
            ("eval_name", expected.eval_names, "name the data set NAME/LANG (`dataset`) if it is right"),
            (
                "reranker_name",
                [NO_RERANKER],
                "candidates come from a first stage; results already reranked are not reranked again",
            ),
            ("split", [expected.split], f"choose it (`split` {content['split']!s:.40}) if it is right"),
            ("dataset_name", expected.dataset_names, "name it (`dataset` or `languages`) if it is right"),
        ]
        if expected.retriever is not None:
            checks.append(("model_name", [expected.retriever], "the folder it lies in names the retriever"))
        for key, accepted, remedy in checks:
            if not isinstance(content[key], str) or content[key] not in accepted:
                wanted = " or ".join(repr(name) for name in sorted(accepted))
                problem = f"its '{key}' is {content[key]!r:.100}, and {wanted} is expected: {remedy}"
                self.faults.add(self._fault(problem))
        if not isinstance(content["model_name"], str) or not content["model_name"]:
            problem = f"its 'model_name' is {content['model_name']!r:.100}, not the name of a retriever"
            self.faults.add(self._fault(problem))
        self.faults.refuse()

    def _fault(self, problem: str, place: str | None = None) -> InputError:
        """The error that says it, with the first line that has the id ``place``, which takes reading the file again."""
        line = line_with(self.file, place) if place is not None and self.faults.listing else None
        return InputError(self.path, line, problem)


def line_with(path: Path, text: str) -> int | None:
    """The first line of a JSON or TREC file that has the id ``text``; None if the file cannot be read again."""
    for needle in (json.dumps(text, ensure_ascii=False), json.dumps(text), text):
        if needle and (found := _line_of(path, needle.encode(errors="replace"))):
            return found
    return None


def _line_of(path: Path, needle: bytes) -> int | None:
    try:
        if not path.is_file():
            return None
        with path.open("rb") as handle:
            return next((number for number, raw in enumerate(handle, start=1) if needle in raw), None)
    except OSError:
        return None


def _read_run(path: Path, file: Path, top_k: int) -> FirstStage:
    """A TREC run: query, Q0, passage, rank, score, tag. The rank is not read: the score decides, as in trec_eval."""
    lines = Lines(path, file)
    results: dict[str, dict[str, float]] = {}
    retriever = ""
    for line, (query, _, passage, _, score, tag) in columns(lines, "query Q0 passage rank score tag", None):
        retriever = tag
        scores = results.setdefault(query, {})
        number = decimal_number(score)
        if passage in scores:
            problem = f"ranks the passage '{passage}' for the query '{query}' a second time"
        elif unfit := unfit_id(query) or unfit_id(passage):
            problem = f"the id {query if unfit_id(query) else passage!r} {unfit}"
        elif number is None:
            problem = f"the score {score[:40]!r} is not a finite number"
        elif unfit := unfit_score(number):
            problem = f"the score {score[:40]!r} {unfit}"
        else:
            scores[passage] = number
            continue
        lines.faults.add(lines.fault(line, problem))
    return FirstStage(
        results={query: best(scores, top_k) for query, scores in results.items()}, retriever=retriever, eval_name=None
    )
