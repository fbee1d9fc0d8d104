"""The page of a run: what it says of the figures, and how texts of any language stand in it."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

import small_collection as small
from zoo.evaluation.datasets import DataRequest, find_layouts, open_collections
from zoo.evaluation.html import page
from zoo.evaluation.metrics import MetricHooks
from zoo.evaluation.notes import notes, table
from zoo.evaluation.reading import Reading
from zoo.evaluation.report import document
from zoo.evaluation.rerank import Result, judge
from zoo.evaluation.timing import Stopwatch, Timing
from zoo.paths import bundled
from zoo.registry.card import load_card
from zoo.registry.participants import Participant
from zoo.registry.stages import Pipeline
from zoo.scoring.scorer import RunStats

pytestmark = pytest.mark.lowest

ARABIC = "ما الذي يسبب المد والجزر؟"
VOID = {"meta", "path"}


class Nesting(HTMLParser):
    """Refuses an end tag that closes another element, as browsers would have to guess; keeps the text and the direction around it."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, list[tuple[str, dict[str, str | None]]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not (tag == "p" and any(name == "p" for name, _ in self.open)), "a paragraph inside a paragraph"
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((data, list(self.open)))


def result(folder: Path, gains: dict[str, bool], *, queries: dict[str, str] | None = None) -> Result:
    """``gains`` tells of each query whether reranking brings its relevant passage from the second place to the first, or down."""
    request = DataRequest(data_path=small.mldr(folder))
    [found] = open_collections(find_layouts(request), request)
    candidates = {query: {"p1": 1.0, "p2": 2.0 if up else 0.0} for query, up in gains.items()}
    collection = replace(
        found,
        queries=queries or dict.fromkeys(gains, "a query"),
        qrels={query: {"p1": 1} for query in gains},
        candidates=candidates,
    )
    run = {query: {"p1": 1.0, "p2": 0.0 if up else 2.0} for query, up in gains.items()}
    pipeline = Pipeline([], []).extended(Participant("metrics", MetricHooks()))
    card = load_card(bundled("models") / "zoo-reranker-tiny.toml")
    return judge(pipeline, collection, run, collection.pairs, Reading(), card)


def shown(results: list[Result]) -> str:
    timing = Timing.of(1.0, Stopwatch(), RunStats(), 0, 0)
    settings = {"model": "m", "data set": "d", "languages": ["en"], "split": "test"}
    return page(document(settings, results, [], RunStats(), timing, [], {}, {}), results)


def gaining(up: int, down: int) -> dict[str, bool]:
    return {f"q{number}": number < up for number in range(up + down)}


@pytest.mark.parametrize(
    ("up", "down", "says"),
    [
        (12, 0, "better than the first stage's 0.6309"),
        (0, 12, "worse than the first stage's 1.0000"),
        (7, 5, "within noise of the first stage's 0.7847"),
        (3, 1, "too few queries to tell whether that is chance (4; at least 6"),
    ],
)
def test_the_verdict_stands_in_words_beside_the_figure(up: int, down: int, says: str, tmp_path: Path) -> None:
    found = result(tmp_path, gaining(up, down))
    text = re.sub("<[^>]+>", "", shown([found])).replace("&#x27;", "'")
    head = text.partition("en-test")[0]
    assert says in head
    assert says in "\n".join(table([found]))
    if "few" not in says:
        assert f"paired t-test over {up + down} queries, p " in head


def test_report_json_has_the_verdict_of_each_language_and_of_the_mean(tmp_path: Path) -> None:
    results = [result(tmp_path / "a", gaining(12, 0)), result(tmp_path / "b", gaining(0, 12))]
    timing = Timing.of(1.0, Stopwatch(), RunStats(), 0, 0)
    made = document({}, results, [], RunStats(), timing, [], {}, {})
    assert [each["against_first_stage"]["verdict"] for each in made["results"]] == ["better", "worse"]
    assert made["against_first_stage"] == {
        "metric": "ndcg@10", "verdict": "within noise", "queries": 24, "difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0,
    }  # fmt: skip


def test_texts_and_ids_have_a_direction_of_their_own(tmp_path: Path) -> None:
    query = "ما-7"
    found = result(
        tmp_path, {query: False, **gaining(6, 0)}, queries={**dict.fromkeys(gaining(6, 0), "q"), query: ARABIC}
    )
    parser = Nesting()
    parser.feed(shown([found]))
    assert not parser.open
    assert all(
        any(attributes.get("dir") == "auto" for _, attributes in around)
        for text, around in parser.texts
        if ARABIC in text or small.PASSAGES["p1"] in text
    )
    ids = [around[-1][0] for text, around in parser.texts if text.strip() in (query, "p1", "bge-m3")]
    assert ids
    assert set(ids) == {"bdi"}
    assert any(ARABIC in text for text, _ in parser.texts)


def test_counts_are_spelled_as_their_number_asks(tmp_path: Path) -> None:
    one = replace(result(tmp_path, gaining(1, 0)), chunks=3)
    one = replace(one, collection=replace(one.collection, missing=("q9",), identical=1, absent=("p9",)))
    text = "\n".join([*table([one]), *notes([one], [], RunStats(pairs=1, queries_truncated=1), _timing())])
    for said in (
        "1 query, 2 candidates by", "1 judged query has no candidates", "leave it out", "1 candidate had the id of its own query",
        "1 judged passage is not in the corpus", "counts as not found", "in 3 chunks", "0 of 1 passage cut, 1 query cut",
    ):  # fmt: skip
        assert said in text, said
    assert not re.search(r"\b1 (?:\w+ )?(?:queries|candidates|passages|pairs|chunks|batches|scores)\b", text)
    plots = re.sub("<[^>]+>", "", shown([result(tmp_path / "b", gaining(1, 1))]))
    assert "1 query gains, 1 loses, 0 stay (of 2, sorted)" in plots


def _timing() -> Timing:
    return Timing.of(1.0, Stopwatch(), RunStats(), 0, 0)


def test_words_in_plots_are_no_part_of_the_drawing_that_shrinks(tmp_path: Path) -> None:
    html = shown([result(tmp_path, gaining(6, 2))])
    assert html.count("<svg") == 2
    assert "<text" not in html
    sizes = [float(size) for size in re.findall(r"font(?:-size)?: ?([\d.]+)px", html)]
    assert sizes
    assert min(sizes) >= 13


def test_tables_that_may_scroll_say_so_and_the_page_knows_dark_screens(tmp_path: Path) -> None:
    html = shown([result(tmp_path, gaining(6, 2))])
    assert html.count("This table scrolls sideways.") == html.count("<table") > 0
    [least] = re.findall(r"table {[^}]*min-width: ([\d.]+)rem", html)
    [narrower] = re.findall(r"@container \(max-width: ([\d.]+)rem\) { \.scrolls { display: block", html)
    assert float(least) == pytest.approx(
        float(narrower), abs=0.02
    )  # the hint is there exactly where the table is wider
    assert "prefers-color-scheme: dark" in html
    assert '<meta name="color-scheme" content="light dark">' in html


def test_a_metric_that_the_first_stage_lacks_is_left_blank(tmp_path: Path) -> None:
    found = result(tmp_path, gaining(6, 2))
    found = replace(found, reranked={**found.reranked, "depth": 2.0})
    assert "<bdi>depth</bdi></td><td class=n>–</td><td class=n>2.00000</td><td class=n>–</td>" in shown([found])
