"""The edges of the command line: standard streams, signals, and how each kind of fault ends a command."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TextIO

import click

from zoo.cli.settings_names import as_flags
from zoo.errors import ZooError, interruption
from zoo.files import in_words, reason
from zoo.streams import is_open

SIGNALS = ("SIGTERM", "SIGHUP")
"""Requests to end, which do what Ctrl-C does."""
NO_THREAD = "can't start new thread"
"""What Python's RuntimeError says if the system gives no more threads."""


class Terminated(KeyboardInterrupt):
    """A signal asked this process to end. Whatever is done on Ctrl-C is done; the exit code is 128 and the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.number = number


class StdoutError(ZooError):
    """The standard output takes no more."""


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """Inside the block a closed descriptor 0, 1 or 2 is taken, so that no file opened later is mistaken for it.

    Text on stdout is UTF-8 whatever the locale. A terminal keeps its own encoding, and what it cannot show is escaped. What stdout has
    not taken by the end is a fault, not a line on stderr after it. What stderr has not taken is lost, and no fault: results do not depend
    on whether somebody reads the messages.
    """
    for descriptor in (0, 1, 2):
        if not is_open(descriptor):
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if hasattr(sys.stdout, "reconfigure"):
        encoding = sys.stdout.encoding if sys.stdout.isatty() else "utf-8"
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")
    try:
        yield
    finally:
        _flush()


def _flush() -> None:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError) as error:
        _give_up(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            tell(f"Error: cannot write to the standard output: {error}")
        sys.exit(1)
    finally:
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
        except (OSError, ValueError):
            _give_up(sys.stderr)


def _give_up(stream: TextIO) -> None:
    """What is still buffered goes nowhere: Python would try once more at its end, and report that by its exit code."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Inside the block the signals of ``SIGNALS`` raise Terminated, once, in the main thread. Handlers that others set are left alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        for each in ours:
            signal.signal(each, signal.SIG_IGN)  # the first has begun the end; a second must not break it off
        raise Terminated(number)

    known = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    ours = [number for number in known if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def run_safely(invoke: Callable[[], Any], *, debug: Callable[[], bool]) -> Any:
    """Run a command. A user's fault ends with ``Error: ...`` and exit code 1; tracebacks are for ``debug``."""
    try:
        return invoke()
    except KeyboardInterrupt as interrupt:
        _end(interrupt)
    except (click.exceptions.Exit, click.Abort, click.ClickException, BrokenPipeError, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if (cause := interruption(error)) is not None:
            _end(cause)
        if debug():
            raise
        fail(_in_words(error))


def _end(interrupt: KeyboardInterrupt) -> NoReturn:
    """Exit as a program does that a signal, or Ctrl-C, has ended."""
    tell("Terminated." if isinstance(interrupt, Terminated) else "Interrupted.")
    sys.exit(128 + interrupt.number if isinstance(interrupt, Terminated) else 130)


def _in_words(error: BaseException) -> str:
    if isinstance(error, ZooError):
        return str(error)
    if isinstance(error, OSError):
        return in_words(error)
    if isinstance(error, MemoryError):
        return "there is not enough memory for this. Lower `batch_size` or `max_length`, or raise the limit (ulimit -v)"
    if isinstance(error, RuntimeError) and NO_THREAD in str(error):
        return "the system gives no more threads. Lower `threads`, or raise the limit (ulimit -u)"
    if not isinstance(error, Exception):  # what a library in Rust raises when it breaks off
        return f"a library broke off: {type(error).__name__}: {error}. A damaged file is the usual cause (--debug shows where)"
    return f"internal fault, please report it: {type(error).__name__}: {error} (--debug shows where)"


def fail(message: str) -> None:
    """Write what is wrong to stderr and exit with 1."""
    tell_error(message)
    sys.exit(1)


def tell_error(message: str) -> None:
    """What is wrong, on stderr, with settings spelled as options."""
    tell(f"Error: {as_flags(message)}")


def tell(message: str) -> None:
    """A line on stderr. If stderr has gone away, the work goes on without it."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:  # click 8.1.0 would write to it all the same
            click.echo(message, err=True)


def out(text: str) -> None:
    """A line, or several, on stdout, styles left out if it is not a terminal. Raises StdoutError, BrokenPipeError."""
    with _stdout_faults():
        click.echo(text)


class Stdout:
    """stdout, to write many results to. Raises StdoutError if it is closed or full, BrokenPipeError if its reader has gone."""

    def __init__(self) -> None:
        with _stdout_faults():  # before minutes of work
            pass

    def write(self, text: str) -> int:
        with _stdout_faults():
            return sys.stdout.write(text)

    def flush(self) -> None:
        with _stdout_faults():
            sys.stdout.flush()


@contextlib.contextmanager
def _stdout_faults() -> Iterator[None]:
    if sys.stdout is None:
        raise StdoutError("the standard output is closed: there is nowhere to write to")
    try:
        yield
    except BrokenPipeError:
        _give_up(sys.stdout)
        raise
    except (OSError, ValueError) as error:
        _give_up(sys.stdout)
        said = reason(error) if isinstance(error, OSError) else str(error)
        raise StdoutError(f"cannot write to the standard output: {said}") from error


def speaks_utf8() -> bool:
    """Whether stdout takes every character."""
    return (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")


def is_terminal(stream: Any) -> bool:
    """Whether a standard stream is a terminal; a closed one is None."""
    try:
        return stream is not None and bool(stream.isatty())
    except ValueError:  # closed meanwhile
        return False
