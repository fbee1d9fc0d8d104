"""What every data set format is read into, and the checks that hold for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zoo.errors import InputError
from zoo.evaluation.datasets.lines import Line, Lines
from zoo.evaluation.datasets.passages import Passages
from zoo.types import Qrels, Run

NO_RERANKER = "NoReranker"
"""What the reference calls the first stage's own results."""


@dataclass(frozen=True, kw_only=True)
class DataRequest:
    """What a user asked to evaluate on; None means what the data itself says."""

    data_path: Path | None = None
    dataset: str | None = None
    """Name of the data set without its language: ``mldr``."""
    languages: tuple[str, ...] = ()
    split: str = "test"
    candidates: Path | None = None
    top_k: int = 100
    limit: int | None = None
    offline: bool = False
    work: Path = Path("zoo-results")
    """Where candidates are written that had to be made."""


@dataclass(frozen=True, kw_only=True)
class Collection:
    """One language and split of a data set, ready to be reranked.

    ``candidates`` holds the passages to score for each query, best first, ties in the order of the first stage's file.
    A judged query that the first stage lacks is in ``missing`` and in ``qrels``, and has no candidates.
    """

    dataset: str
    language: str
    split: str
    retriever: str
    first_stage: Path
    queries: Mapping[str, str]
    qrels: Qrels
    candidates: Run
    passages: Passages
    inputs: Mapping[str, str]
    """sha256 of each input file, by its name."""
    missing: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """``en-test``: the name of the reference's result files."""
        return self.language if self.language == self.split else f"{self.language}-{self.split}"

    @property
    def pairs(self) -> int:
        """How many [query, passage] pairs there are to score."""
        return sum(map(len, self.candidates.values()))


@dataclass
class Judged:
    """Judgements as they are read: every fault is told with its line."""

    lines: Lines
    queries: Mapping[str, str] | None
    """Known queries, or None where the file itself brings them."""
    table: dict[str, dict[str, int]] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    """passage id -> first line that names it."""

    def add(self, line: Line, query: str, passage: str, relevance: int) -> None:
        """Take one judgement. Raises InputError for an unknown query and for a second judgement of the same pair."""
        if self.queries is not None and query not in self.queries:
            raise InputError(
                self.lines.path,
                line.number,
                f"judges the query '{query}', which the queries' file does not have. Add the query or remove the line",
            )
        judgements = self.table.setdefault(query, {})
        if passage in judgements:
            raise InputError(
                self.lines.path,
                line.number,
                f"judges the passage '{passage}' for the query '{query}' a second time. Remove one of the two lines",
            )
        judgements[passage] = relevance
        self.places.setdefault(passage, line.number)


@dataclass
class Queries:
    """Queries as they are read."""

    lines: Lines
    table: dict[str, str] = field(default_factory=dict)

    def add(self, line: Line, query: str, text: str) -> None:
        """Take one query. Raises InputError for a second one of the same id and for one without text."""
        if query in self.table:
            raise InputError(
                self.lines.path,
                line.number,
                f"the query id '{query}' is there twice. Every query needs an id of its own",
            )
        if not text.strip():
            raise InputError(
                self.lines.path, line.number, f"the query '{query}' has no text. Remove the line or fill it in"
            )
        self.table[query] = text


def check_known(judged: Iterable[Judged], known: Iterable[str], corpus: Path) -> None:
    """Every judged passage is in the corpus. Raises InputError with the line that names one that is not."""
    have = set(known)
    for file in judged:
        for passage, number in file.places.items():
            if passage not in have:
                raise InputError(
                    file.lines.path,
                    number,
                    f"judges the passage '{passage}', which {corpus} does not have. Complete the corpus or remove the line",
                )
