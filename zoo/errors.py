"""What goes wrong for a user: each message says what, which, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
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


class ScoreError(ZooError):
    """The model gave something that is not a score (NaN, infinity, a wrong shape)."""


class ClosedError(ZooError):
    """Something was asked of an object that is closed."""


class DeadlineError(ZooError):
    """Pairs were not scored in the time they were given; they are not computed any more."""


class InputError(ZooError):
    """Data that cannot be read as what it should be, located as exactly as a text editor needs."""

    def __init__(self, source: str | Path, line: int | None, problem: str) -> None:
        place = f"{source}" if line is None else f"{source}, line {line}"
        super().__init__(f"{place}: {problem}")
        self.source, self.line, self.problem = str(source), line, problem


class UnknownNameError(ZooError):
    """A name nobody offers, with the closest one that somebody does."""

    def __init__(self, kind: str, name: str, known: Iterable[str], remark: str = "") -> None:
        names = sorted(known)
        close = suggestion(name, names)
        message = f"there is no {kind} '{name}'."
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


def suggestion(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to ``name``, or None where nothing is close."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    folded = name.casefold()
    close = difflib.get_close_matches(folded, by_folded, n=1, cutoff=0.6)
    if close:
        return by_folded[close[0]]
    # A long name is often typed by its beginning or without its owner: 'bge-reranker', 'BAAI/bge-reranker-v2-m3'.
    tail = folded.rsplit("/", 1)[-1]
    return next((by_folded[c] for c in by_folded if tail and (c.startswith(tail) or tail.startswith(c))), None)
