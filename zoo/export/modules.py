"""Which Python modules are installed, found out without importing them, and the versions of those that take part."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterable, Mapping

from zoo.onnx_runtime import onnxruntime_version


def found(module: str) -> bool:
    """Whether ``module`` could be imported; its parents are imported to find out, and they are light."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def missing_packages(modules: Mapping[str, str]) -> list[str]:
    """The packages of those modules that are not installed."""
    return list(dict.fromkeys(package for module, package in modules.items() if not found(module)))


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    here = {}
    for name in packages:
        try:
            here[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return here


def runtime_version() -> str:
    """ONNX Runtime's major and minor version: operators of its own may change with it."""
    return ".".join(map(str, onnxruntime_version()))
