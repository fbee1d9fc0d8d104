"""What goes wrong for a user: each message says what, which, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any


class ZooError(Exception):
    """A fault the user can act on; the command line shows it without a traceback and exits with 1.

    It can be sent to another process, whatever arguments a subclass is made from.
    """

    def __reduce__(self) -> tuple[Callable[..., ZooError], tuple[Any, ...]]:
        return _rebuilt, (type(self), self.args, dict(self.__dict__))


class NotInstalledError(ZooError):
    """Something optional is missing; the message names the package or extra to install."""


class PluginError(ZooError):
    """A plugin broke its contract; the message names the plugin and the hook."""


class DeviceError(PluginError):
    """A device failed on a batch. The pairs may well be right; the device may not be fit for others either."""


class ScoreError(ZooError):
    """The model gave something that is not a score (NaN, infinity, a wrong shape)."""


class ClosedError(ZooError):
    """Something was asked of an object that is closed."""


class DeadlineError(ZooError):
    """Pairs were not scored in the time they were given; they are not computed any more."""


class TooLongError(ZooError):
    """A pair is longer than the model reads, and it was asked for that none be truncated. ``index`` is its place among the pairs."""

    def __init__(self, index: int, tokens: int) -> None:
        super().__init__(
            f"pair {index} is longer than the {tokens} tokens that the model reads, and truncation was not allowed"
        )
        self.index, self.tokens = index, tokens


def broke_off(error: BaseException) -> bool:
    """Whether ``error`` is a fault: an Exception, or what libraries in Rust raise when they break off, which is not one."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def interruption(error: BaseException) -> KeyboardInterrupt | None:
    """The interrupt (Ctrl-C, or a signal that ends the command) that ``error`` was raised from, if there is one.

    A library in C that is interrupted while it initialises raises ImportError, and what is made of that would blame the library.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, KeyboardInterrupt):
            return cause
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return None


LONGEST_PROBLEM = 1500
"""Characters of a message about a file."""


class InputError(ZooError):
    """Data that cannot be read as what it should be, located as exactly as a text editor needs."""

    def __init__(self, source: str | Path, line: int | None, problem: str) -> None:
        place = f"{source}" if line is None else f"{source}, line {line}"
        if len(problem) > LONGEST_PROBLEM:  # it repeats what the file says
            problem = f"{problem[:LONGEST_PROBLEM]} … ({len(problem):,} characters)"
        super().__init__(f"{place}: {problem}")
        self.source, self.line, self.problem = str(source), line, problem


class InputErrors(InputError):  # noqa: N818  # the plural of one
    """Several faults of one file, each with its place. ``line`` is that of the first; ``more`` counts those that are not listed."""

    def __init__(self, faults: Sequence[InputError], more: int = 0) -> None:
        first = faults[0]
        super().__init__(first.source, first.line, first.problem)
        rest = [f"and {more:,} more faults in {first.source}"] if more else []
        self.args = ("\n".join([*map(str, faults), *rest]),)
        self.faults, self.more = list(faults), more


class Faults:
    """The faults of one file as they are found."""

    LISTED, MOST = 20, 1000
    """Those that are listed, and those after which the file is not read any further."""

    def __init__(self) -> None:
        self._listed: list[InputError] = []
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0

    @property
    def listing(self) -> bool:
        """Whether one more would be listed."""
        return self._count < self.LISTED

    def add(self, fault: InputError) -> None:
        """Take one. Raises all of them if there are too many to go on."""
        self._count += 1
        if len(self._listed) < self.LISTED:
            self._listed.append(fault)
        if self._count == self.MOST:
            self.refuse()

    def refuse(self) -> None:
        """Raises InputError if there is a fault, InputErrors if there are several."""
        if self._count == 1:
            raise self._listed[0]
        if self._count:
            raise InputErrors(self._listed, self._count - len(self._listed))


class UnknownNameError(ZooError):
    """A name nobody offers, with the closest one that somebody does."""

    def __init__(self, kind: str, name: str, known: Iterable[str], remark: str = "") -> None:
        names = sorted(known)
        close = suggestion(name, names)
        message = f"there is no {kind} '{name:.200}'."
        if close:
            message += f" Did you mean '{close}'?"
        message += f" Known: {', '.join(names) or 'none'}."
        super().__init__(f"{message} {remark}".rstrip())


def _rebuilt(kind: type[ZooError], args: tuple[Any, ...], attributes: dict[str, Any]) -> ZooError:
    """An error as it was, without calling a constructor that takes other arguments than the message."""
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error


LONGEST_NAME = 500
"""Characters that are compared: the time grows with their square."""


def suggestion(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to ``name``, or None where nothing is close."""
    name = name[:LONGEST_NAME]
    by_folded = {candidate.casefold(): candidate for candidate in known}
    folded = name.casefold()
    close = difflib.get_close_matches(folded, by_folded, n=1, cutoff=0.6)
    if close:
        return by_folded[close[0]]
    # A long name is often typed by its beginning or without its owner: 'bge-reranker', 'BAAI/bge-reranker-v2-m3'.
    tail = folded.rsplit("/", 1)[-1]
    return next((by_folded[c] for c in by_folded if tail and (c.startswith(tail) or tail.startswith(c))), None)
