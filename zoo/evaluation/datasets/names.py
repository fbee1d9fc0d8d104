"""What ids, grades, scores and names must be, so that metrics, TREC's files and the file system can hold them."""

from __future__ import annotations

import math
import re

LOWEST_GRADE, HIGHEST_GRADE = -10_000, 10_000
"""trec_eval counts passages by grade in a table as long as the highest; grades below 0 are not relevant, as it has them."""
LARGEST_SCORE = 3.4028234663852886e38
"""trec_eval compares scores as float32: this is the largest."""
LONGEST_NAME = 200
"""Bytes of a name that becomes a part of a file's name, of which the system allows 255."""

UNFIT = re.compile(r"[\s\x00-\x1f\x7f\ud800-\udfff]")
"""White space ends a column of TREC's files, NUL ends a text in C, and half of a surrogate pair cannot be written as UTF-8."""
UNFIT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def unfit_id(text: str) -> str:
    """Why ``text`` cannot be the id of a query or a passage, or an empty string."""
    if not text:
        return "is empty"
    if found := UNFIT.search(text):
        return f"contains {found[0]!r}; ids must have no white space and no control characters"
    return ""


def unfit_grade(grade: int) -> str:
    """Why ``grade`` cannot be a relevance, or an empty string."""
    if LOWEST_GRADE <= grade <= HIGHEST_GRADE:
        return ""
    return f"is not between {LOWEST_GRADE:,} and {HIGHEST_GRADE:,}"


def unfit_score(score: object) -> str:
    """Why ``score`` cannot be a score of the first stage, or an empty string."""
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        return "is not a finite number"
    return "" if abs(score) <= LARGEST_SCORE else "does not fit into float32"


def unfit_name(text: object) -> str:
    """Why ``text`` cannot be a part of a file's name, or an empty string. A slash may be: it is written as an underscore."""
    if not isinstance(text, str) or not text.strip(". "):
        return "is not a name"
    if found := UNFIT_IN_NAMES.search(text):
        return f"contains {found[0]!r}"
    if len(text.encode()) > LONGEST_NAME:
        return f"is longer than {LONGEST_NAME} bytes"
    return ""
