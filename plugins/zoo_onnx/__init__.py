"""Steps that work on ONNX graphs. They need onnx and onnxruntime, and neither torch nor optimum.

This package itself imports nothing heavy: a step's function is imported in the child process that runs it.
"""

from __future__ import annotations

from collections.abc import Iterable

from zoo.api import Precision, Step, hookimpl

GRAPH = "a model file"
AS_EXPORTED = "the nodes as they were exported"
FLOAT32 = "float32 weights"
STANDARD = "standard operators alone"

EXACT = 1e-4
"""Same arithmetic in another order: a full-size export differs from torch by 1.5e-5 on scores of several units."""
HALF = 0.02
"""Ten bits of mantissa through 24 layers: 0.024 was the largest difference measured on scores that spread by 2.6."""
INT8 = 0.5
"""Catches a broken graph, nothing more: random weights of full size moved scores by 1.5 of 5, with int8 weights alone by 2.5 of 7.7.
Quality is judged on labelled data."""

ONNX = {"onnx": "onnx"}
RUNTIME = {"onnx": "onnx", "onnxruntime": "onnxruntime"}


@hookimpl
def zoo_steps() -> Iterable[Step]:
    return [
        _step(
            "first-token-only",
            "zoo_onnx.first_token_only:trim",
            "behind the last attention, compute the first token only: no other is read by the classifier",
            needs={GRAPH},
            takes={AS_EXPORTED},
            modules=ONNX,
            only_faster=True,
            spellings=("trim",),
        ),
        _step(
            "flash",
            "zoo_onnx.flash_attention:flash",
            "join each attention into ONNX Runtime's own operator, without a mask if no pair is padded",
            needs={GRAPH, FLOAT32, STANDARD},
            takes={AS_EXPORTED, STANDARD},
            runtime_ops=True,
            only_faster=True,
        ),
        _step(
            "fuse",
            "zoo_onnx.graph_steps:fuse",
            "join the nodes of each transformer layer into ONNX Runtime's own operators",
            needs={GRAPH, AS_EXPORTED},
            takes={AS_EXPORTED, STANDARD},
            modules={**RUNTIME, "sympy": "sympy"},
            runtime_ops=True,
        ),
        _step(
            "simplify",
            "zoo_onnx.graph_steps:simplify",
            "fold constants and drop needless nodes (onnxsim); standard operators only",
            needs={GRAPH},
            takes={AS_EXPORTED},
            modules={**ONNX, "onnxsim": "onnxsim"},
            may_fail=True,
        ),
        _step(
            "half",
            "zoo_onnx.graph_steps:half",
            "weights and arithmetic in float16",
            needs={GRAPH, FLOAT32},
            takes={AS_EXPORTED, FLOAT32},
            tolerance=HALF,
            lowers_to="fp16",
            runtime_ops=True,
        ),
        _step(
            "quantise",
            "zoo_onnx.graph_steps:quantise",
            "weights in int8, one scale a channel; activations quantised as they come",
            needs={GRAPH, FLOAT32},
            takes={AS_EXPORTED, FLOAT32},
            space=1.6,
            tolerance=INT8,
            lowers_to="int8",
            runtime_ops=True,
        ),
        _step(
            "quantise-unsigned",
            "zoo_onnx.graph_steps:quantise_unsigned",
            "weights in uint8, for CPUs without int8 dot products, on which products of signed weights overflow",
            needs={GRAPH, FLOAT32},
            takes={AS_EXPORTED, FLOAT32},
            space=1.6,
            tolerance=INT8,
            lowers_to="int8",
            runtime_ops=True,
        ),
        _step(
            "weight-only-int8",
            "zoo_onnx.weight_only_int8:compress",
            "weights in int8, one scale a channel; arithmetic in float, standard operators only",
            needs={GRAPH, FLOAT32, STANDARD},
            takes={AS_EXPORTED, FLOAT32},
            space=1.5,  # a third of that, beside a float32 copy if the weights are stored in float16
            tolerance=INT8,
            lowers_to="int8",
            spellings=("compress",),
        ),
    ]


def _step(
    name: str,
    run: str,
    summary: str,
    *,
    needs: set[str],
    takes: set[str],
    modules: dict[str, str] = RUNTIME,
    space: float = 1.1,
    tolerance: float = EXACT,
    lowers_to: Precision | None = None,
    runtime_ops: bool = False,
    only_faster: bool = False,
    may_fail: bool = False,
    spellings: tuple[str, ...] = (),
) -> Step:
    """A step on graphs: all of them are proven by ONNX Runtime on the CPU."""
    return Step(
        name=name,
        version="1",
        summary=summary,
        run=run,
        needs=frozenset(needs),
        takes=frozenset(takes),
        modules=modules,
        space=space,
        tolerance=tolerance,
        lowers_to=lowers_to,
        runtime_ops=runtime_ops,
        only_faster=only_faster,
        may_fail=may_fail,
        spellings=spellings,
        reference="zoo_onnx.proof:reference",
        evaluate="zoo_onnx.proof:evaluate",
    )
