"""What every data set format is read into, and the checks that hold for all of them."""

from __future__ import annotations

from collections.abc import Collection as Collection_
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zoo.errors import InputError
from zoo.evaluation.datasets.lines import Line, Lines
from zoo.evaluation.datasets.names import unfit_grade, unfit_id
from zoo.evaluation.datasets.passages import Passages
from zoo.numerals import whole_number
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
    ignore_identical_ids: bool | None = None
    """Leave out a candidate whose id is the query's own; None is the reference's rule for the data set."""
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
    """sha256 of each input, by its part: the name of a file may change, and its scores are the same."""
    missing: tuple[str, ...] = ()
    identical: int = 0
    """Candidates whose id is the query's own: the query itself, where queries are passages too."""
    identical_left_out: bool = False
    absent: tuple[str, ...] = ()
    """Judged passages that the corpus does not have; recall counts them as not found."""

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
    """Judgements as they are read: every fault goes to ``lines.faults`` with its line."""

    lines: Lines
    queries: Mapping[str, str] | None
    """Known queries, or None where the file itself brings them."""
    table: dict[str, dict[str, int]] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    """passage id -> first line that names it."""

    def add(self, line: Line, query: str, passage: str, relevance: int | str) -> None:
        """Take one judgement: of a known query, of a pair that has none yet, with ids and a grade that metrics can hold."""
        if problem := self._problem(query, passage, relevance):
            self.lines.faults.add(self.lines.fault(line, problem))
        else:
            self.table.setdefault(query, {})[passage] = int(relevance)
            self.places.setdefault(passage, line.number)

    def _problem(self, query: str, passage: str, relevance: int | str) -> str:
        grade = whole_number(relevance) if isinstance(relevance, str) else relevance
        if grade is None:
            return f"the relevance {relevance[:40]!r} is not a whole number"  # type: ignore[index]  # a text
        if unfit := unfit_grade(grade):
            return f"the relevance {grade} {unfit}"
        if unfit := unfit_id(query):
            return f"the query id {query!r} {unfit}"
        if unfit := unfit_id(passage):
            return f"the passage id {passage!r} {unfit}"
        if self.queries is not None and query not in self.queries:
            return (
                f"judges the query '{query}', which the queries' file does not have. Add the query or remove the line"
            )
        if passage in self.table.get(query, ()):
            return f"judges the passage '{passage}' for the query '{query}' a second time. Remove one of the two lines"
        return ""


@dataclass
class Queries:
    """Queries as they are read: every fault goes to ``lines.faults`` with its line."""

    lines: Lines
    table: dict[str, str] = field(default_factory=dict)

    def add(self, line: Line, query: str, text: str) -> None:
        """Take one query: of an id that is not there yet and that files can hold, with a text."""
        if problem := self._problem(query, text):
            self.lines.faults.add(self.lines.fault(line, problem))
        else:
            self.table[query] = text

    def _problem(self, query: str, text: str) -> str:
        if unfit := unfit_id(query):
            return f"the query id {query!r} {unfit}"
        if query in self.table:
            return f"the query id '{query}' is there twice. Every query needs an id of its own"
        if not text.strip():
            return f"the query '{query}' has no text. Remove the line or fill it in"
        return ""


def absent_passages(judged: Judged, known: Collection_[str], corpus: Path) -> tuple[str, ...]:
    """Judged passages that the corpus does not have, in the order of their lines. Raises InputError if it has none of them.

    Published data sets have such judgements (ArguAna); trec_eval counts them as relevant passages that are not found.
    """
    absent = tuple(passage for passage in judged.places if passage not in known)
    if absent and len(absent) == len(judged.places):
        raise InputError(
            judged.lines.path,
            judged.places[absent[0]],
            f"judges the passage '{absent[0]}', which {corpus} does not have, and none of the other judged passages either. "
            "Use the corpus that these judgements are of",
        )
    return absent
