"""Who takes part: plugins as they were loaded, what they offer, and the owner that an error names."""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import inspect
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import pluggy

from zoo.errors import PluginError, ZooError, broke_off, suggestion

T = TypeVar("T")


@dataclass
class PluginRecord:
    """One entry point (or one object handed in by a test) and the result of loading it."""

    name: str
    distribution: str = ""
    version: str = ""
    plugin: object | None = None
    error: str = ""
    offers: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """``'cpu' (zoo-runner 0.1.0)``"""
        return f"'{self.name}' ({self.distribution} {self.version})" if self.distribution else f"'{self.name}'"


@dataclass(frozen=True)
class Offered(Generic[T]):
    """Something on offer, and who brings it."""

    value: T
    plugin: PluginRecord


class Participant(NamedTuple):
    """Somebody who takes part in a run: ``name`` is its part there, ``owner`` the plugin, distribution and version it comes from."""

    name: str
    plugin: object
    owner: str = ""

    @property
    def label(self) -> str:
        return f"the plugin {self.owner}" if self.owner else f"'{self.name}'"


def load_object(place: str, owner: str) -> Any:
    """The object at ``package.module:name``. Raises PluginError naming ``owner``."""
    module, _, name = place.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # whatever a module does when it is imported
        raise PluginError(f"{owner} names '{place}', which cannot be imported: {reason_of(error)}") from error
    return found


def reason_of(error: BaseException, own_module: str = "") -> str:
    """What went wrong in a plugin, in words. ``own_module`` is the plugin's own package, which no package index has."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        if own_module and package == own_module.partition(".")[0]:
            return f"its own module '{error.name}' is missing: install the plugin again"
        return f"it needs the Python module '{error.name}', which is not installed (try: pip install {package})"
    if isinstance(error, ZooError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def register(manager: pluggy.PluginManager, participant: Participant) -> None:
    """Let ``participant`` take part, its hooks guarded: what they raise names their owner.

    Raises PluginError for an implementation of a hook that does not exist, with the closest one that does.
    """
    try:
        manager.register(participant.plugin, name=participant.name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        if manager.is_registered(participant.plugin):  # pluggy refuses wrong arguments before, and unknown hooks after
            manager.unregister(participant.plugin)
        raise PluginError(_invalid(participant, manager, error)) from error
    for caller in manager.get_hookcallers(participant.plugin) or []:
        for implementation in caller.get_hookimpls():
            if implementation.plugin is participant.plugin and not hasattr(implementation.function, "__zoo_guarded__"):
                guarded = _guarded(implementation.function, participant.label, caller.name)
                implementation.function = guarded  # type: ignore[misc]  # pluggy marks it final and has no other way in


def _invalid(participant: Participant, manager: pluggy.PluginManager, error: pluggy.PluginValidationError) -> str:
    known = [name for name in vars(manager.hook) if not name.startswith("_")]
    for caller in vars(manager.hook).values():
        if isinstance(caller, pluggy.HookCaller) and not caller.has_spec():
            known.remove(caller.name)
            close = suggestion(caller.name, known)
            hint = f" Did you mean '{close}'?" if close else ""
            return f"{participant.label} implements the hook '{caller.name}', which does not exist.{hint}"
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{participant.label} does not fit its hook: {' '.join(lines)}"


def _blame(error: BaseException, failed: str) -> None:
    """Raises a PluginError that begins with ``failed``; returns if ``error`` is to be raised as it is."""
    if isinstance(error, (ZooError, CancelledError)) or not broke_off(error):
        return
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return  # a full disk is nobody's fault, and whoever made room for the file says what is needed
    raise PluginError(f"{failed}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def naming(failed: str) -> Iterator[None]:
    """Inside the block, whatever a plugin's code raises is a PluginError that begins with ``failed``; a ZooError passes as it is."""
    try:
        yield
    except BaseException as error:
        _blame(error, failed)
        raise


def _guarded(function: Callable[..., Any], label: str, hook: str) -> Callable[..., Any]:
    """``function`` with whatever it raises turned into a PluginError that names its owner; a ZooError passes as it is."""
    failed = f"{label} failed in the hook '{hook}'"
    if not inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def call(*args: Any) -> Any:
            with naming(failed):
                return function(*args)

        guarded = call
    else:

        @functools.wraps(function)
        def wrap(*args: Any) -> Generator[Any, Any, Any]:
            inner: Generator[Any, Any, Any] = function(*args)
            sent: BaseException | None = None
            try:
                value = next(inner)
                while True:
                    try:
                        result = yield value
                    except BaseException as error:  # what others raised goes through the wrapper
                        sent = error
                        value = inner.throw(error)
                    else:
                        value = inner.send(result)
            except StopIteration as end:
                return end.value
            except BaseException as error:
                if error is not sent:
                    _blame(error, failed)
                raise

        guarded = wrap
    guarded.__zoo_guarded__ = True  # type: ignore[attr-defined]
    return guarded
