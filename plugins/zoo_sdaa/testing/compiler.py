"""Relay as far as the contract shows it: importing, passes, half precision, building."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from zoo_sdaa.testing.graph import Library, Module, rounded, serialise
from zoo_sdaa.testing.machine import chat, demand, machine, record

_targets: list[Target] = []
_contexts: list[PassContext] = []

PASSES = (
    "InferType", "SimplifyExpr", "CanonicalizeOps", "AlterOpLayout", "FoldConstant", "EliminateCommonSubexpr", "DeadCodeElimination",
)  # fmt: skip


class Target:
    """``tvm.target.Target``"""

    def __init__(self, target: str, host: str | None = None) -> None:
        demand(target.split()[0] == "sdaa", f"there is no target '{target}'")
        self.target, self.host = target, host

    def __enter__(self) -> Target:
        _targets.append(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        _targets.pop()


class PassContext:
    """``tvm.transform.PassContext``"""

    def __init__(
        self, opt_level: int = 2, disabled_pass: Sequence[str] | None = None, config: Mapping[str, Any] | None = None
    ) -> None:
        self.opt_level, self.disabled_pass = opt_level, list(disabled_pass or ())

    def __enter__(self) -> PassContext:
        _contexts.append(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        _contexts.pop()


Pass = Callable[[Module], Module]


def relay_pass(name: str) -> Callable[[], Pass]:
    """``tvm.relay.transform.<name>``: a function that makes the pass."""

    def make() -> Pass:
        def run(module: Module) -> Module:
            demand(isinstance(module, Module), f"the pass {name} was given {type(module).__name__}")
            demand(bool(_targets), f"the pass {name} ran under no target")
            demand(bool(_contexts) and _contexts[-1].opt_level == 3, f"the pass {name} did not run at opt level 3")
            return replace(module, passes=(*module.passes, name), typed=module.typed or name == "InferType")

        return run

    return make


class Sequential:
    """``tvm.transform.Sequential``"""

    def __init__(self, passes: Sequence[Pass]) -> None:
        self.passes = passes

    def __call__(self, module: Module) -> Module:
        for each in self.passes:
            module = each(module)
        return module


def from_onnx(
    model: Any, shape: Mapping[str, Sequence[int]], specified_op_dtype: Mapping[str, str] | None = None
) -> tuple[Module, dict[str, Any]]:
    """``tvm.relay.frontend.from_onnx``"""
    weights = {tensor.name for tensor in model.graph.initializer}
    names = [node.name for node in model.graph.input if node.name not in weights]
    demand(list(shape) == names, f"shapes were given for {list(shape)}; the graph's inputs are {names}")
    for name, dims in shape.items():
        whole = all(isinstance(dim, int) and dim > 0 for dim in dims)
        demand(whole, f"the shape of '{name}' is {list(dims)}: every dimension must be a positive number")
    known = {*weights, *names, ""}
    for node in model.graph.node:
        demand(known.issuperset(node.input), f"the node '{node.op_type}' comes before those it reads from")
        known.update(node.output)
    conversion = {} if specified_op_dtype is None else {"specified_op_dtype": repr(specified_op_dtype)}
    return Module(model, {name: list(dims) for name, dims in shape.items()}, conversion=conversion), {}


def convert_float_to_float16(
    module: Module,
    *,
    skip_ops: Sequence[str] | None = None,
    convert_all: bool = False,
    convert_judge: Any = None,
    skip_input_name: Sequence[str] | None = None,
    **normalized: Any,
) -> Module:
    """``tvm.relay.frontend.convert_float_to_float16``"""
    from onnx import TensorProto

    demand(set(normalized) <= {"normalized"}, f"convert_float_to_float16 knows no {', '.join(normalized)}")
    narrow = [tensor.name for tensor in module.model.graph.initializer if tensor.data_type == TensorProto.FLOAT16]
    demand(not narrow, f"the conversion takes a float32 model; {narrow[:1]} is float16")
    given = {
        "skip_ops": skip_ops, "convert_all": convert_all, "convert_judge": convert_judge, "skip_input_name": skip_input_name,
    } | normalized  # fmt: skip
    conversion = {**module.conversion, **{name: repr(value) for name, value in given.items()}}
    typed = module.typed and not machine().loses_types
    return replace(module, model=rounded(module.model, skip_ops), half=True, typed=typed, conversion=conversion)


def build(module: Module, *, target: Target, params: Mapping[str, Any]) -> Library:
    """``tvm.relay.build``"""
    demand(isinstance(module, Module), f"relay.build was given {type(module).__name__}")
    demand(target.target == "sdaa -libs=tecodnn,tecoblas", f"relay.build was given the target '{target.target}'")
    demand(target.host == "llvm", f"relay.build was given the host '{target.host}'")
    context = _contexts[-1] if _contexts else None
    demand(context is not None, "relay.build ran in no PassContext")
    assert context is not None
    demand(context.opt_level == 0, f"relay.build ran at opt level {context.opt_level}, not 0")
    demand(context.disabled_pass == ["SimplifyInference"], f"disabled passes are {context.disabled_pass}")
    chat("building")
    if not module.typed:
        raise RuntimeError(
            "InternalError: Check failed: (checked_type.defined()): internal error: the type checker has not populated it"
        )
    record(
        "build", shapes=dict(module.shapes), passes=module.passes, half=module.half, conversion=dict(module.conversion)
    )
    return Library(serialise(module))
