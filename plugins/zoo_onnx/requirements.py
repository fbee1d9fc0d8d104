"""What each step needs to be installed, found out without importing it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Sequence

from zoo.errors import NotInstalledError, PluginError

MODULES = {
    "export": ("torch", "transformers", "optimum.exporters.onnx", "onnx"),
    "trim": ("onnx",),
    "flash": ("onnx", "onnxruntime"),
    "fuse": ("onnx", "onnxruntime", "sympy"),
    "simplify": ("onnx", "onnxsim"),
    "half": ("onnx", "onnxruntime"),
    "quantise": ("onnx", "onnxruntime"),
    "quantise-unsigned": ("onnx", "onnxruntime"),
    "compress": ("onnx", "onnxruntime"),
}
PACKAGES = {"optimum.exporters.onnx": "optimum-onnx"}
"""Names to install, where they differ from the module's."""

RECORDED = ("torch", "transformers", "optimum", "optimum-onnx", "onnx", "onnxruntime", "onnxsim", "numpy", "zoo-runner")


def check(recipe: Sequence[str]) -> None:
    """Raises NotInstalledError naming what is missing, PluginError for a step nobody here knows.

    onnxsim alone may be missing where it is one step of several: the graph then stays as it is.
    """
    unknown = [step for step in recipe if step not in MODULES]
    if unknown:
        raise PluginError(f"the exporter knows no step '{unknown[0]}'; it knows {', '.join(MODULES)}")
    optional = "simplify" if len(recipe) > 1 else ""
    needed = dict.fromkeys(module for step in recipe if step != optional for module in MODULES[step])
    missing = [PACKAGES.get(module, module) for module in needed if not found(module)]
    if missing:
        raise NotInstalledError(
            f"making the model file ({', '.join(recipe)}) needs {', '.join(missing)}, which is not installed here: "
            "pip install 'zoo-runner[export]'. Without it, run a model file made elsewhere: --ckpt FILE.onnx --config-path DIR"
        )


def found(module: str) -> bool:
    """Whether ``module`` could be imported; its parents are imported to find out, and they are light."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def versions() -> dict[str, str]:
    """The versions of the programs that take part, where they are installed."""
    here = {}
    for name in RECORDED:
        try:
            here[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return here
