"""What can be wrong with SDAA's runtime, its cards and its options: each an error that names it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Zoo
from sdaa_fixtures import Run, fails, lines, scores
from zoo_sdaa import cards
from zoo_sdaa.testing import Fake, Machine, fake_sdaa

pytest.importorskip("onnx")


Stub = Callable[[str, str], None]


@pytest.fixture
def stub(fake: Fake, tmp_path: Path) -> Iterator[Stub]:
    """``stub("tvm", "raise OSError")``: a module that is found before the fake's."""

    def write(name: str, content: str) -> None:
        folder = tmp_path / "stubs"
        folder.mkdir()
        (folder / f"{name}.py").write_text(content)
        patch.syspath_prepend(str(folder))

    # One of its own, undone before the fake's: the test's would put the fake's path back when the fake is gone.
    with pytest.MonkeyPatch.context() as patch:
        yield write


def test_without_the_runtime_the_target_is_one_clear_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDA_DEFAULT_ENV", "base")
    fails(
        run(),
        "the device 'sdaa' is not available here",
        "'tvm' (TecoInference) is not installed",
        "container",
        "tvm-build_py310",
        "in the active conda environment 'base'",
    )


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
    "name", ["Engine.create_context", "Context1.run_async", "Context1.release", "Context2.run_async"]
)
def test_an_object_that_lacks_a_method_is_named_with_it(run: Run, tmp_path: Path, name: str) -> None:
    generation: Any = 2 if "2" in name else 1
    machine = Machine(without=(name,), version="0.7.1", generation=generation)
    with fake_sdaa(tmp_path / "fake", machine, leaks=name == "Context1.release"):
        fails(run(), f".{name.partition('.')[2]}'", "0.7.1")


def test_generation_2_without_a_release_is_let_go(run: Run, tmp_path: Path) -> None:
    machine = Machine(without=("Context2.release", "Engine2.release"), generation=2)
    with fake_sdaa(tmp_path / "fake", machine, leaks=True):
        assert len(scores(run())) == 2


def test_generation_2_without_save_engine_keeps_the_bytes(run: Run, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(without=("tvm.runtime.save_engine",), generation=2)) as fake:
        assert scores(run()) == scores(run())
        assert len(fake.events("build")) == 1


@pytest.mark.parametrize(
    ("machine", "older", "option", "used"),
    [
        (Machine(), "", "auto", 1),
        (Machine(generation=2, both=True), "", "auto", 2),
        (Machine(generation=2, both=True), "TRUE", "auto", 1),
        (Machine(generation=2, both=True), "0", "auto", 2),
        (Machine(generation=2, both=True), "1", "2", 2),
        (Machine(generation=2, both=True), "", "1", 1),
        (Machine(generation=2, tvm=False), "1", "auto", 2),
    ],
)
def test_generation_2_is_used_unless_tecorigins_switch_or_the_user_says_otherwise(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: Machine, older: str, option: str, used: int
) -> None:
    with fake_sdaa(tmp_path / "fake", machine) as fake:
        if older:
            monkeypatch.setenv("TECO_INFER_TVM_RUN", older)
        if machine.tvm:
            assert len(scores(run("--device-option", f"generation={option}"))) == 2
            assert [event["generation"] for event in fake.events("engine")] == [used]
        else:
            fails(run("--device-option", f"generation={option}"), "needs the Python module 'tvm'")


def test_generation_1_is_used_if_generation_2_does_not_import(run: Run, stub: Stub) -> None:
    stub("tecoinference", "raise OSError('libteco.so: cannot open shared object file')\n")
    result = run()
    assert len(scores(result)) == 2
    assert "generation 2 of TecoInference is not used" in result.stderr
    assert "libteco.so" in result.stderr
    fails(run("--device-option", "generation=2"), "'tecoinference' fails when it is imported")


@pytest.mark.parametrize(
    "name", ["tvm.relay.frontend.from_onnx", "tvm.relay.build", "tvm.runtime.create_engine", "tvm.runtime.from_numpy"]
)
def test_a_changed_signature_is_named_with_its_version(run: Run, tmp_path: Path, name: str) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(changed=(name,), version="3.0")):
        fails(run(), f"{name}(*, something_new", "does not take the arguments known for it", "tvm 3.0")


def test_stock_tvm_is_told_apart(run: Run, stub: Stub) -> None:
    stub("tvm", "__version__ = '0.27'\n")
    fails(run(), "this runtime (tvm 0.27) has no 'tvm.", "It is not TecoInference")


def test_a_runtime_that_does_not_import_is_an_error(run: Run, stub: Stub) -> None:
    stub("tvm", "raise OSError('libsdaart.so: cannot open shared object file')\n")
    fails(run(), "'tvm' fails when it is imported", "libsdaart.so")


def test_a_failing_call_ends_the_run_and_releases_all(run: Run, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(fail_at=3)):
        result = run("--batch-size", 4, "--data-path", "-", input=lines(40))
    assert result.exit_code == 1
    assert (
        "Error: sdaa:0 failed: future.get failed (tvm 0.9.0): RuntimeError: sdaa: error 700 in call 3" in result.stderr
    )


def test_a_card_that_never_answers_is_an_error_and_not_a_hang(run: Run, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(lose=0, lose_how="hang"), leaks=True):
        started = time.monotonic()
        fails(
            run("--device-option", "timeout=1"), "sdaa:0 (process ", "has not answered for 1 s", "teco-smi", "timeout"
        )
    assert time.monotonic() - started < 20


def test_a_runtime_that_crashes_is_an_error_that_names_the_card(run: Run, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(lose=0, lose_how="segfault"), leaks=True):
        assert "timeout" not in fails(run(), "sdaa:0 (process ", "has died: it was ended by SIGSEGV", "teco-smi")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--device-option", "spa=x"), "spa=x"),
        (("--device-option", "timeout=-1"), "timeout=-1"),
        (("--device-option", "generation=3"), "auto, 1, 2"),
        (("--device-option", "run=async", "--device-option", "spa=1"), "exclude each other"),
        (("--device-option", "spa=9"), "the device option spa is 9, and sdaa:0 has 4 SPAs"),
        (("--device-option", "pass-pth=x"), "Did you mean 'pass_path'?"),
        (("--pass-path", "nowhere.py"), "nowhere.py"),
        (("--card-id", "x"), "does not name cards"),
        (("--card-id", "0,0"), "names a card twice"),
        (("--card-id", "7"), "there is no card sdaa:7"),
    ],
)
def test_a_wrong_option_is_an_error_that_names_it(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    with fake_sdaa(tmp_path / "fake") as fake:
        fails(run(*arguments), said)
        assert not fake.events("build")


def test_a_wrong_number_of_spas_is_an_error(run: Run, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_ENGINE_NUMS", "four")
    fails(run(), "MAX_ENGINE_NUMS is 'four'")
