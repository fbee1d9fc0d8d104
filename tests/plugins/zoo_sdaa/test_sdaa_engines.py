"""SDAA's engines: compiled once, found again, saved, loaded, and never thrown away while they are good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdaa_fixtures import Command, Run, fails, scores
from zoo.errors import ZooError
from zoo_sdaa.engine_cache import EngineInfo, read_engine, write_engine
from zoo_sdaa.testing import Fake, Machine, fake_sdaa

pytest.importorskip("onnx")


def test_an_engine_is_compiled_once(run: Run, fake: Fake) -> None:
    first, second = run(), run()
    assert scores(first) == scores(second)
    assert len(fake.events("build")) == 1
    assert "compiled before" in second.stderr


@pytest.mark.parametrize(
    "change",
    [("--no-half",), ("--shape", 32), ("--batch-size", 8), ("--pass-path", "passes.py"), ("--pass-path", "mixed")],
)
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


@pytest.mark.parametrize("generation", [1, 2])
def test_an_engine_that_a_card_cannot_load_is_kept_and_the_card_is_named(
    run: Run, tmp_path: Path, generation: Any
) -> None:
    with fake_sdaa(tmp_path / "first", Machine(cards=2, generation=generation)) as fake:
        before = scores(run())
    engine = next((tmp_path / "zoo-home" / "engines").rglob("*.tecoengine"))
    content = engine.read_bytes()
    with fake_sdaa(tmp_path / "busy", Machine(cards=2, generation=generation, busy=(1,))) as fake:
        fails(run(target="sdaa:1"), "sdaa:1: the card does not take the engine", "out of memory", "teco-smi")
        assert not fake.events("build")
    assert engine.read_bytes() == content
    with fake_sdaa(tmp_path / "again", Machine(cards=2, generation=generation)) as fake:
        assert scores(run(target="sdaa:1")) == before
        assert not fake.events("build")


def test_an_engine_that_its_own_card_cannot_load_after_compiling_is_kept(run: Run, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "busy", Machine(busy=(0,))) as fake:
        fails(run(), "sdaa:0: the card does not take the engine", "The compiled engine is kept")
        assert len(fake.events("build")) == 1
    with fake_sdaa(tmp_path / "free") as fake:
        assert len(scores(run())) == 2
        assert not fake.events("build")


def test_a_saved_engine_is_a_checkpoint(run: Run, command: Command, words: Path, fake: Fake) -> None:
    compiled = scores(run("--save-engine", "toy.tecoengine"))
    arguments = ("run", "zoo-reranker-tiny", "--ckpt", "toy.tecoengine", "--config-path", words, "--target", "sdaa")
    assert scores(command(*arguments, "--shape", 64)) == compiled
    assert len(fake.events("build")) == 1
    fails(command(*arguments, "--shape", 65), "was compiled for 64 tokens", "give --shape 64 or less")
    fails(command(*arguments, "--shape", 64, "--no-half"), "was compiled in fp16, not fp32: give --precision fp16")
    Path("toy.tecoengine").write_bytes(b"FAKETECO" + b"0" * 50)
    fails(command(*arguments, "--shape", 64), "was cut short or exchanged")


def test_save_engine_alone_names_the_engine_by_model_and_shape(run: Run, fake: Fake) -> None:
    assert scores(run("--save_engine", "True"))
    assert Path("toy_1_64_fp16.tecoengine").is_file()
    assert scores(run("--save_engine", "False"))
    assert not Path("False").exists()


def test_a_foreign_engine_asks_for_its_inputs(run: Run, fake: Fake) -> None:
    compiled = scores(run("--save-engine", "toy.engine"))
    Path("toy.engine.json").unlink()
    fails(run(ckpt="toy.engine"), "the device option inputs", "inputs=input_ids,attention_mask")
    assert scores(run("--device-option", "inputs=input_ids,attention_mask", ckpt="toy.engine")) == compiled


def test_generation_2_loads_engines_by_path(run: Run, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(generation=2)) as fake:
        compiled = scores(run("--save-engine", "toy.tecoengine"))
        assert scores(run()) == compiled
        assert {event["generation"] for event in fake.events("engine")} == {2}
        assert len(fake.events("build")) == 1
    with fake_sdaa(tmp_path / "older"):
        fails(run(ckpt="toy.tecoengine"), "is of TecoInference's generation 2, and this is generation 1")


def test_generation_2_alone_runs_engines_and_says_what_compiling_needs(run: Run, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "compiles", Machine(generation=2)):
        compiled = scores(run("--save-engine", "toy.tecoengine", "--batch-size", 8))
    with fake_sdaa(tmp_path / "runs", Machine(generation=2, tvm=False)) as fake:
        assert scores(run(ckpt="toy.tecoengine")) == compiled
        fails(run("--shape", 32), "needs the Python module 'tvm'", "tvm-build_py310")
        assert not fake.events("build")


INFO = EngineInfo(
    shapes={"input_ids": [1, 8]}, outputs=["logits"], precision="fp16", generation=1, runtime="tvm 1", model="0", passes="default"
)  # fmt: skip


def test_the_runtime_saves_under_the_engines_own_name(tmp_path: Path) -> None:
    place = tmp_path / "engines" / "x.tecoengine"
    names = []

    def save(path: Path) -> None:
        names.append(path.name)
        path.write_bytes(b"an engine")

    write_engine(save, place, INFO)
    assert names == ["x.tecoengine"]
    assert read_engine(place).info == INFO
    assert sorted(path.name for path in place.parent.iterdir()) == ["x.tecoengine", "x.tecoengine.json"]


def test_a_runtime_that_saves_nothing_leaves_the_engine_that_is_there(tmp_path: Path) -> None:
    place = tmp_path / "engines" / "x.tecoengine"
    write_engine(lambda path: path.write_bytes(b"an engine") and None, place, INFO)
    with pytest.raises(ZooError, match="cannot write the engine"):
        write_engine(lambda path: None, place, INFO)
    assert read_engine(place).info == INFO
    assert len(list(place.parent.iterdir())) == 2
