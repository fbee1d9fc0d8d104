"""What the contracts share: a deadline for every test, and messages that name the promise."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import pytest

from zoo.errors import ZooError

T = TypeVar("T")


class Contract:
    """Base of the contracts. Every test ends within ``deadline`` seconds, so that a plugin that hangs fails and stops nothing.

    The docstring of a test is the promise it holds a plugin to; a failure shows it, with the page that makes it.
    """

    deadline: float = 60.0
    """Seconds that one test may take."""
    page: ClassVar[str] = ""
    """The page and section of the documentation that makes the promises."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, test in list(vars(cls).items()):
            if name.startswith("test_") and inspect.isfunction(test):
                setattr(cls, name, _promised(test))


def told(expected: str, came: object) -> str:
    """The part of a message that says what was expected, and what came."""
    return f"\n  expected: {expected}\n  came:     {came}"


def refused(call: Callable[[], object], name: str, what: str) -> None:
    """Raises AssertionError unless ``call`` raises a ZooError whose message has ``name`` in it."""
    try:
        call()
    except ZooError as error:
        assert name in str(error), told(f"a message that names '{name}'", f"'{error}'")
        return
    except Exception as error:  # that is the fault
        raise AssertionError(
            told(f"{what} is a ZooError that names '{name}'", f"{type(error).__name__}: {error}")
        ) from error
    raise AssertionError(told(f"{what} is a ZooError that names '{name}'", "no error"))


def within(seconds: float, what: str, call: Callable[[], T]) -> T:
    """What ``call`` gives, from a thread of its own. Raises AssertionError if it takes more than ``seconds``."""
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:  # a skip, a failure, anything: it is raised where the result is awaited
            errors.append(error)

    thread = threading.Thread(target=work, name="zoo-contract", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        frame = sys._current_frames().get(thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)[-3:]) if frame else ""
        raise AssertionError(told(f"{what} ends within {seconds:g} s", f"it still runs, here:\n{stack}"))
    if errors:
        raise errors[0]
    return results[0]


def threads_left(before: set[threading.Thread], patience: float = 2.0) -> list[str]:
    """Names of the threads that were started since ``before`` and do not end within ``patience`` seconds."""
    end = time.monotonic() + patience
    while True:
        left = [
            thread
            for thread in threading.enumerate()
            if thread not in before and thread.is_alive() and thread.name != "zoo-contract"
        ]
        if not left or time.monotonic() > end:
            return [thread.name for thread in left]
        time.sleep(0.02)


def _promised(test: Callable[..., None]) -> Callable[..., None]:
    promise = inspect.cleandoc(test.__doc__ or test.__name__.removeprefix("test_").replace("_", " "))

    @functools.wraps(test)
    def run(self: Contract, *args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        try:
            within(self.deadline, "the test", lambda: test(self, *args, **kwargs))
        except AssertionError as error:
            if not getattr(error, "zoo_promise", ""):  # a test that calls its parent's has it already
                error.args = (f"{error}\n  promise:  {promise}\n  page:     {self.page}",)
                error.zoo_promise = promise  # type: ignore[attr-defined]
            raise
        except Exception as error:
            message = told("no error", f"{type(error).__name__}: {error}")
            broken = AssertionError(f"{message}\n  promise:  {promise}\n  page:     {self.page}")
            broken.zoo_promise = promise  # type: ignore[attr-defined]
            raise broken from error

    return run


def given(value: T | None, owner: str, fixture: str) -> T:
    """``value``, or a skip that says which fixture would give it."""
    if value is None:
        pytest.skip(f"give {owner} a fixture '{fixture}' to have this checked")
    return value
