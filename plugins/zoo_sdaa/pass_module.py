"""A pass module: the Python file that optimises a model in Relay, and says how it is made float16."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from zoo.api import ZooError
from zoo_sdaa import runtime


@dataclass(frozen=True)
class PassModule:
    """``name`` is what messages call it."""

    name: str
    module: ModuleType

    @property
    def converts(self) -> bool:
        """Whether a float32 model is made float16 by the compiler; otherwise it is compiled in the types it has."""
        return bool(getattr(self.module, "need_convert", True))

    def use_passes(self, ir_module: Any) -> Any:
        """The optimised module. Raises ZooError."""
        try:
            made = self.module.use_passes(ir_module)
        except ZooError:
            raise
        except Exception as error:  # tvm's classes, or the user's code
            raise ZooError(f"{self.name} failed ({runtime.version()}): {type(error).__name__}: {error}") from error
        if made is None:
            raise ZooError(f"use_passes of {self.name} returned nothing; it returns the module it made")
        return made

    @property
    def import_arguments(self) -> dict[str, Any]:
        """For ``from_onnx``."""
        return self._given("specified_op_dtype_dict", "specified_op_dtype")

    @property
    def conversion_arguments(self) -> dict[str, Any]:
        """For ``convert_float_to_float16``."""
        return {
            "skip_ops": getattr(self.module, "skip_ops", None),
            "convert_all": getattr(self.module, "convert_all", False),
            "convert_judge": getattr(self.module, "convert_judge", None),
            "skip_input_name": getattr(self.module, "skip_input_name", None),
            **self._given("normalized", "normalized"),
        }

    def _given(self, attribute: str, argument: str) -> dict[str, Any]:
        """``argument`` only if the module has ``attribute``: older runtimes do not know it."""
        return {argument: getattr(self.module, attribute)} if hasattr(self.module, attribute) else {}


def load_passes(path: Path | None) -> PassModule:
    """The pass module at ``path``, or Tecorigin's own sequence. Its code is run: it is the user's choice. Raises ZooError."""
    if path is None:
        from zoo_sdaa import passes

        return PassModule("the default pass module", passes)
    name = f"the pass module {path}"
    spec = importlib.util.spec_from_file_location("zoo_sdaa_chosen_passes", path)
    if spec is None or spec.loader is None:
        raise ZooError(f"{name} is not a Python file; it must have a function use_passes(ir_module)")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file raises
        raise ZooError(f"{name} fails when it is run: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, "use_passes", None)):
        raise ZooError(f"{name} has no function use_passes(ir_module)")
    return PassModule(name, module)
