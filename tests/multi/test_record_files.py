"""What ``--mode multi`` reads and writes, without a model."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Sequence
from datetime import datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from zoo import streams
from zoo.errors import InputError, ZooError
from zoo.multi import Columns, find_inputs
from zoo.multi.inputs import InputFile
from zoo.multi.one_file import FileScores
from zoo.multi.readers import read_rows
from zoo.multi.rows import ADDED, kept_names
from zoo.multi.writers import OutputForm, open_writer
from zoo.scoring.scorer import ScoredPair
from zoo.types import Pair

pytestmark = pytest.mark.integrations

PAIRS = [Pair("what is panda?", "hi"), Pair("what is panda?", 'a "bear", black and white'), Pair("q2", "大熊猫")]


def only(path: Path) -> InputFile:
    (found,) = find_inputs([path], path.parent / "output")
    return found


def read(path: Path, columns: Columns | None = None) -> list[tuple[dict[str, Any], list[Pair]]]:
    return [(dict(row.columns), list(row.pairs)) for row in read_rows(only(path), columns or Columns())]


def pairs_of(path: Path, columns: Columns | None = None) -> list[Pair]:
    return [pair for _, pairs in read(path, columns) for pair in pairs]


def objects(pairs: Sequence[Pair]) -> list[dict[str, str]]:
    return [{"query": pair.query, "passage": pair.passage} for pair in pairs]


def jsonl(pairs: Sequence[Pair]) -> str:
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in objects(pairs))


def as_csv(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([("query", "passage"), *(pair[:2] for pair in PAIRS)])


def as_parquet(path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(objects(PAIRS)), path)


def as_feather(path: Path) -> None:
    feather = pytest.importorskip("pyarrow.feather")
    feather.write_feather(pytest.importorskip("pyarrow").Table.from_pylist(objects(PAIRS)), path)


def as_arrow_stream(path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.Table.from_pylist(objects(PAIRS))
    with path.open("wb") as sink, arrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def as_zst(path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    with arrow.CompressedOutputStream(str(path), "zstd") as sink:
        sink.write(jsonl(PAIRS).encode())


FORMS = {
    "demo.txt": lambda path: path.write_text("".join(f"{[list(pair[:2])]!r}\n" for pair in PAIRS), encoding="utf-8"),
    "several_a_line.txt": lambda path: path.write_text(repr([list(pair[:2]) for pair in PAIRS]), encoding="utf-8"),
    "objects.jsonl": lambda path: path.write_text(jsonl(PAIRS), encoding="utf-8"),
    "arrays.ndjson": lambda path: path.write_text(
        "".join(json.dumps(pair[:2]) + "\n" for pair in PAIRS), encoding="utf-8"
    ),
    "bare.tsv": lambda path: path.write_text("".join("\t".join(pair[:2]) + "\n" for pair in PAIRS), encoding="utf-8"),
    "named.tsv": lambda path: path.write_text(
        "query\tpassage\n" + "".join("\t".join(pair[:2]) + "\n" for pair in PAIRS), encoding="utf-8"
    ),
    "excel.csv": lambda path: path.write_bytes(b"\xef\xbb\xbf" + jsonl_as_csv()),
    "plain.csv": as_csv,
    "packed.jsonl.gz": lambda path: path.write_bytes(gzip.compress(jsonl(PAIRS).encode())),
    "packed.jsonl.zst": as_zst,
    "table.parquet": as_parquet,
    "table.feather": as_feather,
    "table.arrow": as_arrow_stream,
}


def jsonl_as_csv() -> bytes:
    quoted = ['"' + text.replace('"', '""') + '"' for pair in PAIRS for text in pair[:2]]
    lines = ["query,passage", *(",".join(quoted[n : n + 2]) for n in range(0, len(quoted), 2))]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_pairs(name: str, tmp_path: Path) -> None:
    FORMS[name](tmp_path / name)
    assert pairs_of(tmp_path / name) == PAIRS


def test_a_row_of_one_query_and_many_passages_is_a_pair_for_each(tmp_path: Path) -> None:
    path = tmp_path / "lists.jsonl"
    path.write_text('{"id": 7, "query": "q", "passages": ["a", "b"]}\n{"id": 8, "query": "q", "passages": []}\n')
    assert [pairs for _, pairs in read(path)] == [[Pair("q", "a"), Pair("q", "b")], []]


def test_an_instruction_is_read_with_its_pair(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    path.write_text('{"query": "q", "passage": "p", "instruction": "find"}\n{"query": "q", "passage": "p"}\n')
    assert pairs_of(path) == [Pair("q", "p", "find"), Pair("q", "p")]


def test_the_columns_may_be_named(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("frage,antwort,query\nq,a,x\n")
    assert read(path, Columns("frage", "antwort")) == [({"frage": "q", "antwort": "a", "query": "x"}, [Pair("q", "a")])]


def test_cells_of_a_csv_may_hold_line_ends_and_long_texts(tmp_path: Path) -> None:
    path, long = tmp_path / "cells.csv", "word " * 60_000
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows([("query", "passage"), ("a\nb", long)])
    assert pairs_of(path) == [Pair("a\nb", long)]


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "cut json": ("x.jsonl", b'{"query": "q", "passage": "p"}\n{"query": "q', r"x.jsonl, line 2: is not JSON"),
    "a number": ("x.jsonl", b'{"query": "q", "passage": 3}\n', r"line 1: has a value of the type int in the column 'passage'"),
    "null": ("x.jsonl", b'{"query": null, "passage": "p"}\n', r"has nothing in the column 'query', not a text"),
    "no column": ("x.jsonl", b'{"question": "q", "passage": "p"}\n', r"no column 'query' for the query; it has question"),
    "three cells": ("x.tsv", b"a\tb\nc\td\te\n", r"line 2: has 3 tab-separated column\(s\), not 2"),
    "a short line": ("x.csv", b"query,passage,id\nq,p\n", r"line 2: has 2 columns, and the first line names 3"),
    "an open quote": ("x.csv", b'query,passage\nq,"p\n', r"is not CSV: unexpected end of data"),
    "latin-1": ("x.csv", b"query,passage\nq,p\xe9\n", r"line 2: is not UTF-8 \(byte 4 of the line\)"),
    "a cut gzip": ("x.jsonl.gz", gzip.compress(jsonl(PAIRS * 99).encode())[:-20], r"the gzip data is cut off"),
    "no gzip": ("x.jsonl.gz", b"plain text", r"the gzip data is cut off or damaged"),
    "a key twice": ("x.jsonl", b'{"query": "q", "passage": "p", "query": "r"}\n', r"line 1: is not JSON: the key 'query' is there twice"),
    "a column twice": ("x.csv", b"query,passage,query\nq,p,r\n", r"line 1: names the column 'query' twice"),
    "a column of a tsv twice": ("x.tsv", b"query\tpassage\tquery\nq\tp\tr\n", r"line 1: names the column 'query' twice"),
    "half a character": ("x.jsonl", b'{"query": "\\ud800", "passage": "p"}\n', r"line 1: is not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_is_located(fault: str, tmp_path: Path) -> None:
    name, content, said = BROKEN[fault]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        read(tmp_path / name)


def test_a_line_without_an_end_is_refused_at_a_stated_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LONGEST_LINE", 1 << 16)
    (tmp_path / "x.jsonl").write_text(jsonl(PAIRS) + '{"query": "' + "x" * (1 << 17))
    with pytest.raises(InputError, match=r"line 4: is longer than"):
        read(tmp_path / "x.jsonl")


def test_a_gzip_bomb_is_refused_at_a_stated_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "UNPACKED_FREELY", 1 << 20)
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(jsonl(PAIRS).encode() + b"\n" * (20 << 20)))
    with pytest.raises(InputError, match="unpacks to more than 200 times its size"):
        read(tmp_path / "x.jsonl.gz")


def test_a_link_that_leads_in_a_circle_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "round.jsonl").symlink_to("round.jsonl")
    (tmp_path / "x.jsonl").write_text(jsonl(PAIRS))
    assert [file.name for file in find_inputs([tmp_path], tmp_path / "output")] == ["x.jsonl"]


@pytest.mark.parametrize("name", ["table.parquet", "table.arrow", "packed.jsonl.zst"])
def test_a_cut_binary_file_is_an_error_with_its_name(name: str, tmp_path: Path) -> None:
    FORMS[name](tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=name):
        read(tmp_path / name)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_times_in_nanoseconds_are_read_to_the_microsecond(suffix: str, tmp_path: Path) -> None:
    """As pandas writes them. Whether pandas is installed here makes no difference."""
    arrow = pytest.importorskip("pyarrow")
    times = {
        "at": arrow.array([1_234_567_891], arrow.timestamp("ns", tz="UTC")),
        "took": arrow.array([1_500], arrow.duration("ns")),
        "clock": arrow.array([61_000_000_789], arrow.time64("ns")),
    }
    table = arrow.table({"query": ["q"], "passage": ["p"], **times})
    path = tmp_path / f"table.{suffix}"
    if suffix == "parquet":
        pytest.importorskip("pyarrow.parquet").write_table(table, path)
    else:
        with arrow.OSFile(str(path), "wb") as sink, arrow.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    [(columns, pairs)] = read(path)
    assert pairs == [Pair("q", "p")]
    assert columns["at"] == datetime(1970, 1, 1, 0, 0, 1, 234_567, tzinfo=timezone.utc)
    assert columns["took"] == timedelta(microseconds=1)
    assert columns["clock"] == time(0, 1, 1)
    written("jsonl", [columns], tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text())["at"] == "1970-01-01T00:00:01.234567Z"


def test_a_table_that_has_gone_is_an_error_of_its_own(tmp_path: Path) -> None:
    as_parquet(tmp_path / "table.parquet")
    file = only(tmp_path / "table.parquet")
    file.path.unlink()
    with pytest.raises(InputError, match=r"table\.parquet.*No such file"):
        list(read_rows(file, Columns()))


def test_folders_are_read_with_all_below_and_hidden_files_are_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("b.jsonl", "a/c.tsv", ".hidden.jsonl", "_SUCCESS.txt", "image.png", "out/old.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [file.name for file in find_inputs([tmp_path], tmp_path / "out")] == ["a/c.tsv", "b.jsonl"]
    assert "image.png" in caplog.text


def test_globs_name_files_below_their_fixed_part(tmp_path: Path) -> None:
    for name in ("x/1.jsonl", "y/1.jsonl", "y/2.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_inputs([tmp_path / "*" / "*.jsonl"], tmp_path / "out")
    assert [file.name for file in found] == ["x/1.jsonl", "y/1.jsonl"]


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["nowhere"], "there is no such file or folder"),
        (["*.nothing"], "there are no files of pairs"),
        (["x/1.jsonl", "y/1.jsonl"], "would both be called 1.jsonl"),
        (["z.parquet.gz"], "Unpack it first"),
        (["out"], "is the folder that is read"),
    ],
)
def test_paths_that_cannot_be_scored_are_refused(paths: list[str], said: str) -> None:
    for name in ("x/1.jsonl", "y/1.jsonl", "z.parquet.gz", "out/x.txt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    with pytest.raises(ZooError, match=said):
        find_inputs(paths, Path("out"))


def test_ranks_are_those_of_a_plain_sort_within_each_query() -> None:
    source = random.Random(7)
    scored = [
        ScoredPair(Pair(f"q{source.randrange(40)}", str(n)), float(source.randrange(-9, 9)) / 8, False)
        for n in range(2000)
    ]
    by_query: dict[str, list[int]] = {}
    for place, (pair, _, _) in enumerate(scored):
        by_query.setdefault(pair.query, []).append(place)
    expected = [0] * len(scored)
    for places in by_query.values():
        for rank, place in enumerate(sorted(places, key=lambda place: -scored[place].logit), start=1):
            expected[place] = rank
    assert FileScores.of(scored).ranks().tolist() == expected


def test_a_column_that_the_result_adds_is_kept_under_another_name() -> None:
    assert kept_names(["query", "score", "input_score"]) == {
        "query": "query",
        "score": "input_input_score",
        "input_score": "input_score",
    }


def written(form: OutputForm, rows: Sequence[dict[str, Any]], path: Path) -> Path:
    writer = open_writer(form, path)
    try:
        for row in rows:
            writer.write(row, [0.5, 0.6, 1, True])
    finally:
        writer.close()
    return path


ROWS = [
    {"query": "q", "passage": "a\n,b", "id": None, "tags": ["x", "y"]},
    {"query": "大", "passage": "", "id": 7, "tags": []},
]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_rows_come_back_as_they_were(form: OutputForm, tmp_path: Path) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    path = written(form, ROWS, tmp_path / f"x.{form}")
    added = dict(zip(ADDED, [0.5, 0.6, 1, True], strict=True))
    if form == "jsonl":
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        found = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    assert found == [{**row, **added} for row in ROWS]


def test_a_csv_holds_lists_as_json_and_nothing_as_an_empty_cell(tmp_path: Path) -> None:
    path = written("csv", ROWS, tmp_path / "x.csv")
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.reader(handle))
    assert rows[0] == ["query", "passage", "id", "tags", *ADDED]
    assert rows[1] == ["q", "a\n,b", "", '["x","y"]', "0.5", "0.6", "1", "true"]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_rows_of_other_columns_need_jsonl(form: OutputForm, tmp_path: Path) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    with pytest.raises(ZooError, match=r"id is missing in some.*jsonl"):
        written(form, [{"query": "q"}, {"query": "q", "id": 1}], tmp_path / "x")


def test_values_of_two_types_in_a_column_of_parquet_need_jsonl(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(ZooError, match=r"one type.*jsonl"):
        written("parquet", [{"query": "q", "id": 1}, {"query": "q", "id": "x"}], tmp_path / "x")


@pytest.mark.parametrize("value", [{}, [{}]])
def test_an_object_without_keys_needs_jsonl(value: Any, tmp_path: Path) -> None:
    """Parquet has no such thing."""
    pytest.importorskip("pyarrow")
    with pytest.raises(ZooError, match=r"meta|element.*jsonl"):
        written("parquet", [{"query": "q", "meta": value}], tmp_path / "x")


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_value_that_is_not_json_is_an_error_with_its_column(form: OutputForm, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"'odd'.*complex"):
        written(form, [{"query": "q", "odd": [1j]}], tmp_path / "x")
