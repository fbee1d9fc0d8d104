"""What a model cannot read is said: tokens that its vocabulary does not know, and languages that its card does not name."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

import zoo_cross_encoder
from conftest import Zoo
from families import TORCH_JIT, make
from torch_device import TorchPlugin
from zoo.cli.single import score_pairs
from zoo.evaluation.reading import LANGUAGES, Reading, language_warnings
from zoo.paths import bundled
from zoo.registry.card import load_card
from zoo.registry.catalogue import Catalogue
from zoo.settings import RunSettings

pytestmark = [pytest.mark.export, TORCH_JIT]
READABLE = [("what is panda", "the giant panda eats bamboo")] * 20
UNREADABLE = ("ၵၸ ၵၸၹ ၵၸ", "ၵၸၹ ၵၸ ၵ ၸ ၹ")


def warned(folder: Path, pairs: list[tuple[str, str]], caplog: pytest.LogCaptureFixture) -> str:
    """What ``single`` warns of when it scores ``pairs`` with a random BERT of a vocabulary trained on the bundled texts."""
    make(folder, "bert")
    data = folder / "pairs.jsonl"
    data.write_text(
        "\n".join(json.dumps({"query": query, "passage": passage}) for query, passage in pairs), encoding="utf-8"
    )
    catalogue = Catalogue.of(cards=zoo_cross_encoder, torch=TorchPlugin())
    settings = RunSettings(model="bge-reranker-v2-m3", config_path=folder, target="torch-reference")
    logging.getLogger("zoo").propagate = True  # a command of an earlier test may have taken its messages
    with caplog.at_level(logging.WARNING, logger="zoo"):
        score_pairs(catalogue, settings, str(data), output=folder / "out", as_json=True, normalize=False, style="off")
    return "\n".join(record.getMessage() for record in caplog.records)


def test_a_run_of_text_that_the_vocabulary_does_not_know_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert "% of this input is unknown to the model's vocabulary" in warned(tmp_path, [UNREADABLE] * 3, caplog)


def test_one_such_query_among_others_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    said = warned(tmp_path, [*READABLE * 3, UNREADABLE], caplog)
    assert "1 of 61 pairs are more than 25 % unknown" in said
    assert "ၵၸ" in said


def test_text_that_is_known_is_not_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert "unknown" not in warned(tmp_path, READABLE, caplog)


def test_counts_are_by_query_and_for_the_collection() -> None:
    reading = Reading.of({"a": (8, 10), "b": (0, 90)}, {"q1": "a", "q2": "b", "q3": "never asked"})
    assert (reading.unknown, reading.tokens, reading.share) == (8, 100, 0.08)
    assert reading.queries == {"q1": 0.8}
    assert reading.warnings("xx") == [
        "xx: 8% of this input is unknown to the model's vocabulary; it ranks what it cannot read"
    ]
    few = Reading.of({"a": (8, 10), "b": (0, 990)}, {"q1": "a", "q2": "b"})
    assert few.warnings("xx") == [
        "xx: of 1 queries more than 5% of the input is unknown to the model's vocabulary (most of 'q1': 80%)"
    ]
    assert Reading.of({"a": (1, 100)}, {"q": "a"}).warnings("xx") == []


def test_a_language_that_the_card_does_not_name_is_warned_of() -> None:
    tiny, m3 = (load_card(bundled("models") / f"{name}.toml") for name in ("zoo-reranker-tiny", "bge-reranker-v2-m3"))
    assert language_warnings(tiny, "ar", "ar-test") == [
        "ar-test: the card of 'zoo-reranker-tiny' names the languages en, zh, and this is 'ar'"
    ]
    assert language_warnings(tiny, "zh-Hant", "x") == []
    assert language_warnings(tiny, "EN", "x") == []
    assert language_warnings(tiny, "scifact", "x") == [], "a part of a data set that is not called by a language"
    assert language_warnings(m3, "ar", "x") == [], "it is multilingual"
    assert {"en", "zh", "ar", "ja"} <= LANGUAGES


def test_a_report_has_the_share_of_each_language_and_query(zoo: Zoo, tmp_path: Path) -> None:
    result = zoo(
        "run", "zoo-reranker-tiny", "--mode", "valid", "--limit", "1", "--output", tmp_path / "out", "--progress", "off"
    )
    assert result.exit_code == 0, result.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    for language in report["results"]:
        assert language["tokens"] > 100
        assert 0 <= language["unknown_share"] < 0.05
        assert all("unknown_share" in query for query in language["per_query"].values())


def test_a_data_set_in_another_language_is_warned_of_in_a_run(zoo: Zoo, tmp_path: Path) -> None:
    folder = tmp_path / "sets" / "ar"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(
        '{"_id": "d1", "text": "باندا"}\n{"_id": "d2", "text": "قط"}\n', encoding="utf-8"
    )
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "ما هي الباندا"}\n', encoding="utf-8")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    (folder / "run.trec").write_text("q1 Q0 d1 1 2.0 x\nq1 Q0 d2 2 1.0 x\n")
    words = ("--mode", "valid", "--data-path", folder.parent, "--candidates", folder / "run.trec", "--progress", "off")
    result = zoo("run", "zoo-reranker-tiny", *words, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert "names the languages en, zh, and this is 'ar'" in result.stderr
    assert "names the languages" in json.dumps(
        json.loads((tmp_path / "out" / "report.json").read_text())["results"][0]["warnings"]
    )
