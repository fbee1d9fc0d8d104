"""Tecorigin's default pass module: a file of this form is what the device option ``pass_path`` takes.

``use_passes(ir_module)`` returns the optimised module. Optional attributes steer the half-precision conversion: ``need_convert`` (default
True), ``skip_ops``, ``convert_all``, ``convert_judge``, ``skip_input_name``, ``normalized``, ``specified_op_dtype_dict``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zoo_sdaa import runtime

SEQUENCE = (
    "InferType", "SimplifyExpr", "CanonicalizeOps", "AlterOpLayout", "FoldConstant", "EliminateCommonSubexpr", "DeadCodeElimination",
)  # fmt: skip


def use_passes(ir_module: Any) -> Any:
    """Run the sequence at opt level 3 under the target ``sdaa``."""
    return run_passes(SEQUENCE, ir_module)


def infer_types(ir_module: Any) -> Any:
    """Infer the types of a module anew, as Tecorigin's benchmark does after the float16 conversion."""
    return run_passes(SEQUENCE[:1], ir_module)


def run_passes(names: Sequence[str], ir_module: Any) -> Any:
    """Run passes of ``tvm.relay.transform`` by name."""
    passes = [runtime.call(f"tvm.relay.transform.{name}") for name in names]
    with runtime.call("tvm.target.Target", "sdaa"), runtime.call("tvm.transform.PassContext", opt_level=3):
        if runtime.has("tvm.transform.Sequential"):
            # It also runs what one of these requires before it: most need the types inferred anew.
            return runtime.call("tvm.transform.Sequential", passes)(ir_module)
        for each in passes:
            ir_module = each(ir_module)
        return ir_module
