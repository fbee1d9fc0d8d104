"""What goes wrong for a user: each message says what, which, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class ZooError(Exception):
    """A fault the user can act on; the command line shows it without a traceback and exits with 1."""


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
