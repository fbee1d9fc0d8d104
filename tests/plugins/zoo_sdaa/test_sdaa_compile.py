"""From an ONNX file to an engine of SDAA: pass modules, half precision, and what files are taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdaa_fixtures import Run, fails, scores
from zoo.testing.toy import WIDTH, write_toy
from zoo_sdaa.testing import Fake, Machine, fake_sdaa
from zoo_sdaa.topological_order import sort_nodes

onnx = pytest.importorskip("onnx")


def test_a_pass_modules_attributes_reach_the_compiler(run: Run, fake: Fake) -> None:
    Path("passes.py").write_text(
        "skip_ops = ['MatMul']\nconvert_all = True\nskip_input_name = ['x']\nnormalized = False\n"
        "specified_op_dtype_dict = {'Erf': 'float32'}\n"
        "def use_passes(ir_module):\n    return ir_module\n"
    )
    assert scores(run("--pass-path", "passes.py"))
    assert fake.events("build")[0]["passes"] == []
    assert fake.events("build")[0]["conversion"] == {
        "specified_op_dtype": "{'Erf': 'float32'}",
        "skip_ops": "['MatMul']",
        "convert_all": "True",
        "convert_judge": "None",
        "skip_input_name": "['x']",
        "normalized": "False",
    }


def test_a_pass_module_can_refuse_half_precision(run: Run, fake: Fake) -> None:
    Path("passes.py").write_text("need_convert = False\ndef use_passes(ir_module):\n    return ir_module\n")
    assert scores(run("--pass-path", "passes.py"))
    assert not fake.events("build")[0]["half"]


def test_by_default_tecorigins_passes_run_and_arguments_without_an_attribute_are_not_passed(
    run: Run, fake: Fake
) -> None:
    assert scores(run())
    assert fake.events("build")[0]["passes"] == [
        "InferType", "SimplifyExpr", "CanonicalizeOps", "AlterOpLayout", "FoldConstant", "EliminateCommonSubexpr", "DeadCodeElimination",
    ]  # fmt: skip
    assert set(fake.events("build")[0]["conversion"]) == {"skip_ops", "convert_all", "convert_judge", "skip_input_name"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("passes = []", "has no function use_passes"),
        ("import no_such_module", "fails when it is run"),
        ("def use_passes(ir_module):\n    pass", "returned nothing"),
        ("def use_passes(ir_module):\n    raise ValueError('no such pass')", "no such pass"),
    ],
)
def test_a_file_that_is_not_a_pass_module_is_refused(run: Run, fake: Fake, content: str, said: str) -> None:
    Path("passes.py").write_text(content)
    fails(run("--pass-path", "passes.py"), "passes.py", said)


def test_a_pass_module_that_does_not_exist_is_an_error_that_lists_those_that_come_with_the_plugin(
    run: Run, fake: Fake
) -> None:
    fails(run("--pass-path", "mixd"), "pass_path=mixd", "default, mixed, unconverted")


def with_layer_norm(toy: Path) -> None:
    """Give the toy an activation of some 300, as large models have, and then a LayerNorm as exports before opset 17 write it.

    The square of the activation overflows float16; the variance does not.
    """
    model = onnx.load(str(toy))
    made = {"scale": [300.0] + [1.0] * (WIDTH - 1), "two": [2.0], "epsilon": [1e-5]}
    for name, values in made.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, dtype=np.float32), name))
    operations = [
        ("Mul", ["embedded", "scale"], "large"), ("ReduceMean", ["large"], "mean"), ("Sub", ["large", "mean"], "centred"),
        ("Pow", ["centred", "two"], "squares"), ("ReduceMean", ["squares"], "variance"), ("Add", ["variance", "epsilon"], "positive"),
        ("Sqrt", ["positive"], "deviation"), ("Div", ["centred", "deviation"], "normal"),
    ]  # fmt: skip
    axes = {"ReduceMean": {"axes": [-1], "keepdims": 1}}
    nodes = list(model.graph.node)
    for node in nodes:
        for position, name in enumerate(node.input):
            node.input[position] = {"embedded": "normal"}.get(name, name)
        for field in (node.input, node.output):
            for position, name in enumerate(field):
                field[position] = {"mean": "mean_of_tokens"}.get(name, name)
    model.graph.node.extend(
        onnx.helper.make_node(kind, inputs, [output], **axes.get(kind, {})) for kind, inputs, output in operations
    )
    sort_nodes(model.graph)
    onnx.save(model, str(toy))


def test_the_mixed_passes_keep_softmax_and_layer_norm_in_float32(run: Run, toy: Path, fake: Fake) -> None:
    with_layer_norm(toy)
    exact = np.array(scores(run(target="cpu")))
    wrong, right = np.array(scores(run())), np.array(scores(run("--pass-path", "mixed")))
    assert np.abs(wrong / exact - 1).min() > 0.1
    assert np.abs(right / exact - 1).max() < 0.01
    by_default, mixed = (event["conversion"]["skip_ops"] for event in fake.events("build"))
    assert by_default == "None"
    for name in ("nn.softmax", "nn.layer_norm", "power", "mean", "sqrt", "divide"):
        assert f"'{name}'" in mixed
    assert fake.events("build")[1]["half"], "the rest is float16"


def test_types_are_inferred_once_more_if_the_build_fails_after_the_conversion(run: Run, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(loses_types=True)) as fake:
        result = run()
        assert len(scores(result)) == 2
        assert fake.events("build")[0]["passes"][-2:] == ["DeadCodeElimination", "InferType"]
    assert "tried again with types that are inferred anew" in result.stderr


def test_a_build_that_fails_for_another_reason_is_that_error(run: Run, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(without=("tvm.relay.build",))):
        fails(run(), "has no 'tvm.relay.build'")


def test_nodes_in_another_order_are_sorted(run: Run, toy: Path, fake: Fake) -> None:
    before = scores(run())
    model = onnx.load(str(toy))
    nodes = list(reversed([type(node).FromString(node.SerializeToString()) for node in model.graph.node]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(toy))
    assert scores(run()) == before
    assert len(fake.events("build")) == 2


def test_a_node_comes_after_those_whose_results_a_graph_inside_it_reads() -> None:
    from onnx import TensorProto, helper

    def branch(*operations: tuple[str, str, str]) -> Any:
        nodes = [helper.make_node(kind, [source], [target]) for kind, source, target in operations]
        return helper.make_graph(nodes, "branch", [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)])

    choice = helper.make_node(
        "If",
        ["condition"],
        ["result"],
        then_branch=branch(("Identity", "inner", "out"), ("Neg", "late", "inner")),
        else_branch=branch(("Identity", "x", "out")),
    )
    graph = helper.make_graph(
        [choice, helper.make_node("Neg", ["x"], ["late"])],
        "outer",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, [1])],
    )
    sort_nodes(graph)
    assert [node.op_type for node in graph.node] == ["Neg", "If"]
    branches = {attribute.name: attribute.g for attribute in graph.node[1].attribute}
    assert [node.op_type for node in branches["then_branch"].node] == ["Neg", "Identity"]


def test_a_sorted_graph_stays_as_it_is(toy: Path) -> None:
    graph = onnx.load(str(toy)).graph
    before = graph.SerializeToString(deterministic=True)
    sort_nodes(graph)
    assert graph.SerializeToString(deterministic=True) == before


def test_a_graph_with_a_cycle_is_refused(run: Run, toy: Path, fake: Fake) -> None:
    model = onnx.load(str(toy))
    model.graph.node[0].input[1] = "mean"
    onnx.save(model, str(toy))
    fails(run(), "has a cycle")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"half": True}, "computes in float16"),
        ({"rows": 1, "length": 32}, "is fixed to 32 tokens: give --shape 32 or less"),
    ],
)
def test_an_unfit_onnx_file_is_refused_before_compiling(
    run: Run, toy: Path, fake: Fake, options: dict[str, Any], said: str
) -> None:
    write_toy(toy, **options)
    fails(run(), said)
    assert not fake.events("build")


def test_a_file_in_float16_is_compiled_as_it_is_if_the_pass_module_does_not_convert(
    run: Run, toy: Path, fake: Fake
) -> None:
    exact = np.array(scores(run(target="cpu")))
    write_toy(toy, half=True)
    fails(run(), "computes in float16", "need_convert = False", "pass_path=unconverted")
    Path("passes.py").write_text("need_convert = False\ndef use_passes(ir_module):\n    return ir_module\n")
    for passes in ("unconverted", "passes.py"):
        half = scores(run("--pass-path", passes))
        np.testing.assert_allclose(half, exact, rtol=0.02)
        assert half == [float(np.float16(score)) for score in half]
    assert [event["half"] for event in fake.events("build")] == [False, False]
    assert [event["conversion"] for event in fake.events("build")] == [{}, {}]
    fails(run("--pass-path", "unconverted", "--no-half"), "computes in float16, and --precision is fp32")


def test_weights_that_are_only_stored_in_half_precision_are_widened(run: Run, toy: Path, fake: Fake) -> None:
    write_toy(toy, small=True)
    np.testing.assert_allclose(scores(run("--no-half")), scores(run(target="cpu")), rtol=1e-5)
    assert scores(run())
    assert scores(run("--pass-path", "unconverted", "--no-half"))


def test_a_file_with_fixed_axes_keeps_its_own_shape(run: Run, toy: Path, fake: Fake) -> None:
    write_toy(toy, rows=2, length=64)
    assert len(scores(run("--batch-size", 100))) == 2
    assert fake.events("call")[0]["rows"] == 8


def test_weights_beside_the_file_are_found_and_missing_ones_are_named(run: Run, toy: Path, fake: Fake) -> None:
    import onnx

    before = scores(run())
    model = onnx.load(str(toy))
    onnx.save(model, str(toy), save_as_external_data=True, location="toy.data", size_threshold=0)
    assert scores(run()) == before
    (toy.parent / "toy.data").unlink()
    fails(run(), "toy.data")


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_weights_may_be_links_as_in_a_snapshot_of_the_hub_or_beside_a_cache(
    link: Any, run: Run, toy: Path, fake: Fake
) -> None:
    """onnx's own loader refuses both."""
    right = scores(run(target="cpu"))
    onnx.save(onnx.load(str(toy)), str(toy), save_as_external_data=True, location="toy.data", size_threshold=0)
    data, elsewhere = toy.parent / "toy.data", toy.parent / "elsewhere.bin"
    data.rename(elsewhere)
    link(data, elsewhere)
    np.testing.assert_allclose(scores(run("--no-half")), right, rtol=1e-5)
