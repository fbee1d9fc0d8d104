"""``zoo run --mode valid`` as a user sees it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import small_collection as small
from conftest import SHARED, Zoo
from zoo import hookimpl
from zoo.evaluation.datasets import DataRequest, find_layouts, open_collections
from zoo.evaluation.metrics import MetricHooks, evaluate, ranked
from zoo.evaluation.notes import notes
from zoo.evaluation.reading import Reading
from zoo.evaluation.references import reference_checks
from zoo.evaluation.rerank import Result, judge
from zoo.evaluation.timing import Stopwatch, Timing
from zoo.paths import bundled
from zoo.registry.card import Reference, load_card
from zoo.registry.participants import Participant
from zoo.registry.stages import Pipeline
from zoo.scoring.scorer import RunStats
from zoo.statistics import percentile
from zoo.types import Qrels, Run

pytestmark = [pytest.mark.lowest, pytest.mark.any_device]

NUMBER = r"\d+(?:\.\d+)?(?:e-?\d+)?"
SUMMARY = re.compile(
    rf"summary: avg_sps: {NUMBER}, e2e_time: {NUMBER}, data_time: {NUMBER}, avg_inference_time: {NUMBER}, "
    rf"avg_preprocess_time: {NUMBER}, avg_postprocess: {NUMBER}"
)


def run(zoo: Zoo, *args: object) -> object:
    result = zoo("run", "zoo-reranker-tiny", "--mode", "valid", *args)
    assert result.exit_code == 0, result.stderr
    return result


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return small.mldr(tmp_path)


def test_the_closing_lines_are_tecorigins(zoo: Zoo, data: Path) -> None:
    result = zoo("run", "zoo-reranker-tiny", "--mode", "valid", "--data-path", data)
    assert result.exit_code == 0, result.stderr
    summary, completed, computing, metric = result.stdout.splitlines()
    assert SUMMARY.fullmatch(summary)
    assert completed == "mldr evaluation on ['en'] completed."
    assert computing == "Start computing metrics."
    assert re.fullmatch(r"eval_metric: [01]\.\d{1,5}", metric)


def test_the_miniature_runs_out_of_the_box(zoo: Zoo) -> None:
    result = zoo("run", "zoo-reranker-tiny", "--mode", "valid", "--limit", 2, "--top-k", 5)
    assert result.exit_code == 0, result.stderr
    assert "mldr-mini evaluation on ['en', 'zh'] completed." in result.stdout
    assert Path("zoo-results/zoo-reranker-tiny/mldr-mini/report.html").is_file()


def test_the_files_are_in_the_references_layout(zoo: Zoo, data: Path, tmp_path: Path) -> None:
    run(zoo, "--data-path", data)
    output = Path("zoo-results/zoo-reranker-tiny/mldr")
    folder = output / "search_results" / "bge-m3" / "zoo-reranker-tiny"
    stored = json.loads((folder / "en-test.json").read_text(encoding="utf-8"))
    results = stored.pop("search_results")
    assert stored == {
        "eval_name": "mldr", "model_name": "bge-m3", "reranker_name": "zoo-reranker-tiny", "split": "test", "dataset_name": "en",
    }  # fmt: skip
    assert {q: list(found) for q, found in results.items()} == {q: list(found) for q, found in small.CANDIDATES.items()}
    figures = json.loads((folder / "EVAL" / "eval_results.json").read_text())["en-test"]
    assert figures == {name.replace("@", "_at_"): value for name, value in evaluate(results, small.QRELS).items()}
    first = json.loads((folder.parent / "NoReranker" / "EVAL" / "eval_results.json").read_text())["en-test"]
    assert first == {n.replace("@", "_at_"): v for n, v in evaluate(small.CANDIDATES, small.QRELS).items()}
    trec = [line.split() for line in (output / "en-test.reranked.trec").read_text().splitlines()]
    assert [row[2] for row in trec if row[0] == "q1"] == ranked(results["q1"])
    assert {row[2]: float(row[4]) for row in trec if row[0] == "q1"} == pytest.approx(results["q1"], rel=1e-7)


def test_json_holds_the_whole_report_and_equals_the_file(zoo: Zoo, data: Path) -> None:
    result = zoo("run", "zoo-reranker-tiny", "--mode", "valid", "--data-path", data, "--json", "--target", "cpu")
    report = json.loads(result.stdout)
    assert report == json.loads(Path("zoo-results/zoo-reranker-tiny/mldr/report.json").read_text(encoding="utf-8"))
    [found] = report["results"]
    assert report["eval_metric"] == found["reranked"]["ndcg@10"]
    assert found["difference"]["mrr@10"] == round(found["reranked"]["mrr@10"] - found["first_stage"]["mrr@10"], 5)
    assert set(found["per_query"]) == set(small.QUERIES)
    for name in ("corpus", "queries", "judgements", "first stage"):
        assert re.fullmatch("[0-9a-f]{64}", report["settings"][f"en-test {name}"])
    assert report["timing"]["pairs"] == small.PAIRS
    assert report["settings"]["batch size"] == "auto"  # the CPU says what fits
    assert report["versions"]["pytrec_eval-terrier"]


def test_first_stage_and_reranked_stand_side_by_side(zoo: Zoo, data: Path) -> None:
    result = zoo("run", "zoo-reranker-tiny", "--mode", "valid", "--data-path", data)
    first = evaluate(small.CANDIDATES, small.QRELS)
    for name, value in first.items():
        assert re.search(rf"{re.escape(name)} +{value:.5f} +[\d.]+ +[+-][\d.]+", result.stderr), name
    for word in ("passages cut", "padding ratio", "pairs/s", "tokens/s", "p50 / p90 / p99", "tied scores"):
        assert word in result.stderr


def test_quiet_leaves_tecorigins_lines_alone(zoo: Zoo, data: Path) -> None:
    result = zoo("run", "zoo-reranker-tiny", "--mode", "valid", "--data-path", data, "-q")
    assert len(result.stdout.splitlines()) == 4
    assert "first stage" not in result.stderr


@pytest.mark.parametrize("layout", [small.beir, small.trec, small.hub], ids=lambda layout: layout.__name__)
def test_every_layout_gives_the_same_scores(layout: object, zoo: Zoo, data: Path, tmp_path: Path) -> None:
    assert callable(layout)
    run(zoo, "--data-path", data, "--output", tmp_path / "mldr-out")
    run(zoo, "--data-path", layout(tmp_path / "other"), "--output", tmp_path / "out")
    [ours] = (tmp_path / "out").glob("search_results/bge-m3/zoo-reranker-tiny/*-test.json")
    [theirs] = (tmp_path / "mldr-out").glob("search_results/bge-m3/zoo-reranker-tiny/*-test.json")
    assert json.loads(ours.read_text())["search_results"] == json.loads(theirs.read_text())["search_results"]


def test_a_batch_has_as_many_pairs_as_the_user_says(zoo: Zoo, data: Path) -> None:
    words = ("run", "zoo-reranker-tiny", "--mode", "valid", "--target", "cpu")  # a compiled engine has rows of its own
    report = json.loads(zoo(*words, "--data-path", data, "--batch-size", 5, "--json").stdout)
    assert report["settings"]["batch size"] == 5
    assert {batch["rows"] for batch in report["slowest_batches"]} == {5, 3}


def test_the_batch_size_changes_no_score_by_more_than_rounding(zoo: Zoo, data: Path, tmp_path: Path) -> None:
    found = []
    for size in (1, 7):
        run(zoo, "--data-path", data, "--batch-size", size, "--output", tmp_path / str(size))
        stored = json.loads((tmp_path / str(size) / "search_results/bge-m3/zoo-reranker-tiny/en-test.json").read_text())
        found.append(stored["search_results"])
    for query in small.QUERIES:
        assert found[0][query] == pytest.approx(found[1][query], abs=1e-4)


def test_the_page_needs_nothing_beside_it_and_shows_texts_escaped(zoo: Zoo, data: Path, tmp_path: Path) -> None:
    queries = data / "en" / "test_queries.jsonl"
    queries.write_bytes(queries.read_bytes().replace(b"what causes tides", b"<script>alert(1)</script> & tides"))
    # Only one of the two passages judged relevant is a candidate, so the query cannot be perfect and is shown.
    run(zoo, "--data-path", data)
    page = Path("zoo-results/zoo-reranker-tiny/mldr/report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert not re.findall(r"(?:src|href)=", page)
    assert page.count("<svg") == 2
    for text in ("Slowest batches", "Worst queries", "first stage", "p50 / p90 / p99"):
        assert text in page


def test_normalize_is_for_display_only(zoo: Zoo, data: Path, tmp_path: Path) -> None:
    run(zoo, "--data-path", data, "--output", tmp_path / "logits")
    run(zoo, "--data-path", data, "--output", tmp_path / "sigmoid", "--normalize")
    for name in ("en-test.reranked.trec", "search_results/bge-m3/zoo-reranker-tiny/en-test.json"):
        assert (tmp_path / "logits" / name).read_bytes() == (tmp_path / "sigmoid" / name).read_bytes()


def test_progress_is_plain_or_off_as_asked(zoo: Zoo, data: Path, tmp_path: Path) -> None:
    for style in ("plain", "off", "auto"):
        result = zoo(
            "run", "zoo-reranker-tiny", "--mode", "valid", "--data-path", data, "--progress", style, "--overwrite"
        )
        assert result.exit_code == 0
        assert "\x1b" not in result.stderr


def test_missing_candidates_are_said(zoo: Zoo, data: Path) -> None:
    kept = {q: found for q, found in small.CANDIDATES.items() if q != "q2"}
    small.write(data.parent / "en-test.json", small.first_stage("mldr", "en", search_results=kept))
    result = zoo("run", "zoo-reranker-tiny", "--mode", "valid", "--data-path", data)
    assert result.exit_code == 0, result.stderr
    assert "1 judged query has no candidates (the first is 'q2')" in result.stderr


def test_a_first_stage_that_found_nothing_for_a_query_counts_nothing(zoo: Zoo, data: Path) -> None:
    none: dict[str, dict[str, float]] = {query: {} for query in small.CANDIDATES}
    small.write(
        data.parent / "en-test.json", small.first_stage("mldr", "en", search_results={**none, "q1": {"p1": 1.0}})
    )
    result = zoo("run", "zoo-reranker-tiny", "--mode", "valid", "--data-path", data)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.endswith("eval_metric: 0.25\n")
    small.write(data.parent / "en-test.json", small.first_stage("mldr", "en", search_results=none))
    result = zoo("run", "zoo-reranker-tiny", "--mode", "valid", "--data-path", data, "--overwrite")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.endswith("eval_metric: 0.0\n")


def test_a_fault_in_the_data_is_told_before_the_model_is_opened(zoo: Zoo, data: Path) -> None:
    small.write(data.parent / "en-test.json", small.first_stage("mldr", "en", split="dev"))
    result = zoo("run", "bge-reranker-v2-m3", "--mode", "valid", "--data-path", data)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "--split dev" in result.stderr
    assert "weights" not in result.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--mode", "single", "--top-k", "5"], "--top-k belongs to --mode valid and --mode multi"),
        (["--mode", "single", "--long-doc", "max"], "--long-doc belongs to --mode valid"),
        (["--dataset", "mldr-mini"], "--dataset belongs to --mode valid"),
        (["--mode", "valid", "--data-path", "-"], "--data-path - belongs to --mode single"),
        (["--mode", "valid", "--output", __file__], "is a file; --mode valid writes a folder"),
        (["--mode", "single", "--output", "."], "is a folder; --mode single writes a file"),
        (["--mode", "valid", "--dataset", "mldr/"], "not of the form NAME or NAME/LANG"),
        (["--mode", "valid", "--dataset", "mldr/en", "--languages", "zh"], "both name languages"),
        (["--mode", "valid", "--languages", "en,,zh"], "is not a list of different names"),
        (["--mode", "valid", "--languages", "en,en"], "is not a list of different names"),
        (["--mode", "valid", "--long-doc", "sum"], "'sum' is not one of"),
        (["--mode", "valid", "--top-k", "0"], "0 is not in the range"),
        (["--mode", "valid", "--limit", "0"], "0 is not in the range"),
        (["--mode", "vaild"], "'vaild' is not one of"),
    ],
)
def test_an_option_that_does_not_fit_is_a_usage_error(args: list[str], says: str, zoo: Zoo) -> None:
    result = zoo("run", "zoo-reranker-tiny", *args)
    assert result.exit_code == 2
    assert says in result.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--dataset", "mldr-mni"], "Did you mean 'mldr-mini'"),
        (["--dataset", "mldr-mini/ez"], "Known: en, zh"),
        (["--split", "dev"], "there is no split"),
        (["--candidates", "nowhere.json", "--languages", "en"], "nowhere.json: no such file"),
        (["--candidates", ".", "--languages", "en"], "has no en-test.json"),
        (["--data-path", "nowhere"], "no such folder"),
    ],
)
def test_a_name_that_is_not_there_is_an_error(args: list[str], says: str, zoo: Zoo) -> None:
    result = zoo("run", "zoo-reranker-tiny", "--mode", "valid", *args)
    assert result.exit_code == 1
    assert says in result.stderr


def test_a_misspelt_model_is_told_before_the_data_is_read(zoo: Zoo) -> None:
    result = zoo("run", "zoo-reranker-tinny", "--mode", "valid", "--data-path", "nowhere")
    assert result.exit_code == 1
    assert "Did you mean 'zoo-reranker-tiny'" in result.stderr


def test_usage_errors_of_valid_mode_import_nothing_heavy() -> None:
    code = (
        "import sys\nfrom zoo.cli import main\n"
        "try: main(['run', 'zoo-reranker-tiny', '--mode', 'valid', '--dataset', '/'], standalone_mode=False)\n"
        "except Exception as error: print(error)\n"
        "print(sorted({'numpy', 'onnxruntime', 'tokenizers', 'pytrec_eval'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# The pieces of the report


def with_metrics(observer: object) -> Pipeline:
    pipeline = Pipeline([], [Participant("observer", observer, "'depth' (x 1)")])
    return pipeline.extended(Participant("metrics", MetricHooks()))


def small_result(tmp_path: Path, pipeline: Pipeline) -> Result:
    request = DataRequest(data_path=small.mldr(tmp_path))
    [collection] = open_collections(find_layouts(request), request)
    scores = {q: {p: float(-i) for i, p in enumerate(found)} for q, found in small.CANDIDATES.items()}
    return judge(
        pipeline, collection, scores, small.PAIRS, Reading(), load_card(bundled("models") / "zoo-reranker-tiny.toml")
    )


class Depth:
    @hookimpl
    def evaluate(self, run: Run, qrels: Qrels) -> dict[str, float]:
        return {"depth": sum(map(len, run.values())) / len(run)}


def test_a_guests_metric_stands_in_the_report(tmp_path: Path) -> None:
    result = small_result(tmp_path, with_metrics(Depth()))
    assert result.reranked["depth"] == small.PAIRS / len(small.QUERIES)


@pytest.mark.parametrize(
    ("stated", "used", "given", "says"),
    [
        ({}, {}, {}, "reproduced"),
        ({"value": 0.1}, {}, {}, "NOT reproduced"),
        ({}, {"limit": 3}, {}, "not comparable: the queries are limited (`limit`)"),
        ({}, {"top k": 50}, {}, "not comparable: `top_k` is 50 here, and 100 for the reference"),
        ({}, {"max length": 256}, {}, "not comparable: `max_length` is 256 here, and 512 for the reference"),
        ({}, {"query max length": 384}, {}, "not comparable: `query_max_length` is 384 here, and 512 for the reference"),
        ({"retriever": "bm25"}, {}, {}, "not comparable: the first stage is bge-m3 here, and bm25 for the reference"),
        ({"split": "dev"}, {}, {}, "not comparable: `split` is test here, and dev for the reference"),
        ({"top_k": None, "retriever": None}, {}, {},
         "not comparable: the card does not state the reference's first stage, `top_k`"),
        ({}, {"long documents": "max"}, {}, "not comparable: long passages are scored in chunks"),
        ({}, {}, {"instruction": "other"}, "not comparable: options differ from the card's: instruction (`model_options`)"),
        ({}, {}, {"instruction": "the card's"}, "reproduced"),
    ],
)  # fmt: skip
def test_the_cards_reference_value_is_held_against_a_result_of_the_same_settings(
    stated: dict[str, Any], used: dict[str, Any], given: dict[str, str], says: str, tmp_path: Path
) -> None:
    result = small_result(tmp_path, with_metrics(object()))
    measured = result.reranked["ndcg@10"]
    like: dict[str, Any] = {
        "value": measured, "retriever": "bge-m3", "top_k": 100, "max_length": 512, "query_max_length": 512, **stated
    }  # fmt: skip
    reference = Reference(dataset="mldr/en", metric="ndcg@10", tolerance=0.001, settings="s", source="a page", **like)
    settings = {
        "top k": 100, "max length": 512, "query max length": 512, "limit": None, "long documents": "truncate", **used
    }  # fmt: skip
    card = type("Card", (), {"reference": [reference], "options": {"instruction": "the card's"}})()
    checks = reference_checks(card, [result], settings, given)
    watch, stats = Stopwatch(), RunStats()
    [line] = [
        text
        for text in notes([result], checks, stats, Timing.of(1.0, watch, stats, 0, 0))
        if text.startswith("reference")
    ]
    assert line.endswith(f"measured {measured}, {says}")
    assert checks[0]["reproduced"] is {"reproduced": True, "NOT reproduced": False}.get(says)


def test_percentiles_are_values_that_were_measured() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [percentile(values, share) for share in (0.5, 0.9, 0.99)] == [3.0, 5.0, 5.0]
    assert percentile([], 0.5) == 0.0
    assert percentile([2.0], 0.01) == 2.0


# The bundled miniature, and collections that lie beside some checkouts


def test_the_miniature_is_what_its_description_says() -> None:
    root = bundled("datas") / "mldr-mini"
    request = DataRequest()
    collections = open_collections(find_layouts(request), request)
    assert [collection.language for collection in collections] == ["en", "zh"]
    for collection in collections:
        assert len(collection.queries) >= 30
        assert all(10 <= len(found) <= 20 for found in collection.candidates.values())
        for query, found in collection.candidates.items():
            relevant = [passage for passage, grade in collection.qrels[query].items() if grade > 0]
            assert len(relevant) == 1
            assert relevant[0] in found
    assert sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) < 400_000


@pytest.mark.parametrize("name", ["scifact", "cmrc2018-zh", "lareqa-en", "squality-long"])
def test_first_stage_figures_of_real_collections_equal_pytrec_evals(name: str) -> None:
    folder = SHARED / "assets" / "collections" / name
    if not folder.is_dir():
        pytest.skip("the labelled collections are not here")
    import pytrec_eval

    request = DataRequest(data_path=folder, candidates=folder / "bm25-top100.json")
    [collection] = open_collections(find_layouts(request), request)
    stored = json.loads((folder / "bm25-top100.json").read_text(encoding="utf-8"))["search_results"]
    qrels: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, passage, grade = line.split("\t")
        qrels.setdefault(query, {})[passage] = int(grade)
    found = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"}).evaluate(stored)
    expected = sum(values["ndcg_cut_10"] for values in found.values()) / len(found)
    assert evaluate(collection.candidates, collection.qrels)["ndcg@10"] == round(expected, 5)
