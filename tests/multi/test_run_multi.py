"""``zoo run --mode multi`` as a user sees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import Zoo
from zoo import Reranker
from zoo.multi import InputFile, MultiRequest, find_inputs, score_files
from zoo.multi.one_file import write_file

MODEL = "zoo-reranker-tiny"


def pairs(count: int, seed: int = 0) -> list[dict[str, object]]:
    return [
        {"id": n, "query": f"what is number {n % 7}?", "passage": "word " * ((n * 37 + seed) % 60) + str(n)}
        for n in range(count)
    ]


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def results(output: Path) -> dict[str, bytes]:
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and ".zoo" not in path.parts and path.name != "report.json"
    }


def command(data: Path, output: Path, *more: str) -> list[str]:
    return [
        "run",
        MODEL,
        "--mode",
        "multi",
        "--data-path",
        str(data),
        "--output",
        str(output),
        "--target",
        "cpu",
        *more,
    ]


def test_scores_are_those_of_the_reranker_and_columns_are_kept(zoo: Zoo, tmp_path: Path) -> None:
    rows = pairs(40)
    write(tmp_path / "in" / "a.jsonl", rows)
    done = zoo(*command(tmp_path / "in", tmp_path / "out"))
    assert done.exit_code == 0, done.stderr
    found = read(tmp_path / "out" / "a.jsonl")
    assert [{name: row[name] for name in ("id", "query", "passage")} for row in found] == rows
    with Reranker.open(MODEL, device="cpu", batch_size=None) as reranker:
        expected = reranker.score([(str(row["query"]), str(row["passage"])) for row in rows])
    assert [row["logit"] for row in found] == pytest.approx(expected.tolist(), abs=1e-5)
    assert {row["truncated"] for row in found} == {False}


def test_a_model_may_be_a_folder_and_a_misspelt_one_is_told_before_files_are_looked_for(
    zoo: Zoo, tmp_path: Path, tiny: Path
) -> None:
    data = write(tmp_path / "in.jsonl", pairs(3))
    folder = tmp_path / "own"
    folder.symlink_to(tiny)
    words = command(data, tmp_path / "out")
    done = zoo("run", folder, *words[2:])
    assert done.exit_code == 0, done.stderr
    zoo(*command(data, tmp_path / "named"))
    assert results(tmp_path / "out") == results(tmp_path / "named")
    wrong = zoo("run", "./absent", *command(tmp_path / "no-files", tmp_path / "none")[2:])
    assert wrong.exit_code == 1
    assert "there is no model card or folder ./absent" in wrong.stderr


def test_a_query_cut_or_a_passage_cut_is_marked(zoo: Zoo, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [{"query": "q", "passage": "short"}, {"query": "q", "passage": "word " * 99}])
    assert zoo(*command(tmp_path / "in.jsonl", tmp_path / "out", "--shape", "32")).exit_code == 0
    assert [row["truncated"] for row in read(tmp_path / "out" / "in.jsonl")] == [False, True]


def test_top_k_keeps_the_best_rows_of_each_query(zoo: Zoo, tmp_path: Path) -> None:
    data = write(tmp_path / "in.jsonl", pairs(50))
    zoo(*command(data, tmp_path / "all"))
    zoo(*command(data, tmp_path / "best", "--top-k", "2"))
    every = read(tmp_path / "all" / "in.jsonl")
    assert sorted({int(str(row["rank"])) for row in every}) == list(range(1, 9))
    assert read(tmp_path / "best" / "in.jsonl") == [row for row in every if int(str(row["rank"])) <= 2]


def test_a_bad_file_is_reported_and_the_others_go_on(zoo: Zoo, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.jsonl", pairs(3))
    (tmp_path / "in" / "b.jsonl").write_text('{"query": "q", "passage": "p"}\n{"query": "q"}\n')
    write(tmp_path / "in" / "c" / "c.jsonl", pairs(4))
    (tmp_path / "in" / "empty.csv").touch()
    done = zoo(*command(tmp_path / "in", tmp_path / "out", "--json"))
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert {file["name"]: file["status"] for file in report["files"]} == {
        "a.jsonl": "scored", "b.jsonl": "failed", "c/c.jsonl": "scored", "empty.csv": "scored",
    }  # fmt: skip
    assert "b.jsonl, line 2: has no column 'passage'" in report["files"][1]["error"]
    assert sorted(results(tmp_path / "out")) == ["a.jsonl", "c/c.jsonl", "empty.csv.jsonl"]
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    assert "Traceback" not in done.stderr


def test_a_second_run_keeps_what_is_done_and_scores_what_has_changed(zoo: Zoo, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.jsonl", pairs(5))
    write(tmp_path / "in" / "b.jsonl", pairs(5))
    zoo(*command(tmp_path / "in", tmp_path / "out"))
    before = (tmp_path / "out" / "a.jsonl").stat().st_mtime_ns
    write(tmp_path / "in" / "b.jsonl", pairs(6))
    done = zoo(*command(tmp_path / "in", tmp_path / "out", "--json"))
    assert [file["status"] for file in json.loads(done.stdout)["files"]] == ["kept", "scored"]
    assert (tmp_path / "out" / "a.jsonl").stat().st_mtime_ns == before
    assert len(read(tmp_path / "out" / "b.jsonl")) == 6


def test_the_results_of_other_settings_are_not_mixed_in(zoo: Zoo, tmp_path: Path) -> None:
    data = write(tmp_path / "in.jsonl", pairs(5))
    zoo(*command(data, tmp_path / "out"))
    refused = zoo(*command(data, tmp_path / "out", "--shape", "64"))
    assert refused.exit_code == 1
    assert "max length: 512 in the journal, 64 now" in refused.stderr
    again = zoo(*command(data, tmp_path / "out", "--shape", "64", "--overwrite"))
    assert again.exit_code == 0, again.stderr


KILLED = """
import os, signal, sys
from zoo.cli import main
from zoo.evaluation.journal import Journal

append, left = Journal.append, [int(sys.argv[1])]
def dying_append(self, key, scores):
    append(self, key, scores)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), int(sys.argv[2]))
Journal.append = dying_append
main(sys.argv[3:], prog_name="zoo")
"""


def killed(after: int, how: signal.Signals, words: list[str]) -> subprocess.CompletedProcess[str]:
    args = [sys.executable, "-c", KILLED, str(after), str(int(how)), *words]
    return subprocess.run(args, capture_output=True, text=True, check=False, env=dict(os.environ))


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(zoo: Zoo, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "in" / f"{name}.jsonl", pairs(200, seed=ord(name)))
    whole = zoo(*command(tmp_path / "in", tmp_path / "whole", "--batch-size", "8"))
    assert whole.exit_code == 0, whole.stderr
    cut = command(tmp_path / "in", tmp_path / "cut", "--batch-size", "8")
    for after in (3, 30):  # of the 25 batches that each file has: inside the first file, then inside the second
        assert killed(after, signal.SIGKILL, cut).returncode == -signal.SIGKILL
    assert [*results(tmp_path / "cut")] == ["a.jsonl"]
    done = zoo(*cut)
    assert done.exit_code == 0, done.stderr
    assert "b.jsonl: continuing" in done.stderr
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
    assert not list((tmp_path / "cut" / ".zoo").rglob("*.journal"))


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is another thing there")
def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    data = write(tmp_path / "in.jsonl", pairs(200))
    stopped = killed(2, signal.SIGINT, command(data, tmp_path / "out"))
    assert stopped.returncode == 130, stopped.stderr
    assert "the same command goes on from there" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert not results(tmp_path / "out")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--mode", "multi"], "needs --data-path"),
        (["--mode", "multi", "--data-path", "-", "--output", "out"], "--data-path - belongs to --mode single"),
        (["--mode", "multi", "--data-path", "x", "--output", "out", "--limit", "3"], "--limit belongs to --mode valid"),
        (["--columns", "query=q"], "--columns belongs to --mode multi"),
        (["--format", "csv"], "--format belongs to --mode multi"),
        (["--data-path", "x", "--data-path", "y"], "which only --mode multi takes"),
        (["--mode", "multi", "--columns", "q=query"], "not of the form query=NAME,passage=NAME"),
    ],
)
def test_options_of_other_modes_are_refused(zoo: Zoo, args: list[str], said: str) -> None:
    refused = zoo("run", MODEL, *args)
    assert refused.exit_code == 2
    assert said in refused.stderr


def test_programs_score_files_with_a_reranker_of_their_own(tmp_path: Path) -> None:
    data = write(tmp_path / "in.jsonl", pairs(9))
    with Reranker.open(MODEL, device="cpu") as reranker:
        request = MultiRequest(output=tmp_path / "out", form="csv")
        done = score_files(reranker, find_inputs([data], tmp_path / "out"), request)
    assert [(file.name, file.pairs) for file in done.files] == [("in.jsonl", 9)]
    assert len((tmp_path / "out" / "in.jsonl.csv").read_text().splitlines()) == 10


def test_a_file_that_goes_away_while_its_result_is_written_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = (write(tmp_path / "in" / name, pairs(3)) for name in ("a.jsonl", "b.jsonl"))

    def written_and_lost(file: InputFile, *more: Any) -> int:
        rows = write_file(file, *more)
        if file.path == first:
            first.unlink()
        return rows

    monkeypatch.setattr("zoo.multi.run.write_file", written_and_lost)
    with Reranker.open(MODEL, device="cpu", batch_size=None) as reranker:
        inputs = find_inputs([tmp_path / "in"], tmp_path / "out")
        found = score_files(reranker, inputs, MultiRequest(output=tmp_path / "out"))
    assert [file.status for file in found.files] == ["failed", "scored"]
    assert str(first) in found.files[0].error
    assert not (tmp_path / "out" / "a.jsonl").exists()
    assert read(tmp_path / "out" / "b.jsonl")
