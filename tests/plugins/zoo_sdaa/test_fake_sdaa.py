"""The fake TecoInference holds its user to the contract; a fake that lets mistakes through proves nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.testing.device_runs import reference
from zoo.testing.toy import toy_encodings, write_toy
from zoo_sdaa.testing import ContractError, Fake, Machine, fake_sdaa

onnx = pytest.importorskip("onnx")

ROWS, LENGTH = 2, 16


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    with fake_sdaa(tmp_path / "fake", broken=True) as fake:
        yield fake


@pytest.fixture
def library(fake: Fake, tmp_path: Path) -> Any:
    return compiled(write_toy(tmp_path / "toy.onnx"))


def compiled(model: Path, *, half: bool = False) -> Any:
    """The contract's steps 1 to 6, written down once more and not taken from the plugin."""
    import tvm

    shapes = {name: [ROWS, LENGTH] for name in ("input_ids", "attention_mask")}
    ir_module, params = tvm.relay.frontend.from_onnx(onnx.load(str(model)), shapes)
    names = (
        "InferType", "SimplifyExpr", "CanonicalizeOps", "AlterOpLayout", "FoldConstant", "EliminateCommonSubexpr", "DeadCodeElimination",
    )  # fmt: skip
    with tvm.target.Target("sdaa"), tvm.transform.PassContext(opt_level=3):
        ir_module = tvm.transform.Sequential([getattr(tvm.relay.transform, name)() for name in names])(ir_module)
    if half:
        ir_module = tvm.relay.frontend.convert_float_to_float16(
            ir_module, skip_ops=None, convert_all=False, convert_judge=None, skip_input_name=None
        )
    target = tvm.target.Target("sdaa -libs=tecodnn,tecoblas", host="llvm")
    with tvm.transform.PassContext(opt_level=0, disabled_pass=["SimplifyInference"]):
        return tvm.relay.build(ir_module, target=target, params=params)


def arrays(seed: int = 0, rows: int = 4 * ROWS) -> list[Any]:
    ids = np.array([row.features["input_ids"] for row in toy_encodings([LENGTH] * rows, seed).rows], dtype=np.int64)
    return [ids, np.ones_like(ids)]


def tensors(seed: int = 0, rows: int = 4 * ROWS) -> list[Any]:
    import tvm

    return [tvm.runtime.from_numpy(array) for array in arrays(seed, rows)]


def expected(tmp_path: Path, seed: int = 0) -> Any:
    return reference(tmp_path / "toy.onnx", toy_encodings([LENGTH] * 4 * ROWS, seed))


def test_it_computes_what_onnx_runtime_computes(fake: Fake, library: Any, tmp_path: Path) -> None:
    import tvm

    engine = tvm.runtime.create_engine(library, "sdaa")
    context = engine.create_context()
    logits = context.run_async(tensors()).get()[0].numpy()
    np.testing.assert_allclose(logits[:, 0], expected(tmp_path), rtol=1e-5)
    context.release()
    engine.release()
    fake.check(leaks=False)


def test_half_precision_rounds_for_real(fake: Fake, tmp_path: Path) -> None:
    import tvm

    write_toy(tmp_path / "toy.onnx")
    context = tvm.runtime.create_engine(compiled(tmp_path / "toy.onnx", half=True), "sdaa").create_context()
    logits = context.run_async(tensors()).get()[0].numpy()[:, 0]
    exact = expected(tmp_path)
    assert logits.dtype == np.float16
    assert 0 < np.abs(logits - exact).max() < 0.02
    # Rounding the exact result once is not what half precision does: every step on the way rounds.
    assert (logits != exact.astype(np.float16)).any()


def test_an_output_that_is_not_copied_is_lost_with_the_next_call(fake: Fake, library: Any, tmp_path: Path) -> None:
    import tvm

    context = tvm.runtime.create_engine(library, "sdaa").create_context()
    kept = context.run_async(tensors()).get()[0].numpy()
    copy = kept.copy()
    context.run_async(tensors(seed=1)).get()
    np.testing.assert_allclose(copy[:, 0], expected(tmp_path), rtol=1e-5)
    assert np.abs(kept - copy).max() > 0.1


def test_an_output_that_is_fetched_after_the_next_submit_is_the_next_calls(
    fake: Fake, library: Any, tmp_path: Path
) -> None:
    import tvm

    context = tvm.runtime.create_engine(library, "sdaa").create_context()
    first = context.run_async(tensors())
    context.run_async(tensors(seed=1))
    np.testing.assert_allclose(first.get()[0].numpy()[:, 0], expected(tmp_path, seed=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda context, tvm: context.run_async(tensors(rows=7)), "4 engines of batch 2 take (8, 16)"),
        (lambda context, tvm: context.run_async(tensors()[:1]), "was given 1 inputs"),
        (lambda context, tvm: context.run_async(arrays()), "takes tensors of tvm.runtime.from_numpy"),
        (
            lambda context, tvm: context.run_async(
                [tvm.runtime.from_numpy(array.astype(np.int32)) for array in arrays()]
            ),
            "is int32",
        ),
        (lambda context, tvm: tvm.runtime.from_numpy(arrays()[0].T), "not contiguous"),
        (lambda context, tvm: context.get_infer_time(), "without start_timing"),
        (lambda context, tvm: context.executor_run(dev=tvm.device("sdaa", 0)), "before the inputs"),
        (lambda context, tvm: tvm.device("sdaa", 4), "there is no SPA 4"),
        (lambda context, tvm: tvm.device("cuda", 0), "no device type 'cuda'"),
        (lambda context, tvm: (context.release(), context.run_async(tensors())), "that was released"),
        (lambda context, tvm: (context.release(), context.release()), "released twice"),
    ],
)
def test_a_misuse_of_the_context_is_refused(fake: Fake, library: Any, mistake: Any, words: str) -> None:
    import tvm

    context = tvm.runtime.create_engine(library, "sdaa").create_context()
    with pytest.raises(ContractError, match=words.replace("(", r"\(").replace(")", r"\)")):
        mistake(context, tvm)
    with pytest.raises(AssertionError, match="the contract was broken"):
        fake.check(leaks=True)


def test_an_output_is_not_read_before_the_spa_is_waited_for(fake: Fake, library: Any) -> None:
    import tvm

    context = tvm.runtime.create_engine(library, "sdaa").create_context()
    device = tvm.device("sdaa", 1)
    for name, array in zip(("input_ids", "attention_mask"), arrays(rows=ROWS), strict=True):
        context.set_input(name, array, device)
    context.executor_run(dev=device)
    with pytest.raises(ContractError, match="before sync"):
        context.get_output(0, device)


def test_an_engine_is_released_after_its_context(fake: Fake, library: Any) -> None:
    import tvm

    engine = tvm.runtime.create_engine(library, "sdaa")
    engine.create_context()
    with pytest.raises(ContractError, match="before its context"):
        engine.release()


def test_a_leaked_context_fails_the_test(tmp_path: Path) -> None:
    write_toy(tmp_path / "toy.onnx")
    test = fake_sdaa(tmp_path / "fake")
    test.__enter__()
    import tvm

    tvm.runtime.create_engine(compiled(tmp_path / "toy.onnx"), "sdaa").create_context()
    with pytest.raises(AssertionError, match=r"not released: engine of process \d+, context of process"):
        test.__exit__(None, None, None)


def test_a_compilation_out_of_order_is_refused(fake: Fake, tmp_path: Path) -> None:
    import tvm

    model = onnx.load(str(write_toy(tmp_path / "toy.onnx")))
    shapes = {name: [ROWS, LENGTH] for name in ("input_ids", "attention_mask")}
    ir_module, params = tvm.relay.frontend.from_onnx(model, shapes)
    target = tvm.target.Target("sdaa -libs=tecodnn,tecoblas", host="llvm")
    with pytest.raises(ContractError, match="no PassContext"):
        tvm.relay.build(ir_module, target=target, params=params)
    with pytest.raises(ContractError, match="under no target"):
        tvm.relay.transform.InferType()(ir_module)
    with pytest.raises(ContractError, match="every dimension"):
        tvm.relay.frontend.from_onnx(model, {name: [0, LENGTH] for name in shapes})
    half = onnx.load(str(write_toy(tmp_path / "half.onnx", half=True)))
    ir_module, _ = tvm.relay.frontend.from_onnx(half, shapes)
    with pytest.raises(ContractError, match="takes a float32 model"):
        tvm.relay.frontend.convert_float_to_float16(ir_module)
    nodes = [type(node).FromString(node.SerializeToString()) for node in reversed(model.graph.node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    with pytest.raises(ContractError, match="comes before those it reads from"):
        tvm.relay.frontend.from_onnx(model, shapes)


def test_outputs_are_had_by_index_alone_and_shown_in_one_buffer(fake: Fake, library: Any) -> None:
    import tvm

    context = tvm.runtime.create_engine(library, "sdaa").create_context()
    outputs = context.run_async(tensors()).get()
    with pytest.raises(TypeError):
        list(outputs)
    with pytest.raises(TypeError):
        len(outputs)
    assert np.shares_memory(outputs[0].numpy(), outputs[0].numpy())


def test_the_memory_of_inputs_is_workspace_while_a_call_runs(fake: Fake, library: Any) -> None:
    import tvm

    given = arrays()
    context = tvm.runtime.create_engine(library, "sdaa").create_context()
    context.run_async([tvm.runtime.from_numpy(array) for array in given]).get()
    assert (given[0] == -1).all()


def test_it_prints_past_pythons_stdout(fake: Fake, library: Any, capfd: pytest.CaptureFixture[str]) -> None:
    import tvm

    engine = tvm.runtime.create_engine(library, "sdaa")
    context = engine.create_context()
    context.run_async(tensors()).get()
    context.release()
    engine.release()
    printed = capfd.readouterr().out
    for said in ("a call begins", "context released", "engine released"):
        assert f"fake TecoInference: {said}" in printed


def test_it_is_importable_only_where_a_test_asks_for_it(tmp_path: Path) -> None:
    def imports() -> int:
        return subprocess.run([sys.executable, "-c", "import tvm"], capture_output=True, check=False).returncode

    assert imports() == 1
    with fake_sdaa(tmp_path / "fake"):
        assert imports() == 0
    assert imports() == 1
    assert "tvm" not in sys.modules


def test_a_machine_has_its_cards_in_both_layouts_of_teco_smi(tmp_path: Path) -> None:
    for rows, listed in (("spa", 8), ("card", 2)):
        with fake_sdaa(tmp_path / rows, Machine(cards=2, rows=rows)):  # type: ignore[arg-type]
            table = subprocess.run(["teco-smi"], capture_output=True, check=True, text=True).stdout
        assert table.count("TECO_AICARD_01") == listed


def test_a_process_cannot_use_more_spas_than_it_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(spas=3), broken=True):
        library = compiled(write_toy(tmp_path / "toy.onnx"))
        import tvm

        with pytest.raises(RuntimeError, match="sees 3 SPAs"):
            tvm.runtime.create_engine(library, "sdaa")
        os.environ["MAX_ENGINE_NUMS"] = "3"
        tvm.runtime.create_engine(library, "sdaa").release()
