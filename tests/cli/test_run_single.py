"""``zoo run --mode single`` as a user sees it."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path

import pytest

from conftest import PANDA, Zoo

pytestmark = [pytest.mark.lowest, pytest.mark.any_device]

MODEL = "zoo-reranker-tiny"

FORMS = {
    "tecorigin.txt": [repr([list(pair)]) for pair in PANDA],
    "bare.txt": [repr(list(pair)) for pair in PANDA],
    "arrays.jsonl": [json.dumps(pair) for pair in PANDA],
    "objects.jsonl": [json.dumps({"query": query, "passage": passage, "id": 7}) for query, passage in PANDA],
    "table.tsv": ["\t".join(pair) for pair in PANDA],
}


def scores(stdout: str) -> list[float]:
    return [ast.literal_eval(line.split("-相似度:")[1]) for line in stdout.splitlines()]


def objects(stdout: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in stdout.splitlines()]


def test_the_panda_demo_is_printed_in_tecorigins_form(zoo: Zoo) -> None:
    result = zoo("run", MODEL, "--mode", "single")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split("-相似度:")[0] for line in lines] == [repr([list(pair)]) for pair in PANDA]
    for line in lines:
        score = line.split("-相似度:")[1]
        assert score == repr(float(score))


def test_the_panda_sentence_scores_above_hi(zoo: Zoo) -> None:
    hi, sentence = scores(zoo("run", MODEL).stdout)
    assert sentence > hi


def test_json_gives_an_object_a_pair_with_logit_and_sigmoid(zoo: Zoo) -> None:
    result = zoo("run", MODEL, "--json")
    printed = objects(result.stdout)
    assert [(o["query"], o["passage"]) for o in printed] == PANDA
    for o in printed:
        assert list(o) == ["query", "passage", "logit", "score"]
        assert isinstance(o["logit"], float)
        assert o["score"] == pytest.approx(1 / (1 + math.exp(-o["logit"])), abs=1e-12)


@pytest.mark.parametrize("name", FORMS)
def test_every_written_form_of_a_pair_is_read_alike(zoo: Zoo, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("\n".join(FORMS[name]) + "\n\n", encoding="utf-8")
    assert zoo("run", MODEL, "--data-path", path).stdout == zoo("run", MODEL).stdout


def test_pairs_come_from_stdin(zoo: Zoo) -> None:
    text = "\n".join(FORMS["arrays.jsonl"])
    assert zoo("run", MODEL, "--data-path", "-", input=text).stdout == zoo("run", MODEL).stdout


def test_a_line_of_several_pairs_gives_one_line_of_several_scores(zoo: Zoo) -> None:
    line = repr([list(pair) for pair in PANDA])
    result = zoo("run", MODEL, "--data-path", "-", input=line + "\n" + line)
    assert result.stdout.startswith(line + "-相似度:[")
    assert scores(result.stdout) == [pytest.approx(scores(zoo("run", MODEL).stdout), abs=1e-5)] * 2


def test_windows_line_ends_and_a_byte_order_mark_are_no_part_of_the_text(zoo: Zoo) -> None:
    result = zoo("run", MODEL, "--data-path", "-", "--json", input="\ufeffquery\tpassage\r\nq2\tp2\r\n".encode())
    assert [(o["query"], o["passage"]) for o in objects(result.stdout)] == [("query", "passage"), ("q2", "p2")]


def test_literals_are_parsed_and_never_evaluated(zoo: Zoo, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    attack = f"[[str(open({str(proof)!r}, 'w')), 'passage']]"
    result = zoo("run", MODEL, "--data-path", "-", input=attack)
    assert result.exit_code == 1
    assert not proof.exists()
    assert "<stdin>, line 1" in result.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[['a', 'b']", "neither a Python literal nor JSON"),
        ("[['a', 'b', 'c']]", "3 elements, not 2"),
        ("[['a', 1]]", "a int where a text belongs"),
        ("[]", "holds no pair"),
        ('{"query": "a"}', "lacks the key 'passage'"),
        ("just a text", "is not a pair"),
        ("a\tb\tc", "3 tab-separated column(s), not 2"),
        ('["a", "\\ud800"]', "half of a surrogate pair"),
        ("[['\\U0000dfff', 'a']]", "half of a surrogate pair"),
        ("[" * 5000, "neither a Python literal nor JSON"),
    ],
)
def test_a_malformed_line_is_named_and_nothing_is_scored(zoo: Zoo, tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text(f"[['fine', 'pair']]\n\n{line}\n", encoding="utf-8")
    result = zoo("run", MODEL, "--data-path", path)
    assert result.exit_code == 1
    assert f"Error: {path}, line 3: " in result.stderr
    assert said in result.stderr
    assert result.stdout == ""


def test_text_that_is_not_utf8_is_located(zoo: Zoo) -> None:
    result = zoo("run", MODEL, "--data-path", "-", input=b"a\tb\nc\t\xff\n")
    assert result.exit_code == 1
    assert "<stdin>, line 2: is not UTF-8 (byte 3 of the line)" in result.stderr


def test_an_input_without_pairs_is_an_error(zoo: Zoo) -> None:
    result = zoo("run", MODEL, "--data-path", "-", input="\n\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "holds no pairs" in result.stderr


@pytest.mark.parametrize(("path", "said"), [("nowhere.txt", "no such file"), (".", "is a folder")])
def test_a_data_path_that_is_no_file_is_an_error(zoo: Zoo, path: str, said: str) -> None:
    result = zoo("run", MODEL, "--mode", "single", "--data-path", path)
    assert result.exit_code == 1
    assert said in result.stderr


def test_normalize_prints_the_sigmoid(zoo: Zoo) -> None:
    expected = [o["score"] for o in objects(zoo("run", MODEL, "--json").stdout)]
    assert scores(zoo("run", MODEL, "--normalize").stdout) == expected


def test_output_goes_to_a_file_that_appears_when_it_is_complete(zoo: Zoo) -> None:
    result = zoo("run", MODEL, "--output", "scores.txt")
    assert result.stdout == ""
    assert Path("scores.txt").read_text(encoding="utf-8") == zoo("run", MODEL).stdout
    assert [path.name for path in Path().iterdir()] == ["scores.txt"]


def test_an_output_that_cannot_be_written_is_said_before_the_model_is_opened(zoo: Zoo) -> None:
    result = zoo("run", MODEL, "--output", "no/such/folder/scores.txt")
    assert result.exit_code == 1
    assert "cannot write" in result.stderr
    assert "model:" not in result.stderr


def test_the_batch_size_changes_no_score(zoo: Zoo, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    lines = [json.dumps([f"question {n}", "word " * (n * 7 % 50)]) for n in range(40)]
    path.write_text("\n".join(lines), encoding="utf-8")
    one_by_one, batched = (
        [o["logit"] for o in objects(zoo("run", MODEL, "--data-path", path, "--json", "--batch-size", size).stdout)]
        for size in (1, 16)
    )
    assert len(one_by_one) == 40
    assert batched == pytest.approx(one_by_one, abs=1e-5)  # float32 sums in another order


def test_underscore_spellings_of_tecorigins_scripts_work(zoo: Zoo, exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text(FORMS["tecorigin.txt"][0], encoding="utf-8")
    result = zoo(
        "run", MODEL, "--config_path", exported, "--ckpt", exported / "model.onnx", "--data_path", path, "--batch_size", 2,
        "--shape", 128, "--no_half", "--target", "onnx",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert len(scores(result.stdout)) == 1


def test_shape_cuts_passages_and_says_how_many(zoo: Zoo) -> None:
    result = zoo("run", MODEL, "--shape", 16)
    assert "1 of 2 passages cut to 16 tokens" in result.stderr
    assert "0 of 2 passages cut to 512 tokens" in zoo("run", MODEL).stderr


@pytest.mark.parametrize(
    ("shape", "code", "said"),
    [
        (4, 1, "no room beside 4 special tokens"),
        (513, 1, "use a --shape of 512 or less"),
        (0, 2, "x>=1"),
        ("wide", 2, "not a valid"),
    ],
)
def test_a_shape_the_model_cannot_take_is_refused(zoo: Zoo, shape: object, code: int, said: str) -> None:
    result = zoo("run", MODEL, "--shape", shape)
    assert result.exit_code == code
    assert said in result.stderr


def test_half_on_the_cpu_says_what_it_costs(zoo: Zoo) -> None:
    assert "no faster" in zoo("run", MODEL, "--half", "--target", "cpu").stderr


def test_every_run_of_the_embedded_model_says_that_it_is_a_miniature(zoo: Zoo) -> None:
    for quiet in ((), ("--quiet",)):
        assert "miniature stand-in" in zoo("run", MODEL, *quiet).stderr


def test_the_checkpoint_and_model_file_in_use_are_said(zoo: Zoo, exported: Path) -> None:
    said = zoo("run", MODEL, "--config-path", exported, "--target", "cpu").stderr
    assert f"checkpoint: {exported} (the folder given)" in said
    assert f"model: {exported / 'model.onnx'}" in said
    assert "checkpoint:" not in zoo("run", MODEL, "-q").stderr


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["zoo-reranker-tyni"], 1, "Did you mean 'zoo-reranker-tiny'?"),
        (["BAAI/bge-reranker-v2-m3"], 1, "Did you mean 'bge-reranker-v2-m3'?"),
        ([MODEL, "--target", "cpuu"], 1, "Did you mean 'cpu'?"),
        ([MODEL, "--target", "cpu:1"], 1, "no parts to choose from"),
        ([MODEL, "--ckpt", "nowhere.onnx"], 1, "there is no model file nowhere.onnx (--ckpt)"),
        ([MODEL, "--config-path", "nowhere"], 1, "the checkpoint folder nowhere: no such folder"),
        ([MODEL, "--target", "cpu", "--device-option", "arenas=off"], 1, "Did you mean 'arena'?"),
        ([MODEL, "--target", "cpu", "--device-option", "arena=maybe"], 1, "it takes on, off"),
        ([MODEL, "--device-option", "arena"], 2, "not of the form KEY=VALUE"),
        ([MODEL, "--mode", "singel"], 2, "'singel' is not"),
        ([MODEL, "--moed", "single"], 2, "--mode"),
        ([MODEL, "--batch-size", "0"], 2, "neither a positive number nor 'auto'"),
        ([MODEL, "--threads", "0"], 2, "x>=1"),
        ([], 2, "Missing argument 'MODEL'"),
    ],
)
def test_bad_settings_are_said_without_a_traceback(zoo: Zoo, args: list[str], code: int, said: str) -> None:
    result = zoo("run", *args)
    assert result.exit_code == code
    assert said in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_a_file_that_is_no_onnx_model_is_an_error(zoo: Zoo, tiny: Path) -> None:
    Path("model.onnx").write_bytes(b"not a model")
    result = zoo("run", MODEL, "--ckpt", "model.onnx", "--config-path", tiny, "--target", "cpu")
    assert result.exit_code == 1
    assert "model.onnx: is not an ONNX file" in result.stderr


def test_debug_shows_the_traceback_of_a_fault(zoo: Zoo) -> None:
    result = zoo("run", MODEL, "--config-path", "nowhere", "--debug")
    assert result.exception is not None
    assert "nowhere: no such folder" in str(result.exception)


@pytest.mark.parametrize(
    "options", [["--threads", "1"], ["--device-option", "arena=off", "--device-option", "optimization=off"]]
)
def test_threads_and_device_options_change_no_score(zoo: Zoo, options: list[str]) -> None:
    plain, changed = (scores(zoo("run", MODEL, "--target", "cpu", *extra).stdout) for extra in ([], options))
    assert changed == pytest.approx(plain, abs=1e-5)


def test_offline_names_everything_that_was_tried_and_the_ways_out(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    result = zoo("run", "bge-reranker-v2-m3", "--offline")
    assert result.exit_code == 1
    places = ["./BAAI/bge-reranker-v2-m3", "$ZOO_HOME", "Hugging Face cache", "hub (", "ModelScope"]
    positions = [result.stderr.index(place) for place in places]
    assert positions == sorted(positions)
    assert result.stderr.count("not asked (offline)") >= 1
    assert "run the model zoo-reranker-tiny" in result.stderr
