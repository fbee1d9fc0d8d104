"""The SDAA device as a user meets it, on the fake runtime."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from conftest import PANDA, Zoo
from zoo.testing.toy import write_toy, write_toy_tokenizer
from zoo_sdaa import cards
from zoo_sdaa.testing import Fake, Machine, fake_sdaa

pytest.importorskip("onnx")

FakeSdaa = Callable[..., Fake]


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    with fake_sdaa(tmp_path / "fake") as fake:
        yield fake


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "toy.onnx")


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """The toy model's tokenizer and config."""
    return write_toy_tokenizer(tmp_path / "toy")


Run = Callable[..., Result]


@pytest.fixture
def run(zoo: Zoo, words: Path, toy: Path) -> Run:
    """``zoo run`` of the panda demo with the toy model."""

    def call(*args: object, target: str = "sdaa", **kwargs: Any) -> Result:
        return zoo(
            "run", "zoo-reranker-tiny", "--ckpt", toy, "--config-path", words, "--target", target, "--shape", 64, *args, **kwargs
        )  # fmt: skip

    return call


def scores(result: Result) -> list[float]:
    assert result.exit_code == 0, result.stderr
    return [float(line.rsplit(":", 1)[1]) for line in result.stdout.splitlines()]


def fails(result: Result, *said: str) -> str:
    assert result.exit_code == 1, result.stdout
    assert "Traceback" not in result.stderr
    for word in said:
        assert word in result.stderr
    assert result.stdout == ""
    return result.stderr


def test_the_panda_demo_runs_in_half_precision_on_the_embedded_model(zoo: Zoo, tiny: Path, fake: Fake) -> None:
    ckpt = ("run", "zoo-reranker-tiny", "--ckpt", tiny / "model.onnx", "--shape", 128)
    result = zoo(*ckpt, "--batch-size", 2, "--half", "--target", "sdaa")
    exact = zoo(*ckpt, "--target", "cpu")
    lines = result.stdout.splitlines()
    assert [line.split("-相似度:")[0] for line in lines] == [repr([list(pair)]) for pair in PANDA]
    for half, single in zip(scores(result), scores(exact), strict=True):
        assert half == float(np.float16(half)) == ast.literal_eval(repr(half))
        assert 0 < abs(half - single) < 0.01 * max(1.0, abs(single))
    assert fake.events("build")[0]["half"]
    assert fake.events("build")[0]["shapes"] == {"input_ids": [1, 128], "attention_mask": [1, 128]}


def test_no_half_is_float32_and_says_what_it_is_for(run: Run, fake: Fake) -> None:
    result, exact = run("--no-half"), run(target="cpu")
    np.testing.assert_allclose(scores(result), scores(exact), rtol=1e-5)
    assert not fake.events("build")[0]["half"]
    assert "fp32 on 'sdaa'" in result.stderr


def test_sdaa_is_the_default_device_where_there_is_a_card(zoo: Zoo, words: Path, toy: Path, fake: Fake) -> None:
    result = zoo("run", "zoo-reranker-tiny", "--ckpt", toy, "--config-path", words, "--shape", 32)
    assert result.exit_code == 0
    assert "on sdaa in fp16" in result.stderr


def test_the_last_batch_is_filled_by_repeating_its_last_row_and_the_surplus_is_not_a_result(
    run: Run, fake: Fake
) -> None:
    pairs = "".join(f'["query {n}", "passage {n}"]\n' for n in range(11))
    result = run("--batch-size", 8, "--data-path", "-", input=pairs)
    assert len(scores(result)) == 11
    assert [(call["rows"], call["repeated"]) for call in fake.events("call")] == [(8, 0), (8, 5)]
    assert "11 pairs in" in result.stderr


def test_a_batch_size_that_is_no_multiple_of_the_spas_is_said(run: Run, fake: Fake) -> None:
    assert "batches of 4 rows (4 SPAs x 1), where --batch-size says 6" in run("--batch-size", 6).stderr


def test_the_scores_are_the_same_whatever_the_batch_and_the_number_of_spas(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for spas, batch_size in ((4, 4), (3, 9), (4, 64)):
        with fake_sdaa(tmp_path / f"fake-{spas}-{batch_size}", Machine(spas=spas)):
            monkeypatch.setenv("MAX_ENGINE_NUMS", str(spas))
            found.append(scores(run("--batch-size", batch_size)))
            monkeypatch.delenv("MAX_ENGINE_NUMS")
    assert found[0] == found[1] == found[2]


def test_the_device_time_of_the_runtimes_own_counter_is_told(run: Run, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(device_seconds=0.25)):
        assert "0.250 s of device time" in run("--batch-size", 4).stderr
    with fake_sdaa(tmp_path / "fake-2", Machine(device_seconds=0.25, generation=2)):
        assert "device time" not in run("--batch-size", 4).stderr


def test_valid_mode_runs_on_the_card_and_tells_its_device_time(run: Run, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(device_seconds=0.02)) as fake:
        result = run("--mode", "valid", "--limit", 2, "--batch-size", 16, "--half")
        calls = len(fake.events("call"))
    assert result.exit_code == 0, result.stderr
    summary, *_, metric = result.stdout.splitlines()
    assert metric.startswith("eval_metric: ")
    assert float(re.findall(r"avg_inference_time: ([\d.]+)", summary)[0]) == pytest.approx(0.02, rel=0.01)
    report = json.loads(next(Path("zoo-results").rglob("report.json")).read_text(encoding="utf-8"))
    timing = report["timing"]
    assert timing["vendor_samples_per_second"] * timing["e2e"] == pytest.approx(calls * 16)
    assert timing["pairs_per_second"] * timing["e2e"] == pytest.approx(timing["pairs"])
    assert timing["pairs"] < calls * 16


# The engine: compiled once, found again, saved, loaded.


def test_an_engine_is_compiled_once(run: Run, fake: Fake) -> None:
    first, second = run(), run()
    assert scores(first) == scores(second)
    assert len(fake.events("build")) == 1
    assert "compiled before" in second.stderr


@pytest.mark.parametrize("change", [("--no-half",), ("--shape", 32), ("--batch-size", 8), ("--pass-path", "passes.py")])
def test_an_engine_of_another_kind_is_compiled_anew(run: Run, fake: Fake, change: tuple[object, ...]) -> None:
    Path("passes.py").write_text("def use_passes(ir_module):\n    return ir_module\n")
    assert scores(run())
    assert scores(run(*change))
    assert len(fake.events("build")) == 2


def test_an_edited_model_is_compiled_anew(run: Run, toy: Path, fake: Fake) -> None:
    assert scores(run())
    import onnx

    model = onnx.load(str(toy))
    model.producer_name = "edited"
    onnx.save(model, str(toy))
    assert scores(run())
    assert len(fake.events("build")) == 2


def test_a_damaged_engine_is_compiled_anew(run: Run, tmp_path: Path, fake: Fake) -> None:
    before = scores(run())
    engine = next((tmp_path / "zoo-home" / "engines").rglob("*.tecoengine"))
    engine.write_bytes(engine.read_bytes()[:-100])
    result = run()
    assert scores(result) == before
    assert "is damaged and is compiled anew" in result.stderr
    assert len(fake.events("build")) == 2


def test_a_saved_engine_is_a_checkpoint(run: Run, zoo: Zoo, words: Path, fake: Fake) -> None:
    compiled = scores(run("--save-engine", "toy.tecoengine"))
    arguments = ("run", "zoo-reranker-tiny", "--ckpt", "toy.tecoengine", "--config-path", words, "--target", "sdaa")
    assert scores(zoo(*arguments, "--shape", 64)) == compiled
    assert len(fake.events("build")) == 1
    fails(zoo(*arguments, "--shape", 65), "was compiled for 64 tokens", "--shape 64 or less")
    fails(zoo(*arguments, "--shape", 64, "--no-half"), "was compiled in fp16, not fp32: use --half")
    Path("toy.tecoengine").write_bytes(b"FAKETECO" + b"0" * 50)
    fails(zoo(*arguments, "--shape", 64), "was cut short or exchanged")


def test_save_engine_alone_names_the_engine_by_model_and_shape(run: Run, fake: Fake) -> None:
    assert scores(run("--save_engine", "True"))
    assert Path("toy_1_64_fp16.tecoengine").is_file()
    assert scores(run("--save_engine", "False"))
    assert not Path("False").exists()


def test_a_foreign_engine_asks_for_its_inputs(run: Run, zoo: Zoo, words: Path, fake: Fake) -> None:
    compiled = scores(run("--save-engine", "toy.engine"))
    Path("toy.engine.json").unlink()
    arguments = (
        "run",
        "zoo-reranker-tiny",
        "--ckpt",
        "toy.engine",
        "--config-path",
        words,
        "--target",
        "sdaa",
        "--shape",
        64,
    )
    fails(zoo(*arguments), "--device-option inputs=input_ids,attention_mask")
    assert scores(zoo(*arguments, "--device-option", "inputs=input_ids,attention_mask")) == compiled


def test_generation_2_loads_engines_by_path(run: Run, zoo: Zoo, words: Path, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(generation=2)) as fake:
        compiled = scores(run("--save-engine", "toy.tecoengine"))
        assert scores(run()) == compiled
        assert {event["generation"] for event in fake.events("engine")} == {2}
        assert len(fake.events("build")) == 1
    with fake_sdaa(tmp_path / "older"):
        result = zoo("run", "zoo-reranker-tiny", "--ckpt", "toy.tecoengine", "--config-path", words, "--target", "sdaa")
    fails(result, "is of TecoInference's generation 2, and this is generation 1")


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


def test_by_default_the_vendors_passes_run_and_arguments_without_an_attribute_are_not_passed(
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
def test_a_pass_module_that_is_none_is_refused(run: Run, fake: Fake, content: str, said: str) -> None:
    Path("passes.py").write_text(content)
    fails(run("--pass-path", "passes.py"), "passes.py", said)


def test_what_the_compiler_prints_is_kept_out_of_the_results(toy: Path, words: Path, fake: Fake) -> None:
    command = [sys.executable, "-m", "zoo", "run", "zoo-reranker-tiny", "--ckpt", str(toy), "--config-path", str(words)]
    done = subprocess.run([*command, "--shape", "32"], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 2
    assert "fake TecoInference: building" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"half": True}, "computes in float16"),
        ({"rows": 1, "length": 32}, "is fixed to 32 tokens: use --shape 32 or less"),
    ],
)
def test_an_unfit_onnx_file_is_refused_before_compiling(
    run: Run, toy: Path, fake: Fake, options: dict[str, Any], said: str
) -> None:
    write_toy(toy, **options)
    fails(run(), said)
    assert not fake.events("build")


def test_weights_that_are_only_stored_in_half_precision_are_widened(run: Run, toy: Path, fake: Fake) -> None:
    write_toy(toy, small=True)
    np.testing.assert_allclose(scores(run("--no-half")), scores(run(target="cpu")), rtol=1e-5)
    assert scores(run())


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


# Faults: each an error that names what is wrong.


def test_without_the_runtime_the_target_is_one_clear_error(run: Run) -> None:
    fails(run(), "the device 'sdaa' is not available here", "'tvm' (TecoInference) is not installed", "container")


def test_tvm_without_a_card_is_no_device(run: Run, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "tvm.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    fails(run(), "'teco-smi' is not on the PATH, so no card can be seen")
    assert "Error" not in zoo("devices").stderr


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo driver not loaded >&2; exit 3", "failed with exit code 3: driver not loaded"),
        ("echo nothing to see", "lists no card that can be read"),
    ],
)
def test_a_teco_smi_that_fails_is_the_reason(zoo: Zoo, fake: Fake, tmp_path: Path, script: str, said: str) -> None:
    (tmp_path / "fake" / "bin" / "teco-smi").write_text(f"#!/bin/sh\n{script}\n")
    row = next(row for row in json.loads(zoo("devices", "--json").stdout) if row["name"] == "sdaa")
    assert not row["available"]
    assert said in row["reason"]


def test_a_teco_smi_that_hangs_does_not_hang_zoo(
    zoo: Zoo, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "SECONDS", 0.2)
    (tmp_path / "fake" / "bin" / "teco-smi").write_text("#!/bin/sh\nexec sleep 30\n")
    assert "did not answer within" in zoo("devices").stdout


def test_an_ill_card_is_not_used(run: Run, zoo: Zoo, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "one", Machine(health={"0": "FAULT"})):
        fails(run(), "no card is healthy (0:FAULT)")
    with fake_sdaa(tmp_path / "two", Machine(cards=2, health={"0": "FAULT"})):
        fails(run(), "sdaa:0 is not healthy", "--target sdaa:1")
        fails(run(target="sdaa:0"), "sdaa:0 is not healthy: teco-smi says 'FAULT'")
        assert len(scores(run(target="sdaa:1"))) == 2


LACKING = [
    ("tvm.relay.frontend.from_onnx", 1), ("tvm.relay.frontend.convert_float_to_float16", 1), ("tvm.relay.build", 1),
    ("tvm.relay.transform.FoldConstant", 1), ("tvm.target.Target", 1), ("tvm.transform.PassContext", 1),
    ("tvm.runtime.create_engine", 1), ("tvm.runtime.save_engine", 1), ("tvm.runtime.from_numpy", 1),
    ("tecoinference.Engine", 2), ("tecoinference.EngineOptions", 2), ("tvm.relay.build", 2),
]  # fmt: skip


@pytest.mark.parametrize(("name", "generation"), LACKING)
def test_a_version_that_lacks_an_attribute_is_named_with_it(
    run: Run, tmp_path: Path, name: str, generation: Any
) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(without=(name,), version="0.7.1", generation=generation)):
        fails(run(), f"has no '{name}'", "tvm 0.7.1")


@pytest.mark.parametrize(
    "name",
    [
        "Engine.create_context", "Context1.start_timing", "Context1.run_async", "Context1.get_infer_time", "Context1.release",
        "Context2.run_async",
    ],
)  # fmt: skip
def test_an_object_that_lacks_a_method_is_named_with_it(run: Run, tmp_path: Path, name: str) -> None:
    generation: Any = 2 if "2" in name else 1
    machine = Machine(without=(name,), version="0.7.1", generation=generation)
    with fake_sdaa(tmp_path / "fake", machine, leaks=name == "Context1.release"):
        fails(run(), f".{name.partition('.')[2]}'", "tvm 0.7.1")


def test_generation_2_without_a_release_is_let_go(run: Run, tmp_path: Path) -> None:
    machine = Machine(without=("Context2.release", "Engine2.release"), generation=2)
    with fake_sdaa(tmp_path / "fake", machine, leaks=True):
        assert len(scores(run())) == 2


def test_generation_2_without_save_engine_keeps_the_bytes(run: Run, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(without=("tvm.runtime.save_engine",), generation=2)) as fake:
        assert scores(run()) == scores(run())
        assert len(fake.events("build")) == 1


@pytest.mark.parametrize(
    "name", ["tvm.relay.frontend.from_onnx", "tvm.relay.build", "tvm.runtime.create_engine", "tvm.runtime.from_numpy"]
)
def test_a_changed_signature_is_named_with_its_version(run: Run, tmp_path: Path, name: str) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(changed=(name,), version="3.0")):
        fails(run(), f"{name}(*, something_new", "does not take the arguments known for it", "tvm 3.0")


def test_stock_tvm_is_told_apart(run: Run, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stock").mkdir()
    (tmp_path / "stock" / "tvm.py").write_text("__version__ = '0.27'\n")
    monkeypatch.syspath_prepend(str(tmp_path / "stock"))
    fails(run(), "this runtime (tvm 0.27) has no 'tvm.", "It is no TecoInference")


def test_a_runtime_that_does_not_import_is_an_error(
    run: Run, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tvm.py").write_text("raise OSError('libsdaart.so: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(str(tmp_path / "broken"))
    fails(run(), "'tvm' fails when it is imported", "libsdaart.so")


def test_a_failing_call_ends_the_run_and_releases_all(run: Run, tmp_path: Path) -> None:
    pairs = "".join(f'["query {n}", "passage {n}"]\n' for n in range(40))
    with fake_sdaa(tmp_path / "fake", Machine(fail_at=3)):
        result = run("--batch-size", 4, "--data-path", "-", input=pairs)
    assert result.exit_code == 1
    assert "Error: sdaa failed: future.get failed (tvm 0.9.0): RuntimeError: sdaa: error 700 in call 3" in result.stderr


def test_a_card_that_never_answers_is_an_error_and_not_a_hang(run: Run, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(lose=0, lose_how="hang"), leaks=True):
        fails(run("--device-option", "timeout=0.3"), "sdaa is lost", "0.3 s", "teco-smi")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--device-option", "spa=x"), "spa=x"),
        (("--device-option", "timeout=-1"), "timeout=-1"),
        (("--device-option", "generation=3"), "auto, 1, 2"),
        (("--device-option", "run=async", "--device-option", "spa=1"), "exclude each other"),
        (("--device-option", "spa=9"), "there is no SPA 9"),
        (("--device-option", "pass-pth=x"), "Did you mean 'pass_path'?"),
        (("--pass-path", "nowhere.py"), "nowhere.py"),
        (("--card-id", "x"), "names no cards"),
        (("--card-id", "0,0"), "names a card twice"),
        (("--card-id", "7"), "there is no card sdaa:7"),
    ],
)
def test_a_wrong_option_is_an_error_that_names_it(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    with fake_sdaa(tmp_path / "fake", broken="spa=9" in arguments):
        fails(run(*arguments), said)


def test_a_wrong_number_of_spas_is_an_error(run: Run, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_ENGINE_NUMS", "four")
    fails(run(), "MAX_ENGINE_NUMS is 'four'")


def test_ctrl_c_releases_the_card(toy: Path, words: Path, tmp_path: Path) -> None:
    for target in ("sdaa", "sdaa:0"):
        with fake_sdaa(tmp_path / f"fake-{len(target)}", Machine(device_seconds=0.2)) as fake:
            process = start(toy, words, target)
            feed(process, 400)
            wait_for(lambda fake=fake: len(fake.events("call")) >= 2)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
            assert process.returncode == 130, err
            assert b"Interrupted" in err
            assert len(fake.events("call")) < 100


def start(toy: Path, words: Path, target: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "zoo",
        "run",
        "zoo-reranker-tiny",
        "--ckpt",
        toy,
        "--config-path",
        words,
        "--target",
        target,
    ]
    return subprocess.Popen(
        [*map(str, command), "--shape", "32", "--batch-size", "4", "--data-path", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def feed(process: subprocess.Popen[bytes], pairs: int) -> None:
    assert process.stdin
    process.stdin.write(b"".join(b'["query %d", "passage"]\n' % n for n in range(pairs)))
    process.stdin.close()
    process.stdin = None


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Poll for what another process does."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        pause.wait(0.05)
    raise AssertionError("it did not happen in time")


# Several cards.


def test_four_cards_share_the_work_and_give_one_cards_scores_in_order(run: Run, tmp_path: Path) -> None:
    pairs = "".join(f'["query {n}", "{"passage " * (n % 7 + 1)}{n}"]\n' for n in range(60))
    arguments = ("--batch-size", 4, "--data-path", "-")
    with fake_sdaa(tmp_path / "one"):
        alone = run(*arguments, input=pairs)
    for target in ("sdaa:all", "sdaa:0,1,2,3"):
        with fake_sdaa(tmp_path / target[5:], Machine(cards=4, device_seconds=0.05)) as fake:
            together = run(*arguments, target=target, input=pairs)
            assert scores(together) == scores(alone)
            assert {call["card"] for call in fake.events("call")} == set(range(4))
            assert len({engine["pid"] for engine in fake.events("engine")} | {os.getpid()}) == 5
    assert together.stdout == alone.stdout


@pytest.mark.parametrize("rows", ["spa", "card"])
def test_a_target_picks_a_card_in_both_layouts_of_teco_smi(run: Run, tmp_path: Path, rows: Any) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(cards=3, rows=rows)) as fake:
        assert len(scores(run(target="sdaa:1"))) == 2
        assert len(scores(run("--card-id", 2))) == 2
        assert [call["card"] for call in fake.events("call")] == [1, 2]
        fails(run("--card-id", 0, target="sdaa:1"), "name different cards")


def test_a_card_of_three_spas_is_used_whole(run: Run, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(cards=2, spas=3)) as fake:
        assert len(scores(run("--batch-size", 6, target="sdaa:1"))) == 2
        assert fake.events("call")[0]["rows"] == 6


@pytest.mark.parametrize(
    ("how", "said"), [("error", "error 719, the device is lost"), ("exit", "its process ended (killed by signal 9)")]
)
def test_a_card_that_dies_in_the_middle_is_named_and_the_others_are_released(
    run: Run, tmp_path: Path, how: Any, said: str
) -> None:
    pairs = "".join(f'["query {n}", "passage"]\n' for n in range(100))
    machine = Machine(cards=4, lose=2, lose_at=2, lose_how=how)
    with fake_sdaa(tmp_path / "fake", machine, leaks=True) as fake:
        result = run("--batch-size", 4, "--data-path", "-", target="sdaa:all", input=pairs)
        assert result.exit_code == 1
        assert "Error: sdaa:2 " in result.stderr
        assert said in result.stderr
        assert len(fake.leaks()) == (0 if how == "error" else 2)


def test_a_card_that_hangs_among_several_is_named(run: Run, tmp_path: Path) -> None:
    machine = Machine(cards=2, lose=1, lose_how="hang")
    pairs = "".join(f'["query {n}", "passage"]\n' for n in range(40))
    with fake_sdaa(tmp_path / "fake", machine, leaks=True):
        result = run(
            "--batch-size", 4, "--data-path", "-", "--device-option", "timeout=1", target="sdaa:0,1", input=pairs
        )
    assert result.exit_code == 1
    assert "Error: sdaa:1 is lost: a batch has not come back for 1 s" in result.stderr


def test_a_choice_of_cards_and_sdaa_visible_devices_exclude_each_other(
    run: Run, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDAA_VISIBLE_DEVICES", "0,1,2,3")
    fails(run(target="sdaa:0"), "SDAA_VISIBLE_DEVICES", "not by both")
    assert len(scores(run())) == 2


def test_a_cards_fault_when_opening_is_named(run: Run, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(cards=2, without=("tvm.relay.build",))):
        fails(run(target="sdaa:1"), "sdaa:1: this runtime", "has no 'tvm.relay.build'")


# What zoo devices and teco-smi tell.


def test_zoo_devices_tells_cards_health_memory_and_versions(zoo: Zoo, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(cards=2, health={"1": "ERR"})):
        result = zoo("devices", "--json")
    row = next(row for row in json.loads(result.stdout) if row["name"] == "sdaa")
    assert row["available"]
    assert row["precisions"] == ["fp16"]
    assert row["details"] == {
        "cards": "2",
        "health": "0:OK 1:ERR",
        "memory": "0MB of 15296MB in use",
        "driver": "3.2.0",
        "runtime": "3.2.0",
        "generation": "1 (tvm)",
        "MAX_ENGINE_NUMS": "4",
    }


def test_probing_does_not_import_the_runtime(zoo: Zoo, fake: Fake) -> None:
    assert zoo("devices").exit_code == 0
    assert "tvm" not in sys.modules


def test_zoo_doctor_shows_the_device(zoo: Zoo, fake: Fake) -> None:
    assert "sdaa" in zoo("doctor", "--offline").stdout


OLDER = """
Wed Jun  5 02:46:48 2024
+-----------------------------------------------------------------------------+
|  TCML: 1.10.0        SDAADriver: 1.1.2b1        SDAARuntime: 1.1.2b0        |
|-------------------------------+----------------------+----------------------|
| Index  Name                   | Bus-Id               | Health      Volatile |
|        Temp          Pwr Usage|          Memory-Usage|             SPE-Util |
|=============================================================================|
|   0    TECO_AICARD_01         | 00000000:01:00.0     | OK                   |
|        35C                90W |        0MB / 15296MB |                   0% |
|-------------------------------+----------------------+----------------------|
|   1    TECO_AICARD_01         | 00000000:01:00.0     | OK                   |
|        35C                90W |      165MB / 15296MB |                   0% |
|-------------------------------+----------------------+----------------------|
|   2    TECO_AICARD_01         | 00000000:02:00.0     | N/A                  |
|        41C               110W |      100MB / 15296MB |                  N/A |
+-------------------------------+----------------------+----------------------+
| Processes:                                                                  |
|  Device       PID      Process name                            Memory Usage |
|     0      2345        python                                       165 MB  |
"""


def test_the_published_output_of_an_older_teco_smi_is_read() -> None:
    listing = cards.parse(OLDER)
    assert listing.versions == {"driver": "1.1.2b1", "runtime": "1.1.2b0"}
    assert [(card.number, card.devices, card.health) for card in listing.cards] == [(0, "0,1", "OK"), (1, "2", "N/A")]
    assert [row.memory for row in listing.cards[0].rows] == ["0MB of 15296MB", "165MB of 15296MB"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("no devices were found", []),
        ("2026-11-23 04:00:00", []),
        ("Card 0: T1 Health: OK memory 0MB / 15296MB\nCard 1: T1 Health: Fault", [(0, "OK"), (1, "Fault")]),
        ("0 TECO_AICARD_01 OK\n1 TECO_AICARD_01 OK", [(0, "OK"), (1, "OK")]),
        ("| 0 | TECO | 00000000:01:00.0 | OK | 35C | 0MB / 15296MB |", [(0, "OK")]),
        ("| 0 | TECO | 00000000:01:00.0 |", [(0, "unknown")]),
    ],
)
def test_other_forms_of_the_list_are_read_by_what_they_contain(text: str, expected: list[tuple[int, str]]) -> None:
    assert [(card.number, card.health) for card in cards.parse(text).cards] == expected
