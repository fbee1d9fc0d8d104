"""Every call into TecoInference goes through here, so that what a version lacks is an error that names it, and not a traceback.

The contract is what Tecorigin's public sources show of the modules ``tvm`` and ``tecoinference``. If a version differs from it, the
attribute or the signature is named together with the version.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
from typing import Any

from zoo.api import NotInstalledError, ZooError

MAIN_MODULE = {1: "tvm", 2: "tecoinference"}
"""What each generation of the runtime runs engines with. Both compile with ``tvm``."""

OLDER_VARIABLE = "TECO_INFER_TVM_RUN"
"""Tecorigin's own switch: generation 1 is used although 2 is there, if it is 1, true or yes."""

ENVIRONMENT = "tvm-build_py310"
"""The conda environment of Tecorigin's container images."""


class WrongVersionError(ZooError):
    """The runtime lacks something, or takes other arguments than those that are known for it."""


def found(module: str) -> bool:
    """Whether ``module`` is installed, without importing it."""
    if module in sys.modules:
        return sys.modules[module] is not None
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def installed_generations() -> list[int]:
    """Those whose module is installed, the one to use first; none if there is no runtime."""
    older = os.environ.get(OLDER_VARIABLE, "").lower() in ("1", "true", "yes")
    return [number for number in ((1, 2) if older else (2, 1)) if found(MAIN_MODULE[number])]


def load(generation: int) -> None:
    """Import the runtime's modules. Raises NotInstalledError."""
    others = [module for module in ("tvm",) if module != MAIN_MODULE[generation] and found(module)]
    for module in (*others, MAIN_MODULE[generation]):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise _missing(module, error) from error
        except Exception as error:  # a shared library that cannot be loaded may raise any exception
            raise ZooError(f"the Python module '{module}' fails when it is imported: {_text(error)}") from error


def _missing(module: str, error: ImportError) -> NotInstalledError:
    return NotInstalledError(
        f"the device 'sdaa' needs the Python module '{module}', which cannot be imported: {error}. It comes with Tecorigin's "
        f"TecoInference container images only (conda environment {ENVIRONMENT})"
    )


def version() -> str:
    """The runtime's modules with their versions, as error messages and cache keys use them."""
    return ", ".join(f"{module} {_version(module)}" for module in MAIN_MODULE.values() if module in sys.modules)


def _version(module: str) -> str:
    stated = getattr(sys.modules[module], "__version__", None)
    if stated is None:
        try:
            stated = importlib.metadata.version(module)
        except importlib.metadata.PackageNotFoundError:
            stated = "of unknown version"
    return str(stated)


def attribute(dotted: str) -> Any:
    """What ``dotted`` (``tvm.relay.build``) names. Raises ZooError naming the first part that this version lacks."""
    first, *rest = dotted.split(".")
    try:
        here, name = importlib.import_module(first), first
    except ImportError as error:
        raise _missing(first, error) from error
    for part in rest:
        name = f"{name}.{part}"
        if not hasattr(here, part):
            # Importing a package does not import what is below it.
            try:
                importlib.import_module(name)
            except ImportError:
                raise WrongVersionError(_lacks(name)) from None
        here = getattr(here, part, None) or sys.modules[name]
    return here


def has(dotted: str) -> bool:
    """Whether this version has what ``dotted`` names."""
    try:
        attribute(dotted)
    except WrongVersionError:
        return False
    return True


def call(dotted: str, *args: Any, **kwargs: Any) -> Any:
    """Call what ``dotted`` names. Raises ZooError if it is missing, takes other arguments, or fails."""
    return _call(attribute(dotted), dotted, args, kwargs)


def invoke(owner: Any, label: str, /, *args: Any, **kwargs: Any) -> Any:
    """Call a method; ``label`` (``context.run_async``) names it as the contract does. Raises as ``call`` does."""
    return _call(method(owner, label), label, args, kwargs)


def method(owner: Any, label: str) -> Any:
    """The method ``label`` names. Raises ZooError if this version's object lacks it."""
    found = getattr(owner, label.rpartition(".")[2], None)
    if found is None:
        raise WrongVersionError(_lacks(label))
    return found


def item(result: Any, label: str, number: int) -> Any:
    """The item ``number`` of what ``label`` gave. Raises ZooError if it cannot be indexed."""
    try:
        return result[number]
    except Exception as error:  # a container of the runtime's own raises classes of its own
        kind = type(result).__name__
        raise ZooError(f"{label} gave a {kind} without an output {number} ({version()}): {_text(error)}") from error


def _call(function: Any, label: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    _check_signature(function, label, args, kwargs)
    try:
        return function(*args, **kwargs)
    except ZooError:
        raise
    except Exception as error:  # tvm raises classes of its own
        raise ZooError(f"{label} failed ({version()}): {_text(error)}") from error


def _check_signature(function: Any, label: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # a compiled function shows none, and raises by itself
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise WrongVersionError(
            f"{label}{signature} of this runtime ({version()}) does not take the arguments known for it: {error}. "
            "This plugin was written for another version of TecoInference"
        ) from error


def _lacks(name: str) -> str:
    return f"this runtime ({version()}) has no '{name}'. It is not TecoInference, or another version than this plugin was written for"


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
