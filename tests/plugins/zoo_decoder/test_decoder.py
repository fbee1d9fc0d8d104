"""The decoder as users meet it: its template and options, instructions in JSON lines, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_publishers import catalogue, opened

from families import TORCH_JIT, make_decoder
from zoo.checkpoints.resolve import resolve
from zoo.cli.single import score_pairs
from zoo.errors import ZooError
from zoo.settings import RunSettings
from zoo.types import Pair
from zoo_decoder.template import Template

pytestmark = [pytest.mark.export, TORCH_JIT]
CARD = "qwen3-reranker-0.6b"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("decoder")
    make_decoder(place, "qwen3")
    return place


def test_a_template_is_read_in_its_pieces() -> None:
    template = Template.parse("a{|}b {query}{|}c{|}{document} d{|}e{|}f")
    assert [piece.text for piece in (*template.before, template.query)] == ["a", "b {query}"]
    assert [piece.text for piece in (*template.between, template.document)] == ["c", "{document} d"]
    assert [piece.text for piece in template.after] == ["e", "f"]
    assert not template.joined
    assert Template.parse("{query}: {document}").joined
    assert Template.parse("none").query.filled(query="q", document="d") == "qd"


def test_what_is_put_in_is_not_searched_for_places() -> None:
    piece = Template.parse("{instruction}|{query}|{document}").query
    assert piece.filled(query="{document}", document="{query}", instruction="{x}") == "{x}|{document}|{query}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{query} {passage}", "has the place {passage}"),
        ("{query}", "must have {query} once and, behind it, {document} once"),
        ("{document} {query}", "must have {query} once"),
        ("{query} {query} {document}", "must have {query} once"),
        ("", "must have {query} once"),
    ],
)
def test_a_template_that_cannot_be_right_is_refused(text: str, said: str) -> None:
    with pytest.raises(ZooError) as caught:
        Template.parse(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"template": "{query}"}, "a template must have"),
        ({"positive": "several tokens of text"}, "what is scored must be one"),
        ({"positive": ""}, "'negative' of 'qwen3-reranker-0.6b' needs 'positive'"),
        ({"instructions": "x"}, "Did you mean 'instruction'"),
        ({"shared_prefix": "maybe"}, "it takes on, off"),
    ],
)
def test_options_that_cannot_be_right_are_refused(folder: Path, options: dict[str, str], said: str) -> None:
    with pytest.raises(ZooError) as caught:
        opened(CARD, folder, model_options=options)
    assert said in str(caught.value)


def test_a_length_that_the_template_fills_is_refused_before_anything_runs(folder: Path) -> None:
    with pytest.raises(ZooError, match=r"a length of 60 leaves no room beside the \d+ tokens of the template"):
        opened(CARD, folder, max_length=60)


def test_a_card_without_a_template_is_refused(folder: Path, tmp_path: Path) -> None:
    card = tmp_path / "bare.toml"
    card.write_text(
        "description = 'd'\narchitecture = 'decoder'\nlicense = 'MIT'\nlanguages = ['en']\nmax_length = 99\n"
    )
    with pytest.raises(ZooError, match="'bare' is a language model, and no template says what to ask it"):
        opened(str(card), folder, max_length=90)


def test_a_language_model_without_a_card_is_refused_with_the_way_out(folder: Path) -> None:
    with pytest.raises(
        ZooError, match=r"'Qwen3ForCausalLM' is a language model.*Write a card with architecture = .decoder."
    ):
        resolve(catalogue(), str(folder))


def test_texts_that_are_in_a_template_already_are_left_as_they_are(folder: Path) -> None:
    with opened(CARD, folder) as reranker:
        [row] = reranker.pipeline.preprocess([Pair("q", "d")]).rows
        right = reranker.score([("q", "d")])
        options = reranker.card.options
    whole = str(options["template"]).replace("{|}", "").replace("{instruction}", str(options["instruction"]))
    query, _, document = whole.partition("{query}")
    with opened(CARD, folder, model_options={"template": "none"}, query_max_length=256) as reranker:
        pair = (f"{query}q", document.replace("{document}", "d"))
        [same] = reranker.pipeline.preprocess([Pair(*pair)]).rows
        assert same.features == row.features
        np.testing.assert_allclose(reranker.score([pair]), right, atol=1e-6)


def test_a_line_of_json_may_bring_its_instruction(folder: Path, tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"query": "q", "passage": "d"},
        {"query": "q", "passage": "d", "instruction": "Find pandas"},
    ]
    data, out = tmp_path / "pairs.jsonl", tmp_path / "out.jsonl"
    data.write_text("\n".join(json.dumps(line) for line in lines))
    settings = RunSettings(model=CARD, config_path=folder, target="graph-reference", max_length=256)
    score_pairs(catalogue(), settings, str(data), output=out, as_json=True, normalize=False, style="off")
    first, second = (json.loads(line) for line in out.read_text().splitlines())
    assert "instruction" not in first
    assert second["instruction"] == "Find pandas"
    assert first["logit"] != second["logit"]
    with opened(CARD, folder) as reranker:
        right = reranker.score([("q", "d"), ("q", "d", "Find pandas")])
    np.testing.assert_allclose([first["logit"], second["logit"]], right, atol=1e-5)
    data.write_text(json.dumps({**lines[0], "instruction": 5}))
    with pytest.raises(ZooError, match="has a int where the text of an instruction belongs"):
        score_pairs(catalogue(), settings, str(data), output=out, as_json=True, normalize=False, style="off")


def test_a_model_that_reads_no_instructions_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import logging

    from families import make

    make(tmp_path, "bert")
    logging.getLogger("zoo").propagate = True
    with opened("ms-marco-minilm-l6-v2", tmp_path) as reranker, caplog.at_level(logging.WARNING, logger="zoo"):
        with_one, without = reranker.score([("q", "d", "Find pandas")]), reranker.score([("q", "d")])
        reranker.score([("q", "d", "Find pandas")])
    assert with_one.tolist() == without.tolist()
    told = {id(record): record.getMessage() for record in caplog.records}  # a handler may be on two loggers
    assert sum("reads no instructions" in message for message in told.values()) == 1
