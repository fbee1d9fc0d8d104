"""Steps that work on ONNX graphs. They need onnx and onnxruntime, and neither torch nor optimum.

This package itself imports nothing heavy: a step's function is imported in the child process that runs it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from zoo.api import Step, hookimpl

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

ON_GRAPHS = Step(
    name="",
    version="1",
    summary="",
    run="",
    needs=frozenset({GRAPH}),
    takes=frozenset({AS_EXPORTED}),
    modules={"onnx": "onnx", "onnxruntime": "onnxruntime"},
    tolerance=EXACT,
    reference="zoo_onnx.proof:reference",
    evaluate="zoo_onnx.proof:evaluate",
)
"""What steps on graphs have in common: all of them are proven by ONNX Runtime on the CPU."""
TO_INT8 = replace(
    ON_GRAPHS,
    needs=frozenset({GRAPH, FLOAT32}),
    takes=frozenset({AS_EXPORTED, FLOAT32}),
    space=1.6,
    tolerance=INT8,
    lowers_to="int8",
    runtime_ops=True,
)


@hookimpl
def zoo_steps() -> Iterable[Step]:
    return [
        replace(
            ON_GRAPHS,
            name="first-token-only",
            run="zoo_onnx.first_token_only:trim",
            summary="behind the last attention, compute the first token only: no other is read by the classifier",
            modules={"onnx": "onnx"},
            only_faster=True,
            spellings=("trim",),
        ),
        replace(
            ON_GRAPHS,
            name="flash",
            run="zoo_onnx.flash_attention:flash",
            summary="join each attention into ONNX Runtime's own operator, without a mask if no pair is padded",
            needs=frozenset({GRAPH, FLOAT32, STANDARD}),
            takes=frozenset({AS_EXPORTED, STANDARD}),
            runtime_ops=True,
            only_faster=True,
        ),
        replace(
            ON_GRAPHS,
            name="fuse",
            run="zoo_onnx.graph_steps:fuse",
            summary="join the nodes of each transformer layer into ONNX Runtime's own operators",
            needs=frozenset({GRAPH, AS_EXPORTED}),
            takes=frozenset({AS_EXPORTED, STANDARD}),
            modules={**ON_GRAPHS.modules, "sympy": "sympy"},
            runtime_ops=True,
        ),
        replace(
            ON_GRAPHS,
            name="simplify",
            run="zoo_onnx.graph_steps:simplify",
            summary="fold constants and drop needless nodes (onnxsim); standard operators only",
            modules={"onnx": "onnx", "onnxsim": "onnxsim"},
            may_fail=True,
        ),
        replace(
            ON_GRAPHS,
            name="half",
            run="zoo_onnx.graph_steps:half",
            summary="weights and arithmetic in float16",
            needs=TO_INT8.needs,
            takes=TO_INT8.takes,
            tolerance=HALF,
            lowers_to="fp16",
            runtime_ops=True,
        ),
        replace(
            TO_INT8,
            name="quantise",
            run="zoo_onnx.graph_steps:quantise",
            summary="weights in int8, one scale a channel; activations quantised as they come",
        ),
        replace(
            TO_INT8,
            name="quantise-unsigned",
            run="zoo_onnx.graph_steps:quantise_unsigned",
            summary="weights in uint8, for CPUs without int8 dot products, on which products of signed weights overflow",
        ),
        replace(
            TO_INT8,
            name="weight-only-int8",
            run="zoo_onnx.weight_only_int8:compress",
            summary="weights in int8, one scale a channel; arithmetic in float, standard operators only",
            needs=frozenset({GRAPH, FLOAT32, STANDARD}),
            space=1.5,  # a third of that, beside a float32 copy if the weights are stored in float16
            runtime_ops=False,
            spellings=("compress",),
        ),
    ]
