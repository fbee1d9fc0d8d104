"""What a dialect is, and how JSON is read the way clients really send it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec

from zoo.serve.job import Job, Scored
from zoo.serve.refusal import STATUS, Kind, Refusal

T = TypeVar("T")

Count = Annotated[int, msgspec.Meta(ge=0)] | None
"""How many are wanted; null and 0 mean all."""
Limit = Annotated[int, msgspec.Meta(ge=-1)] | None
"""At most so many tokens or chunks; null, 0 and -1 set no limit."""
Text = str | dict[str, Any]
"""A text, or an object with its ``text``."""
LongDocName: TypeAlias = Literal["truncate", "max", "mean"]


class Request(msgspec.Struct, kw_only=True):
    """What every body may have. Keys that a dialect does not know are ignored."""

    model: str | None = None
    """Which of the served models; empty or absent means the first."""
    long_doc: LongDocName | None = None
    """How passages longer than the model reads are scored: cut, or in overlapping chunks whose maximum or mean counts."""


@dataclass(frozen=True)
class ParsedRequest:
    """A request that has been read: what to score, and the body that answers it."""

    job: Job
    answer: Callable[[Scored], Any]


@dataclass(frozen=True)
class Dialect:
    """One form of asking and answering. ``read`` takes the decoded body and raises Refusal; ``refuse`` gives the body of an error."""

    name: str
    read: Callable[[Any], ParsedRequest]
    refuse: Callable[[Refusal], Any]
    request: Any
    response: Any
    error: Any
    """The types of the bodies, for the description of the interface."""
    statuses: Mapping[Kind, int] = field(default_factory=dict)
    """Where its status of an error is not the usual one."""
    timings: bool = False
    """Whether its answers carry TEI's headers of times."""

    def status(self, refusal: Refusal) -> int:
        """The status of an error."""
        return self.statuses.get(refusal.kind, STATUS[refusal.kind])


def decoded(body: bytes) -> Any:
    """The JSON value of a body. Raises Refusal."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal("malformed", f"the body is not valid JSON: {error}") from error


def converted(content: Any, kind: type[T]) -> T:
    """``content`` as a request of ``kind``. Raises Refusal saying which field is wrong."""
    if not isinstance(content, dict):
        raise Refusal("invalid", f"the body must be a JSON object, not {_name_of(content)}")
    try:
        return msgspec.convert(content, kind, strict=False)
    except msgspec.ValidationError as error:
        place = str(error).partition(" - at `$.")[2]
        raise Refusal("invalid", str(error), param=place.rstrip("`") or None) from error
    except RecursionError as error:
        raise Refusal("invalid", "the body is nested too deeply") from error


def text_of(value: Text, where: str) -> str:
    """The text of a query or a document. Raises Refusal if an object has none."""
    if isinstance(value, str):
        return value
    text = value.get("text")
    if not isinstance(text, str):
        raise Refusal("invalid", f"{where} is an object without a string 'text'", param=where)
    return text


def limit(count: int | None) -> int | None:
    """A limit of tokens or chunks; None if there is none."""
    return None if count in (None, 0, -1) else count


def cuts_left(side: str | None, name: str) -> bool:
    """Whether texts are to be cut at their beginning, which no model here does. Raises Refusal for a side that does not exist."""
    if side is None or side.casefold() in ("right", "left"):
        return side is not None and side.casefold() == "left"
    raise Refusal("invalid", f"{name} must be 'Left' or 'Right', not '{side[:40]}'", param=name)


def _name_of(value: Any) -> str:
    if value is None:
        return "null"
    return {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}[type(value)]
