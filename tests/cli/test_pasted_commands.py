"""Commands of Tecorigin's pages, pasted with ``zoo`` in the place of ``python example_*.py``."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from conftest import PANDA
from sdaa_fixtures import Command, Ran, fails, scores
from zoo.cli.run import command as run_command
from zoo.cli.tecorigin import without_truth_values
from zoo.paths import bundled
from zoo.registry.catalogue import Catalogue, PluginRecord
from zoo.registry.markers import hookimpl
from zoo.testing.toy import write_toy, write_toy_tokenizer
from zoo_sdaa.testing import Fake, fake_sdaa

pytest.importorskip("onnx")

V2_M3_SINGLE = """
    python example_single_batch.py --model_name bge-reranker-v2-m3 \\
        --ckpt bge-reranker-v2-m3_dyn_fp32.onnx \\
        --config-path BAAI/bge-reranker-v2-m3 \\
        --data-path datas/bge-reranker-large_demo.txt \\
        --batch-size 2 \\
        --shape 512 --half --target sdaa
"""
V2_M3_VALID = (
    "python example_valid.py --model_name bge-reranker-v2-m3 --ckpt bge-reranker-v2-m3_dyn_fp32.onnx "
    "--config-path BAAI/bge-reranker-v2-m3 --data-path mldr/data --half --batch-size 128 --target sdaa"
)
LARGE_SINGLE = """
    python example_single_batch.py \\
        --ckpt bge-reranker-large.onnx \\
        --config-path path_to/config \\
        --data-path datas/bge-reranker-large_demo.txt \\
        --model_name bge-reranker-large \\
        --batch-size 2 \\
        --shape 512 \\
        --half \\
        --target sdaa
"""
LARGE_VALID = """
    python example_valid.py \\
        --ckpt bge-reranker-large.onnx \\
        --config-path path_to/config \\
        --onnx-datas path_to/datas \\
        --data-path path_to/mrpc.jsonl \\
        --model_name bge-reranker-large \\
        --batch-size 4 \\
        --shape 512 \\
        --half \\
        --target sdaa
"""
SIMPLIFY = (
    "python simplify.py --onnx onnx_fles/bge-reranker-v2-m3/model.onnx --save_name bge-reranker-v2-m3_dyn_fp32.onnx "
    "--save_as_external_data True"
)
LARGE_SIMPLIFY = """
    python simplify.py --onnx ./bge-reranker-large/model.onnx --save_name bge-reranker-large.onnx \\
        --save_as_external_data True
"""
PROGRAMS = {
    "example_single_batch.py": "run",
    "example_valid.py": "run",
    "simplify.py": "simplify",
}


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterable[Fake]:
    """The files that the pages name, in the working folder, and a card."""
    for folder in ("BAAI/bge-reranker-v2-m3", "path_to/config"):
        write_toy_tokenizer(Path(folder))
    for name in ("bge-reranker-v2-m3_dyn_fp32.onnx", "bge-reranker-large.onnx"):
        write_toy(Path(name))
    Path("datas").mkdir()
    Path("path_to/datas/bge-reranker-large").mkdir(parents=True)
    shutil.copy(bundled("datas") / "bge-reranker-large_demo.txt", "datas")
    shutil.copytree(bundled("datas") / "mldr-mini", "mldr")
    shutil.rmtree("mldr/data/zh")
    first_stage = Path("mldr/en-test.json")
    first_stage.write_text(first_stage.read_text(encoding="utf-8").replace("mldr-mini", "mldr"), encoding="utf-8")
    rows = [{"sentence1": query, "sentence2": passage, "label": 1} for query, passage in PANDA * 3]
    Path("path_to/mrpc.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    _install_card("bge-reranker-large", tmp_path / "cards", monkeypatch)
    with fake_sdaa(tmp_path / "fake") as fake:
        yield fake


def _install_card(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that an outside plugin would bring, unless it is there already."""
    installed = Catalogue.installed()
    if name in installed.models:
        return
    folder.mkdir()
    text = (bundled("models") / "bge-reranker-v2-m3.toml").read_text(encoding="utf-8")
    (folder / f"{name}.toml").write_text(text.partition("[[reference]]")[0], encoding="utf-8")

    class Cards:
        @hookimpl
        def zoo_models(self) -> Iterable[Path]:
            return [folder]

    plugins = [*installed.plugins, PluginRecord("cards", plugin=Cards())]
    monkeypatch.setattr(Catalogue, "installed", lambda: Catalogue(plugins))


def paste(command: Command, line: str, *more: str) -> Ran:
    python, program, *words = shlex.split(line.replace("\\\n", " "))
    assert python == "python"
    return command(PROGRAMS[program], *words, *more)


@pytest.mark.parametrize("page", [V2_M3_SINGLE, LARGE_SINGLE], ids=["bge-reranker-v2-m3", "bge-reranker-large"])
def test_the_single_command_of_a_page_scores_its_demo(command: Command, pages: Fake, page: str) -> None:
    result = paste(command, page)
    assert len(scores(result)) == 2
    assert [line.split("-相似度:")[0] for line in result.stdout.splitlines()] == [repr([list(pair)]) for pair in PANDA]
    [build] = pages.events("build")
    assert build["half"]
    assert build["shapes"]["input_ids"] == [1, 512]


def test_the_valid_command_of_the_page_evaluates_the_data_set(command: Command, pages: Fake) -> None:
    result = paste(command, V2_M3_VALID, "--limit", "1")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("summary: avg_sps: ")
    assert lines[1] == "mldr evaluation on ['en'] completed."
    assert lines[-1].startswith("eval_metric: ")
    assert pages.events("build")[0]["shapes"]["input_ids"] == [32, 512]


def test_the_valid_command_of_bge_reranker_large_gives_the_error_against_the_pages_scores(
    command: Command, pages: Fake
) -> None:
    exact = np.array(scores(paste(command, LARGE_VALID.replace("--half", "").replace("sdaa", "cpu"))))
    # The page's file has a row for each pair of the whole data set, and is cut to those that are scored.
    np.save("path_to/datas/bge-reranker-large/bge-reranker-large_bs4_onnx.npy", np.append(exact, 7.0)[:, None])
    result = paste(command, LARGE_VALID, "--file-type", "json")
    half = np.array(scores(result))
    [told] = re.findall(
        r"eval_metric: (\S+), the error of 6 scores against path_to/datas/bge-reranker-large", result.stderr
    )
    assert float(told) == pytest.approx(np.sqrt(((half - exact) ** 2).sum() / (exact**2).sum()), rel=1e-6)
    assert 0 < float(told) < 0.01
    assert [build["shapes"]["input_ids"] for build in pages.events("build")] == [[1, 512]]


def test_expected_scores_that_are_missing_too_few_or_damaged_are_told(command: Command, pages: Fake) -> None:
    line = LARGE_VALID.replace("512", "32")
    result = paste(command, line)
    assert len(scores(result)) == 6
    assert "there is no path_to/datas/bge-reranker-large/bge-reranker-large_bs4_onnx.npy" in result.stderr
    assert "zoo verify MODEL --data-path FILE" in result.stderr
    kept = Path("path_to/datas/bge-reranker-large/bge-reranker-large_bs8_onnx.npy")
    np.save(kept, np.ones(2, dtype=np.float32))
    result = paste(command, line)
    assert len(scores(result)) == 6
    assert f"eval_metric is not computed: {kept} has 2 scores, and the input has 6 pairs" in result.stderr
    kept.write_bytes(b"no scores")
    fails(paste(command, line), f"{kept} cannot be read as a NumPy file of scores")
    result = paste(
        command, V2_M3_VALID.replace("128", "4"), "--limit", "1", "--shape", "32", "--onnx-datas", "path_to/datas"
    )
    assert result.exit_code == 0, result.stderr
    assert "--onnx-datas is not read with --mode valid" in result.stderr


@pytest.mark.parametrize(
    ("page", "source", "written"),
    [
        (SIMPLIFY, "onnx_fles/bge-reranker-v2-m3/model.onnx", "bge-reranker-v2-m3_dyn_fp32.onnx"),
        (LARGE_SIMPLIFY, "bge-reranker-large/model.onnx", "bge-reranker-large.onnx"),
    ],
    ids=["bge-reranker-v2-m3", "bge-reranker-large"],
)
def test_the_simplify_command_of_a_page_writes_its_file(command: Command, page: str, source: str, written: str) -> None:
    pytest.importorskip("onnxsim")
    Path(source).parent.mkdir(parents=True)
    write_toy(Path(source))
    result = paste(command, page)
    assert result.exit_code == 0, result.stderr
    assert Path(written).is_file()
    assert Path(f"{written}.data").is_file()


@pytest.mark.parametrize(
    ("words", "half"),
    [
        (("--half", "True"), True),
        (("--half", "False"), False),
        (("--half=true",), True),
        (("--need_fp16", "True"), True),
        (("--need-fp16",), True),
    ],
)
def test_truth_values_and_need_fp16_mean_what_they_say(
    command: Command, pages: Fake, words: tuple[str, ...], half: bool
) -> None:
    line = V2_M3_SINGLE.replace("--half ", "").replace("--shape 512", "--shape 32")
    assert len(scores(paste(command, line, *words))) == 2
    assert [build["half"] for build in pages.events("build")] == [half]


def test_a_model_may_stand_in_both_places_if_it_is_the_same(command: Command, pages: Fake) -> None:
    line = V2_M3_SINGLE.replace("--shape 512", "--shape 32")
    assert len(scores(paste(command, line, "bge-reranker-v2-m3"))) == 2
    for words, said in ((("bge-reranker-large",), "name one model"), ((), "Missing argument 'MODEL'")):
        wrong = command("run", *words, *(("--model-name", "bge-reranker-v2-m3") if words else ()))
        assert wrong.exit_code == 2
        assert said in wrong.stderr


def test_what_simplify_does_not_do_is_refused_in_words(command: Command) -> None:
    result = command("simplify", "--onnx", "bge-reranker-large.onnx", "--save_name", "x.onnx", "--need-fp16", "True")
    assert result.exit_code == 2
    assert "SDAA's compiler makes float16 of the float32 file" in result.stderr
    result = command("simplify", "--save_name", "x.onnx")
    assert result.exit_code == 2
    assert "Missing argument 'FILE.onnx'" in result.stderr


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["--half", "True", "m"], ["--half", "m"]),
        (["m", "--half"], ["m", "--half"]),
        (["--half", "m"], ["--half", "m"]),
        (["--normalize", "False", "m"], ["m"]),
        (["--half", "--normalize", "1"], ["--half", "--normalize"]),
        (["--data-path", "True"], ["--data-path", "True"]),
        (["--half=maybe"], ["--half=maybe"]),
        (["--half", "--", "True"], ["--half", "--", "True"]),
    ],
)
def test_a_truth_value_belongs_to_the_flag_before_it(given: list[str], read: list[str]) -> None:
    assert list(without_truth_values(given, run_command.params)) == read
