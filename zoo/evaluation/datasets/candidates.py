"""First-stage results: FlagEmbedding's search-results JSON, or a TREC run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from zoo.errors import InputError
from zoo.evaluation.datasets.collection import NO_RERANKER
from zoo.evaluation.datasets.lines import Lines, columns

FORM = (
    '{"eval_name": "...", "model_name": "...", "reranker_name": "NoReranker", "split": "...", "dataset_name": "...", '
    '"search_results": {query id: {passage id: score}}}'
)


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
    sha256: str


def read_candidates(path: Path, expected: Expected, top_k: int) -> FirstStage:
    """Read a first-stage file of either form. Raises InputError."""
    if not path.is_file():
        raise InputError(path, None, "is a folder, not a file" if path.is_dir() else "no such file")
    try:
        with path.open("rb") as handle:
            start = handle.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError as error:
        raise InputError(path, None, f"cannot be read: {error.strerror}") from error
    if not start:
        raise InputError(path, None, f"is empty. It should hold {FORM}, or a TREC run")
    return _read_json(path, expected, top_k) if start[:1] in b"{[" else _read_run(path, top_k)


def best(scores: Mapping[str, float], top_k: int) -> dict[str, float]:
    """The ``top_k`` highest, highest first; equal ones stay in the order they came in (the reference's rule)."""
    return dict(sorted(scores.items(), key=lambda item: item[1], reverse=True)[:top_k])


def _read_json(path: Path, expected: Expected, top_k: int) -> FirstStage:
    try:
        raw = path.read_bytes()
        content = json.loads(
            raw.decode("utf-8-sig"), object_pairs_hook=_Hook(path, top_k), parse_constant=_no_number(path)
        )
    except OSError as error:
        raise InputError(path, None, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            path, raw.count(b"\n", 0, error.start) + 1, "is not UTF-8. Convert the file, for example with iconv"
        ) from error
    except json.JSONDecodeError as error:
        raise InputError(
            path, error.lineno, f"is not JSON: {error.msg} (column {error.colno}). It should hold {FORM}"
        ) from error
    except RecursionError as error:
        raise InputError(path, None, f"is nested too deeply. It should hold {FORM}") from error
    _check_metadata(path, content, expected)
    results = content["search_results"]
    if not isinstance(results, dict) or not results:
        raise InputError(path, None, f"'search_results' is no object with at least one query. It should hold {FORM}")
    for query, scores in results.items():
        if not isinstance(scores, dict):
            raise InputError(
                path,
                line_with(path, query),
                f"the results of the query '{query}' are no object of passage ids and scores",
            )
        for passage, score in scores.items():
            if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
                raise InputError(
                    path,
                    line_with(path, passage),
                    f"the score of passage '{passage}' for query '{query}' is {score!r}, not a finite number",
                )
    return FirstStage(
        results={query: best(scores, top_k) for query, scores in results.items()},
        retriever=content["model_name"],
        eval_name=content["eval_name"],
        sha256=hashlib.sha256(raw).hexdigest(),
    )


class _Hook:
    """Makes JSON objects, refuses a key that is there twice, and keeps only the best of a query's passages."""

    def __init__(self, path: Path, top_k: int) -> None:
        self.path, self.top_k = path, top_k

    def __call__(self, items: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(items)
        if len(made) < len(items):
            seen: set[str] = set()
            twice = next(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise InputError(
                self.path,
                line_with(self.path, twice),
                f"the key '{twice}' is there twice in one object. Remove one of the two",
            )
        if len(made) > self.top_k and all(type(value) is float and math.isfinite(value) for value in made.values()):
            return best(made, self.top_k)
        return made


def line_with(path: Path, text: str) -> int | None:
    """The first line of a JSON or TREC file that has the id ``text``."""
    return _line_of(path, json.dumps(text, ensure_ascii=False).encode()) or _line_of(path, text.encode())


def _line_of(path: Path, needle: bytes) -> int | None:
    with path.open("rb") as handle:
        return next((number for number, raw in enumerate(handle, start=1) if needle in raw), None)


def _no_number(path: Path) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise InputError(
            path,
            _line_of(path, constant.encode()),
            f"has {constant} where a finite number belongs. Make the first stage's results again",
        )

    return refuse


def _check_metadata(path: Path, content: object, expected: Expected) -> None:
    if not isinstance(content, dict):
        raise InputError(path, None, f"holds no JSON object. It should hold {FORM}")
    keys = ("eval_name", "model_name", "reranker_name", "split", "dataset_name", "search_results")
    lacking = [key for key in keys if key not in content]
    if lacking:
        raise InputError(path, None, f"lacks {', '.join(repr(key) for key in lacking)}. It should hold {FORM}")
    checks: list[tuple[str, Collection[str], str]] = [
        ("eval_name", expected.eval_names, "name the data set with --dataset NAME/LANG if it is right"),
        (
            "reranker_name",
            [NO_RERANKER],
            "candidates come from a first stage; results already reranked are not reranked again",
        ),
        ("split", [expected.split], f"choose it with --split {content['split']} if it is right"),
        ("dataset_name", expected.dataset_names, "name it with --dataset NAME/LANG or --languages if it is right"),
    ]
    if expected.retriever is not None:
        checks.append(("model_name", [expected.retriever], "the folder it lies in names the retriever"))
    for key, accepted, remedy in checks:
        if content[key] not in accepted:
            wanted = " or ".join(repr(name) for name in sorted(accepted))
            raise InputError(path, None, f"its '{key}' is {content[key]!r} where {wanted} is expected: {remedy}")
    if not isinstance(content["model_name"], str) or not content["model_name"]:
        raise InputError(path, None, f"its 'model_name' is {content['model_name']!r}, not the name of a retriever")


def _read_run(path: Path, top_k: int) -> FirstStage:
    """A TREC run: query, Q0, passage, rank, score, tag. The rank is not read: the score decides, as in trec_eval."""
    lines = Lines(path)
    results: dict[str, dict[str, float]] = {}
    retriever = ""
    for line, (query, _, passage, _, score, tag) in columns(lines, "query Q0 passage rank score tag", None):
        retriever = tag
        scores = results.setdefault(query, {})
        if passage in scores:
            raise InputError(path, line.number, f"ranks the passage '{passage}' for the query '{query}' a second time")
        try:
            scores[passage] = float(score)
        except ValueError as error:
            raise InputError(path, line.number, f"the score {score!r} is no number") from error
        if not math.isfinite(scores[passage]):
            raise InputError(path, line.number, f"the score {score!r} is not finite")
    return FirstStage(
        results={query: best(scores, top_k) for query, scores in results.items()},
        retriever=retriever,
        eval_name=None,
        sha256=lines.sha256,
    )
