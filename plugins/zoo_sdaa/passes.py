"""The vendor's default pass module: a file of this form is what ``--pass-path`` takes.

``use_passes(ir_module)`` returns the optimised module. Optional attributes steer the half-precision conversion: ``need_convert`` (default
True), ``skip_ops``, ``convert_all``, ``convert_judge``, ``skip_input_name``, ``normalized``, ``specified_op_dtype_dict``.
"""

from __future__ import annotations

from typing import Any

from zoo_sdaa import runtime

SEQUENCE = (
    "InferType", "SimplifyExpr", "CanonicalizeOps", "AlterOpLayout", "FoldConstant", "EliminateCommonSubexpr", "DeadCodeElimination",
)  # fmt: skip


def use_passes(ir_module: Any) -> Any:
    """Run the sequence at opt level 3 under the target ``sdaa``."""
    passes = [runtime.call(f"tvm.relay.transform.{name}") for name in SEQUENCE]
    with runtime.call("tvm.target.Target", "sdaa"), runtime.call("tvm.transform.PassContext", opt_level=3):
        if hasattr(runtime.attribute("tvm.transform"), "Sequential"):
            # It also runs what one of these requires before it: most need the types inferred anew.
            return runtime.call("tvm.transform.Sequential", passes)(ir_module)
        for each in passes:
            ir_module = each(ir_module)
        return ir_module
