"""Damaged input: every fault is one error that names the file, the line where there is one, and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import small_collection as small
from zoo.errors import InputError, ZooError
from zoo.evaluation.datasets import DataRequest, find_layouts, open_collections


class Damage(NamedTuple):
    """What is done to which file of a sound collection, and what the error has to say."""

    layout: Callable[[Path], Path]
    file: str
    do: Callable[[bytes], bytes]
    says: str
    line: int | None = None


def line(number: int, text: str) -> Callable[[bytes], bytes]:
    """Replace one line."""

    def do(raw: bytes) -> bytes:
        lines = raw.splitlines(keepends=True)
        lines[number - 1] = text.encode("utf-8") + b"\n"
        return b"".join(lines)

    return do


def insert(number: int, text: str) -> Callable[[bytes], bytes]:
    def do(raw: bytes) -> bytes:
        lines = raw.splitlines(keepends=True)
        lines.insert(number - 1, text.encode("utf-8") + b"\n")
        return b"".join(lines)

    return do


def raw_line(number: int, raw: bytes) -> Callable[[bytes], bytes]:
    def do(content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        lines[number - 1] = raw + b"\n"
        return b"".join(lines)

    return do


def put(key: str, value: object) -> Callable[[bytes], bytes]:
    return lambda raw: json.dumps({**json.loads(raw), key: value}, indent=4).encode()


def drop(key: str) -> Callable[[bytes], bytes]:
    return lambda raw: json.dumps({k: v for k, v in json.loads(raw).items() if k != key}).encode()


def replace(old: str, new: str) -> Callable[[bytes], bytes]:
    def do(raw: bytes) -> bytes:
        assert old.encode() in raw
        return raw.replace(old.encode(), new.encode(), 1)

    return do


def nothing(_: bytes) -> bytes:
    return b""


def gone(_: bytes) -> bytes:
    raise FileNotFoundError


CORPUS, QUERIES, QRELS = "mldr/data/en/corpus.jsonl", "mldr/data/en/test_queries.jsonl", "mldr/data/en/test_qrels.jsonl"
STAGE = "mldr/en-test.json"
M, B, T, H = small.mldr, small.beir, small.trec, small.hub
DAMAGES = {
    # corpus
    "corpus: cut off in a line": Damage(M, CORPUS, lambda raw: raw[:100], "is not JSON", 2),
    "corpus: no JSON": Damage(M, CORPUS, line(3, "p3, Tides"), "is not JSON", 3),
    "corpus: a list": Damage(M, CORPUS, line(3, '["p3", "Tides"]'), "Expected `object`", 3),
    "corpus: no text": Damage(M, CORPUS, line(3, '{"id": "p3"}'), "missing required field `text`", 3),
    "corpus: text is a number": Damage(M, CORPUS, line(3, '{"id": "p3", "text": 3}'), "got `int`", 3),
    "corpus: text is null": Damage(M, CORPUS, line(3, '{"id": "p3", "text": null}'), "got `null`", 3),
    "corpus: id is a list": Damage(M, CORPUS, line(3, '{"id": ["p3"], "text": ""}'), "got `array`", 3),
    "corpus: key of another layout": Damage(M, CORPUS, line(1, '{"_id": "p1", "text": "x"}'), "field `id`", 1),
    "corpus: an id twice": Damage(M, CORPUS, insert(5, '{"id": "p1", "text": "x"}'), "'p1' is already on line 1", 5),
    "corpus: an unused id twice": Damage(M, CORPUS, insert(1, '{"id": "p7", "text": ""}'), "already on line 1", 8),
    "corpus: empty": Damage(M, CORPUS, nothing, "is empty"),
    "corpus: gone": Damage(M, CORPUS, gone, "no such file"),
    "corpus: Latin-1": Damage(M, CORPUS, raw_line(2, '{"id": "p2", "text": "é"}'.encode("latin-1")), "not UTF-8", 2),
    "corpus: UTF-16": Damage(M, CORPUS, lambda raw: raw.decode().encode("utf-16"), "is not UTF-8", 1),
    "corpus: half a surrogate": Damage(M, CORPUS, line(2, r'{"id": "p2", "text": "\ud83d"}'), "is not JSON", 2),
    "corpus: a candidate is not there": Damage(M, CORPUS, line(3, '{"id": "x", "text": ""}'), "names the passage 'p3'"),
    # queries
    "queries: no text": Damage(M, QUERIES, line(2, '{"id": "q2"}'), "field `text`", 2),
    "queries: empty text": Damage(M, QUERIES, line(2, '{"id": "q2", "text": "  "}'), "has no text", 2),
    "queries: an id twice": Damage(M, QUERIES, insert(2, '{"id": "q1", "text": "x"}'), "is there twice", 2),
    "queries: empty": Damage(M, QUERIES, nothing, "is empty"),
    "queries: a judged one is not there": Damage(M, QUERIES, line(2, '{"id": "q9", "text": "x"}'), "query 'q2'", 3),
    "queries: TSV": Damage(M, QUERIES, line(1, "q1\thow do bees"), "is not JSON", 1),
    # judgements
    "qrels: relevance is text": Damage(
        M, QRELS, line(1, '{"qid": "q1", "docid": "p1", "relevance": "1"}'), "got `str`", 1
    ),
    "qrels: relevance is a fraction": Damage(
        M, QRELS, line(1, '{"qid": "q1", "docid": "p1", "relevance": 0.5}'), "got `float`", 1
    ),
    "qrels: no relevance": Damage(M, QRELS, line(1, '{"qid": "q1", "docid": "p1"}'), "field `relevance`", 1),
    "qrels: unknown query": Damage(
        M, QRELS, line(1, '{"qid": "q8", "docid": "p1", "relevance": 1}'), "the query 'q8'", 1
    ),
    "qrels: no passage of the corpus": Damage(
        M, QRELS, lambda _: b'{"qid": "q1", "docid": "p8", "relevance": 1}', "the passage 'p8'", 1
    ),
    "qrels: a key twice": Damage(
        M, QRELS, line(1, '{"qid": "q1", "docid": "p1", "relevance": 1, "relevance": 0}'), "'relevance' is there twice", 1
    ),
    "corpus: a key twice": Damage(
        M, CORPUS, line(2, '{"id": "p2", "text": "a", "text": "b"}'), "the key 'text' is there twice", 2
    ),
    "queries: a raw TAB in a text": Damage(M, QUERIES, line(2, '{"id": "q2", "text": "a\tb"}'), "is not JSON", 2),
    "qrels: a pair twice": Damage(
        M, QRELS, insert(2, '{"qid": "q1", "docid": "p1", "relevance": 0}'), "a second time", 2
    ),
    "qrels: empty": Damage(M, QRELS, nothing, "is empty"),
    "qrels: gone": Damage(M, QRELS, gone, "no such file"),
    # first stage
    "first stage: empty": Damage(M, STAGE, nothing, "is empty"),
    "first stage: cut off": Damage(M, STAGE, lambda raw: raw[: len(raw) // 2], "is not JSON"),
    "first stage: a list": Damage(M, STAGE, lambda _: b"[]", "no JSON object"),
    "first stage: other data set": Damage(M, STAGE, put("eval_name", "beir"), "'eval_name' is 'beir'"),
    "first stage: other language": Damage(M, STAGE, put("dataset_name", "zh"), "'dataset_name' is 'zh'"),
    "first stage: other split": Damage(M, STAGE, put("split", "dev"), "(`split` dev)"),
    "first stage: already reranked": Damage(M, STAGE, put("reranker_name", "bge"), "already reranked"),
    "first stage: no retriever": Damage(M, STAGE, drop("model_name"), "lacks 'model_name'"),
    "first stage: no results": Damage(M, STAGE, put("search_results", {}), "at least one query"),
    "first stage: results are a list": Damage(M, STAGE, put("search_results", []), "is not an object"),
    "first stage: NaN": Damage(M, STAGE, replace("6.25", "NaN"), "has NaN", 10),
    "first stage: infinity": Damage(M, STAGE, replace("6.25", "Infinity"), "has Infinity", 10),
    "first stage: overflows": Damage(M, STAGE, replace("6.25", "1e999"), "not a finite number", 10),
    "first stage: a score is text": Damage(M, STAGE, replace("6.25", '"6.25"'), "not a finite number", 10),
    "first stage: a passage twice": Damage(M, STAGE, replace('"p1": 6.25', '"p2": 6.25'), "'p2' is there twice", 9),
    "first stage: unknown query": Damage(M, STAGE, replace('"q1"', '"q8"'), "the query 'q8'", 8),
    "first stage: unknown passage": Damage(M, STAGE, replace('"p1"', '"p8"'), "the passage 'p8'", 10),
    "first stage: Latin-1": Damage(M, STAGE, lambda raw: raw.replace(b"bge-m3", b"bg\xe9", 1), "is not UTF-8", 3),
    # BEIR
    "BEIR qrels: two columns": Damage(B, "small/qrels/test.tsv", line(2, "q1\tp1"), "has 2 tab-separated", 2),
    "BEIR qrels: blanks for tabs": Damage(B, "small/qrels/test.tsv", line(2, "q1 p1 1"), "has 1 tab-separated", 2),
    "BEIR qrels: score is a word": Damage(B, "small/qrels/test.tsv", line(2, "q1\tp1\tyes"), "is not a whole number", 2),
    "BEIR qrels: header again": Damage(
        B, "small/qrels/test.tsv", insert(3, "query-id\tcorpus-id\tscore"), "repeats the header", 3
    ),
    "BEIR corpus: key of another layout": Damage(B, "small/corpus.jsonl", line(1, '{"id": "p1", "text": ""}'), "_id", 1),
    # TREC
    "TREC run: five columns": Damage(T, "small/run.txt", line(1, "q1 Q0 p2 1 7.5"), "has 5 blank-separated", 1),
    "TREC run: score is nan": Damage(T, "small/run.txt", line(1, "q1 Q0 p2 1 nan x"), "is not a finite number", 1),
    "TREC run: score is a word": Damage(T, "small/run.txt", line(1, "q1 Q0 p2 1 high x"), "is not a finite number", 1),
    "TREC run: a passage twice": Damage(T, "small/run.txt", line(2, "q1 Q0 p2 2 6.5 x"), "a second time", 2),
    "TREC run: unknown passage": Damage(T, "small/run.txt", line(1, "q1 Q0 p9 1 7.5 x"), "the passage 'p9'", 1),
    "TREC qrels: three columns": Damage(T, "small/qrels.txt", line(1, "q1 p1 1"), "has 3 blank-separated", 1),
    "TREC queries: gone": Damage(T, "small/queries.tsv", gone, "no queries"),
    "TREC queries: one column": Damage(T, "small/queries.tsv", line(1, "q1"), "has 1 tab-separated", 1),
    # the hub's raw files
    "raw corpus: cut off": Damage(H, "raw/mldr-v1.0-en/corpus.jsonl.gz", lambda raw: raw[:-20], "Download the file again"),
    "raw corpus: no gzip": Damage(H, "raw/mldr-v1.0-en/corpus.jsonl.gz", lambda _: b"{}", "Download the file again", 1),
    "raw corpus: a bit flipped": Damage(
        H, "raw/mldr-v1.0-en/corpus.jsonl.gz", lambda raw: raw[:-6] + bytes([raw[-6] ^ 1]) + raw[-5:], "cut off or damaged"
    ),
    "raw rows: no passages": Damage(
        H, "raw/mldr-v1.0-en/test.jsonl.gz", lambda _: __import__("gzip").compress(b'{"query_id": 1, "query": "x"}'),
        "positive_passages", 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_an_error_with_file_line_and_remedy(name: str, tmp_path: Path) -> None:
    damage = DAMAGES[name]
    path, file = damage.layout(tmp_path), tmp_path / damage.file
    try:
        file.write_bytes(damage.do(file.read_bytes()))
    except FileNotFoundError:
        file.unlink()
    request = DataRequest(data_path=path, work=tmp_path / "out")
    with pytest.raises(InputError) as caught:
        open_collections(find_layouts(request), request)
    message = str(caught.value)
    assert damage.says in message
    assert file.name in message or file.parent.name in message
    if damage.line is not None:
        assert f", line {damage.line}: " in message


def test_there_are_forty_kinds_and_more() -> None:
    assert len(DAMAGES) >= 40


@pytest.mark.parametrize("layout", [small.mldr, small.beir, small.trec, small.hub], ids=lambda layout: layout.__name__)
def test_what_is_damaged_above_is_sound_before(layout: Callable[[Path], Path], tmp_path: Path) -> None:
    request = DataRequest(data_path=layout(tmp_path))
    [collection] = open_collections(find_layouts(request), request)
    assert collection.pairs == small.PAIRS


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda root: root / "nowhere", "no such folder"),
        (lambda root: small.write(root / "file.txt", "x"), "is a file, not a folder"),
        (lambda root: root, "is a folder, but not a data set. It takes a folder in MLDR's layout"),
    ],
    ids=["nowhere", "a file", "an empty folder"],
)
def test_a_folder_that_is_no_data_set_says_what_is(make: Callable[[Path], Path], says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        find_layouts(DataRequest(data_path=make(tmp_path)))


def test_a_split_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    for layout in (small.mldr, small.beir):
        with pytest.raises(ZooError, match=r"'tset'.*Did you mean 'test'"):
            find_layouts(DataRequest(data_path=layout(tmp_path), split="tset"))


def test_a_passage_file_changed_during_the_run_is_noticed(tmp_path: Path) -> None:
    path = small.mldr(tmp_path)
    request = DataRequest(data_path=path)
    [collection] = open_collections(find_layouts(request), request)
    corpus = path / "en" / "corpus.jsonl"
    corpus.write_bytes(corpus.read_bytes().replace(b'"p1"', b'"pX"'))
    with pytest.raises(InputError, match="changed meanwhile"):
        collection.passages["p1"]
