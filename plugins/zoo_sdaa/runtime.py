"""Every call into TecoInference goes through here, so that what a version lacks is said by name and not by a traceback.

The contract is what the vendor's public sources show of the modules ``tvm`` and ``tecoinference``. Where a version differs from it, the
attribute or the signature is named together with the version.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from typing import Any

from zoo.api import NotInstalledError, ZooError

MODULES = {1: ("tvm",), 2: ("tvm", "tecoinference")}
"""What each generation of the runtime is imported as."""


def found(module: str) -> bool:
    """Whether ``module`` could be imported, without importing it."""
    if module in sys.modules:
        return sys.modules[module] is not None
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def newest_generation() -> int | None:
    """2 where both modules are there, 1 where only ``tvm`` is, None where there is no runtime."""
    return next((number for number in (2, 1) if all(map(found, MODULES[number]))), None)


def load(generation: int) -> None:
    """Import the runtime's modules. Raises NotInstalledError."""
    for module in MODULES[generation]:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise NotInstalledError(
                f"the device 'sdaa' needs the Python module '{module}', which cannot be imported: {error}. It comes with Tecorigin's "
                "TecoInference container images only (conda environment tvm-build)"
            ) from error
        except Exception as error:  # a shared library that does not load raises what it likes
            raise ZooError(f"the Python module '{module}' fails when it is imported: {_said(error)}") from error


def version() -> str:
    """The runtime's modules with their versions, as error messages and cache keys use them."""
    return ", ".join(f"{module} {_version(module)}" for module in MODULES[2] if module in sys.modules)


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
    here, name = importlib.import_module(first), first
    for part in rest:
        name = f"{name}.{part}"
        if not hasattr(here, part):
            # Importing a package does not import what is below it.
            try:
                importlib.import_module(name)
            except ImportError:
                raise ZooError(_lacks(name)) from None
        here = getattr(here, part, None) or sys.modules[name]
    return here


def call(dotted: str, *args: Any, **kwargs: Any) -> Any:
    """Call what ``dotted`` names. Raises ZooError where it is missing, takes other arguments, or fails."""
    return _call(attribute(dotted), dotted, args, kwargs)


def invoke(owner: Any, label: str, /, *args: Any, **kwargs: Any) -> Any:
    """Call a method; ``label`` (``context.run_async``) names it as the contract does. Raises as ``call`` does."""
    return _call(method(owner, label), label, args, kwargs)


def method(owner: Any, label: str) -> Any:
    """The method ``label`` names. Raises ZooError where this version's object lacks it."""
    found = getattr(owner, label.rpartition(".")[2], None)
    if found is None:
        raise ZooError(_lacks(label))
    return found


def _call(function: Any, label: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    _check_signature(function, label, args, kwargs)
    try:
        return function(*args, **kwargs)
    except ZooError:
        raise
    except Exception as error:  # tvm raises classes of its own
        raise ZooError(f"{label} failed ({version()}): {_said(error)}") from error


def _check_signature(function: Any, label: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # a compiled function shows none; what it dislikes it says itself
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ZooError(
            f"{label}{signature} of this runtime ({version()}) does not take the arguments known for it: {error}. "
            "This plugin was written for another version of TecoInference"
        ) from error


def _lacks(name: str) -> str:
    return f"this runtime ({version()}) has no '{name}'. It is no TecoInference, or another version than this plugin was written for"


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
