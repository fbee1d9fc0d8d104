"""What ids, grades, scores and names may be: what metrics, TREC's files or the file system cannot hold is refused with its line."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import small_collection as small
from conftest import Zoo
from zoo import streams
from zoo.errors import InputError, InputErrors
from zoo.evaluation import metrics
from zoo.evaluation.datasets import Collection, DataRequest, find_layouts, open_collections
from zoo.evaluation.datasets.names import HIGHEST_GRADE, LOWEST_GRADE

pytestmark = pytest.mark.lowest

MODEL = "zoo-reranker-tiny"


def opened(path: Path, **asked: object) -> Collection:
    request = DataRequest(data_path=path, **asked)  # type: ignore[arg-type]
    [collection] = open_collections(find_layouts(request), request)
    return collection


def judged(folder: Path, rows: Mapping[str, Mapping[str, object]]) -> Path:
    path = small.mldr(folder)
    flat = ({"qid": q, "docid": p, "relevance": r} for q, found in rows.items() for p, r in found.items())
    small.write(path / "en" / "test_qrels.jsonl", small.json_lines(flat))
    return path


# Grades


def reference(qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Mapping[str, float]]) -> object:
    import pytrec_eval

    measures = {"ndcg_cut.10,100", "map_cut.10,100", "recall.10,100", "P.10,100"}
    return pytrec_eval.RelevanceEvaluator(dict(qrels), measures).evaluate(dict(run))


def test_grades_below_zero_count_as_trec_eval_counts_them() -> None:
    generator = random.Random(7)
    for _ in range(200):
        passages = [f"p{number}" for number in range(30)]
        grades = {passage: generator.choice([-3, -2, -1, 0, 1, 2]) for passage in generator.sample(passages, 15)}
        grades["p0"] = 1  # pytrec_eval reads outside its table if no grade is above 0
        run = {"q": {passage: generator.random() for passage in generator.sample(passages, 20)}}
        found = metrics.per_query(run, {"q": grades})["q"]
        expected = reference({"q": grades}, run)["q"]  # type: ignore[index]
        assert found["ndcg@10"] == expected["ndcg_cut_10"]
        assert found["map@100"] == expected["map_cut_100"]
        assert found["recall@10"] == expected["recall_10"]


def test_a_query_whose_grades_are_all_below_zero_is_evaluated(zoo: Zoo, tmp_path: Path) -> None:
    path = judged(tmp_path, {**small.QRELS, "q1": {"p1": -2, "p2": -2}})
    result = zoo("run", MODEL, "--mode", "valid", "--data-path", path, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["results"][0]["per_query"]["q1"]["reranked"] == 0.0


@pytest.mark.parametrize("grade", [LOWEST_GRADE, HIGHEST_GRADE])
def test_grades_at_the_ends_of_the_range_are_taken(grade: int, tmp_path: Path) -> None:
    assert opened(judged(tmp_path, {**small.QRELS, "q1": {"p1": grade}})).qrels["q1"] == {"p1": grade}


@pytest.mark.parametrize("grade", [LOWEST_GRADE - 1, HIGHEST_GRADE + 1, 2**31, 2**63, 10**30, "9" * 5000])
def test_grades_outside_are_refused_with_their_line(grade: object, tmp_path: Path) -> None:
    path = judged(tmp_path, small.QRELS)
    qrels = path / "en" / "test_qrels.jsonl"
    qrels.write_text(f'{{"qid": "q1", "docid": "p1", "relevance": {grade}}}\n' + qrels.read_text().split("\n", 1)[1])
    with pytest.raises(InputError, match=r"test_qrels\.jsonl, line 1: "):
        opened(path)


@pytest.mark.parametrize("text", ["1_0", "１０", "1.0", "+-1", "0x1", "1e0", " ", "9" * 5000])
def test_a_grade_is_written_in_ascii_digits_alone(text: str, tmp_path: Path) -> None:
    path = small.beir(tmp_path)
    (path / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\nq1\tp1\t{text}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"test\.tsv, line 2: "):
        opened(path)


# Scores


@pytest.mark.parametrize("score", ["1_0", "１.5", "nan", "inf", "1e39", "-1e39", "0x1p3", "1e999", "9" * 5000])
def test_a_score_of_a_run_is_a_number_that_float32_holds(score: str, tmp_path: Path) -> None:
    path = small.trec(tmp_path)
    (path / "run.txt").write_text(f"q1 Q0 p1 1 {score} x\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"run\.txt, line 1: the score"):
        opened(path)


@pytest.mark.parametrize("score", ["1e39", "9" * 5000, "true", "null", "[1]", '"1"'])
def test_a_score_of_search_results_is_a_number_that_float32_holds(score: str, tmp_path: Path) -> None:
    path = small.mldr(tmp_path)
    stage = tmp_path / "mldr" / "en-test.json"
    stage.write_text(stage.read_text().replace("6.25", score))
    with pytest.raises(InputError, match=r"en-test\.json, line 10: the score of passage 'p1'"):
        opened(path)


# Ids


UNFIT = ["", "a b", "a\tb", "a\nb", "a\0b", "a\u00a0b", "a\u2028b", "a\u3000b", "\x7f", "a\x1f"]


@pytest.mark.parametrize("unfit", UNFIT, ids=ascii)
def test_ids_that_files_cannot_hold_are_refused_where_they_are_read(unfit: str, tmp_path: Path) -> None:
    def changed(name: str, file: Path, old: str) -> None:
        path = small.mldr(tmp_path / name)
        target = tmp_path / name / file
        text = target.read_text(encoding="utf-8")
        assert json.dumps(old) in text
        target.write_text(text.replace(json.dumps(old), json.dumps(unfit)), encoding="utf-8")
        with pytest.raises(InputError, match=target.name) as caught:
            opened(path)
        assert "id " in str(caught.value)
        assert caught.value.line is not None

    changed("queries", Path("mldr/data/en/test_queries.jsonl"), "q1")
    changed("judged queries", Path("mldr/data/en/test_qrels.jsonl"), "q1")
    changed("judged passages", Path("mldr/data/en/test_qrels.jsonl"), "p1")
    changed("candidates", Path("mldr/en-test.json"), "p1")
    changed("candidates' queries", Path("mldr/en-test.json"), "q1")


def test_half_of_a_surrogate_pair_is_no_id(tmp_path: Path) -> None:
    path = small.mldr(tmp_path)
    stage = tmp_path / "mldr" / "en-test.json"
    stage.write_text(stage.read_text().replace('"p1"', '"\\ud800"', 1))
    with pytest.raises(InputError, match=r"ud800"):
        opened(path)


def test_ids_of_any_script_go_through_every_file(zoo: Zoo, tmp_path: Path) -> None:
    path = small.mldr(tmp_path)
    strange = {"p1": 'ß"\\/:*?<>|', "q1": "查询-１", "p2": "😀", "p3": "-", "p5": "a" * 3000}
    for file in (*path.rglob("*.jsonl"), tmp_path / "mldr" / "en-test.json"):
        text = file.read_text(encoding="utf-8")
        for old, new in strange.items():
            text = text.replace(json.dumps(old), json.dumps(new, ensure_ascii=False))
        file.write_text(text, encoding="utf-8")
    result = zoo("run", MODEL, "--mode", "valid", "--data-path", path, "--output", "out")
    assert result.exit_code == 0, result.stderr
    import pytrec_eval

    with Path("out/en-test.reranked.trec").open(encoding="utf-8") as handle:
        run = pytrec_eval.parse_run(handle)
    results = json.loads(next(Path("out").rglob(f"{MODEL}/en-test.json")).read_text(encoding="utf-8"))["search_results"]
    assert run == {query: {p: pytest.approx(s, rel=1e-8) for p, s in found.items()} for query, found in results.items()}
    assert strange["q1"] in run


# Names


@pytest.mark.parametrize("name", ["..", ".", "a\0b", "a\nb", "x" * 300, "文" * 90, "\ud800"], ids=ascii)
def test_a_retriever_that_cannot_name_a_folder_is_refused_before_anything_is_scored(name: str, tmp_path: Path) -> None:
    path = small.mldr(tmp_path)
    small.write(tmp_path / "mldr" / "en-test.json", small.first_stage("mldr", "en", model_name=name))
    with pytest.raises(InputError, match=r"en-test\.json: the retriever's name"):
        opened(path)


@pytest.mark.parametrize("value", [["a"], {"a": 1}, 3, None, True])
def test_what_a_first_stage_file_says_of_itself_may_be_of_any_type_and_is_refused(
    value: object, tmp_path: Path
) -> None:
    path = small.mldr(tmp_path)
    for key in ("eval_name", "model_name", "reranker_name", "split", "dataset_name"):
        small.write(tmp_path / "mldr" / "en-test.json", small.first_stage("mldr", "en", **{key: value}))
        with pytest.raises(InputError, match=key):
            opened(path)


@pytest.mark.parametrize(
    ("option", "name"), [("split", "../test"), ("split", "a\0b"), ("dataset", ".."), ("dataset", "a/b")]
)
def test_a_split_and_a_data_set_are_names_and_no_paths(option: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=f"`{option}`"):
        opened(small.mldr(tmp_path), **{option: name})


@pytest.mark.parametrize("layout", [small.mldr, small.beir, small.trec, small.hub], ids=lambda layout: layout.__name__)
def test_a_path_of_dots_means_the_folder_it_leads_to(
    layout: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = layout(tmp_path)
    usual = opened(path)
    below = path / "below"
    below.mkdir()
    for folder, spelling in ((path, "."), (below, ".."), (path.parent, path.name), (below, "../../" + path.name)):
        monkeypatch.chdir(folder)
        found = opened(Path(spelling))
        assert (found.dataset, found.language, found.label) == (usual.dataset, usual.language, usual.label)
        assert found.inputs == usual.inputs


# Sizes


def test_every_faulty_line_of_a_file_is_listed(tmp_path: Path) -> None:
    path = small.mldr(tmp_path)
    corpus = path / "en" / "corpus.jsonl"
    lines = corpus.read_text(encoding="utf-8").splitlines()
    lines[1], lines[3] = "{", '{"id": "p4"}'
    corpus.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(InputErrors) as caught:
        opened(path)
    assert [fault.line for fault in caught.value.faults] == [2, 4]
    assert str(caught.value).count(f"{corpus}, line ") == 2


def test_faults_of_reading_and_of_meaning_are_listed_together(tmp_path: Path) -> None:
    path = judged(tmp_path, {"q1": {"p1": 1, "p2": 99_999}, "q9": {"p1": 1}})
    qrels = path / "en" / "test_qrels.jsonl"
    qrels.write_text(qrels.read_text() + "[]\n")
    with pytest.raises(InputErrors) as caught:
        opened(path)
    assert [fault.line for fault in caught.value.faults] == [2, 3, 4]


def test_every_unknown_passage_of_a_run_is_listed_and_a_long_list_is_counted(tmp_path: Path) -> None:
    path = small.trec(tmp_path)
    run = path / "run.txt"
    run.write_text(run.read_text() + "".join(f"q1 Q0 x{number} 9 0.1 bge-m3\n" for number in range(50)))
    with pytest.raises(InputErrors) as caught:
        opened(path)
    assert len(caught.value.faults) == 20
    assert caught.value.more == 30
    assert "and 30 more faults" in str(caught.value)


def test_a_file_of_nothing_but_faults_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = small.mldr(tmp_path)
    (path / "en" / "corpus.jsonl").write_text("nonsense\n" * 100_000)
    with pytest.raises(InputErrors) as caught:
        opened(path)
    assert len(caught.value.faults) + caught.value.more == 1000


def test_an_endless_line_is_refused_at_a_stated_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LONGEST_LINE", 1 << 20)
    path = small.mldr(tmp_path)
    with (path / "en" / "corpus.jsonl").open("a") as handle:
        handle.write('{"id": "long", "text": "' + "x" * (1 << 21) + '"}\n')
    with pytest.raises(InputError, match=r"line 8: is longer than 1 MB"):
        opened(path)


def test_a_gzip_bomb_is_refused_at_a_stated_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "UNPACKED_FREELY", 1 << 20)
    path = small.hub(tmp_path)
    corpus = path / "mldr-v1.0-en" / "corpus.jsonl.gz"
    corpus.write_bytes(gzip.compress(gzip.decompress(corpus.read_bytes()) + b"\n" * (50 << 20)))
    with pytest.raises(InputError, match="unpacks to more than 200 times its size"):
        opened(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"search_results":' * 50_000, '{"a":' + "[" * 100_000])
def test_deep_nesting_is_an_error(text: str, tmp_path: Path) -> None:
    path = small.mldr(tmp_path)
    (tmp_path / "mldr" / "en-test.json").write_text(text)
    with pytest.raises(InputError, match=r"en-test\.json"):
        opened(path)
    (tmp_path / "mldr" / "en-test.json").write_text(small.first_stage("mldr", "en"))
    (path / "en" / "corpus.jsonl").write_text(text)
    with pytest.raises(InputError, match=r"corpus\.jsonl, line 1"):
        opened(path)
