"""Ids and scores are those of the publishers' own recipes, padded on the left, on random checkpoints of each architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import publishers
import zoo_cross_encoder
import zoo_decoder
import zoo_torch
from families import PAIRS, TORCH_JIT, make_decoder
from graph_device import GraphPlugin
from torch_device import TorchPlugin
from zoo import Reranker
from zoo.registry.catalogue import Catalogue
from zoo.types import Pair

pytestmark = [pytest.mark.export, TORCH_JIT]

CARDS = {"qwen3-reranker-0.6b": "qwen3", "mxbai-rerank-base-v2": "qwen2", "bge-reranker-v2-gemma": "gemma"}
ANSWERS = {
    "qwen3-reranker-0.6b": ("yes", "no"),
    "mxbai-rerank-base-v2": ("1", "0"),
    "bge-reranker-v2-gemma": ("Yes", None),
}
LONG = [
    ("what is panda? " * 3, "The giant panda eats bamboo. " * 200),
    ("a long query of many words " * 80, "short"),
    ("q", ""),
]
HARD = [
    ("{document} {instruction} {|}", "{query} 大熊猫"),
    ("a\n\nb", "<|im_end|> <bos> </think>"),
    (" lead", "trail \n"),
    ("", ""),
]
EVERY = [*PAIRS, *LONG, *HARD]
LENGTH, QUERY_LIMIT = 256, 64


def catalogue() -> Catalogue:
    return Catalogue.of(
        cards=zoo_cross_encoder, decoder=zoo_decoder, torch=zoo_torch, reference=TorchPlugin(), graph=GraphPlugin()
    )


def opened(card: str, folder: Path, device: str = "graph-reference", **settings: Any) -> Reranker:
    limits = {"max_length": LENGTH, "query_max_length": QUERY_LIMIT}
    return Reranker.open(card, device=device, checkpoint=folder, catalogue=catalogue(), **{**limits, **settings})


def recipe(card: str, folder: Path, pairs: Sequence[tuple[str, str]], **changes: Any) -> tuple[Any, list[list[int]]]:
    """The publisher's tokenizer and ids. Qwen's has no limit of the query's own."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    made: dict[str, Callable[..., list[list[int]]]] = {
        "qwen3-reranker-0.6b": publishers.qwen3, "mxbai-rerank-base-v2": publishers.mxbai, "bge-reranker-v2-gemma": publishers.gemma,
    }  # fmt: skip
    limit = {} if card.startswith("qwen3") else {"query_limit": QUERY_LIMIT}
    return tokenizer, made[card](tokenizer, pairs, LENGTH, **{**limit, **changes})


def scores_of(card: str, model: Any, tokenizer: Any, rows: list[list[int]]) -> Any:
    logits = publishers.last_logits(model, rows, tokenizer.pad_token_id)
    positive, negative = ANSWERS[card]
    score = logits[:, tokenizer.convert_tokens_to_ids(positive)]
    return (score if negative is None else score - logits[:, tokenizer.convert_tokens_to_ids(negative)]).numpy()


@pytest.mark.parametrize("card", CARDS)
def test_ids_are_the_publishers(tmp_path: Path, card: str) -> None:
    make_decoder(tmp_path, CARDS[card])
    pairs = EVERY if not card.startswith("qwen3") else [pair for pair in EVERY if len(pair[0]) < QUERY_LIMIT]
    _, rows = recipe(card, tmp_path, pairs)
    with opened(card, tmp_path) as reranker:
        encodings = reranker.pipeline.preprocess([Pair(*pair) for pair in pairs])
    for pair, encoding, row in zip(pairs, encodings.rows, rows, strict=True):
        assert list(encoding.features["input_ids"]) == row, pair
        assert encoding.length <= LENGTH


@pytest.mark.parametrize("device", ["torch-reference", "graph-reference", "torch"])
@pytest.mark.parametrize("card", CARDS)
def test_scores_are_the_publishers(tmp_path: Path, card: str, device: str) -> None:
    model = make_decoder(tmp_path, CARDS[card])
    pairs = [pair for pair in EVERY if len(pair[0]) < QUERY_LIMIT]
    tokenizer, rows = recipe(card, tmp_path, pairs)
    right = scores_of(card, model, tokenizer, rows)
    with opened(card, tmp_path, device) as reranker:
        scores = reranker.score(pairs)
    assert np.std(right) > 1e-2
    np.testing.assert_allclose(scores, right, atol=1e-4)


@pytest.mark.parametrize("card", ["qwen3-reranker-0.6b", "mxbai-rerank-base-v2"])
def test_an_instruction_comes_from_the_option_or_with_the_pair(tmp_path: Path, card: str) -> None:
    make_decoder(tmp_path, CARDS[card])
    said = "Find {query} passages about 熊猫"
    pairs = [("what is panda?", "hi"), ("q", "d")]
    _, rows = recipe(card, tmp_path, pairs, instruction=said)
    with opened(card, tmp_path, model_options={"instruction": said}) as reranker:
        by_option = reranker.pipeline.preprocess([Pair(*pair) for pair in pairs]).rows
        scores = reranker.score(pairs)
    assert [list(row.features["input_ids"]) for row in by_option] == rows
    with opened(card, tmp_path) as reranker:
        by_pair = reranker.pipeline.preprocess([Pair(*pair, said) for pair in pairs]).rows
        assert [list(row.features["input_ids"]) for row in by_pair] == rows
        np.testing.assert_allclose(reranker.score([(*pair, said) for pair in pairs]), scores, atol=1e-6)
        ranked = reranker.rank("q", ["d", "e"], instruction=said)
        assert {each.passage for each in ranked} == {"d", "e"}
        assert next(each.score for each in ranked if each.passage == "d") == pytest.approx(scores[1], abs=1e-6)


def test_the_conversion_to_a_classifier_gives_the_same_scores(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    model = make_decoder(tmp_path / "lm", "qwen3")
    label = make_decoder(tmp_path / "label", "qwen3-label")
    label.model.load_state_dict(model.model.state_dict())
    card = "qwen3-reranker-0.6b"
    with opened(card, tmp_path / "lm") as reranker:
        right = reranker.score(PAIRS)
        yes, no = reranker.artifact.head["positive"], reranker.artifact.head["negative"]
    with torch.no_grad():
        label.score.weight[0] = model.lm_head.weight[yes] - model.lm_head.weight[no]
    label.save_pretrained(tmp_path / "label")
    template = catalogue().card(card).options["template"]
    text = "description = 'd'\narchitecture = 'decoder'\nlicense = 'MIT'\nlanguages = ['en']\nmax_length = 4096\nbundled = 'label'\n"
    (tmp_path / "own.toml").write_text(
        f'{text}[options]\ninstruction = "{publishers.QWEN_INSTRUCTION}"\ntemplate = """\n{template}"""\n'
    )
    with Reranker.open(
        str(tmp_path / "own.toml"),
        device="graph-reference",
        max_length=LENGTH,
        query_max_length=QUERY_LIMIT,
        catalogue=catalogue(),
    ) as reranker:
        np.testing.assert_allclose(reranker.score(PAIRS), right, atol=1e-5)


@pytest.mark.parametrize("card", CARDS)
def test_a_long_text_never_costs_the_end_of_the_template(tmp_path: Path, card: str) -> None:
    make_decoder(tmp_path, CARDS[card])
    length = {"qwen3-reranker-0.6b": 200, "mxbai-rerank-base-v2": 250, "bge-reranker-v2-gemma": 120}[card]
    with opened(card, tmp_path, max_length=length, query_max_length=512) as reranker:
        [short] = reranker.pipeline.preprocess([Pair("q", "d")]).rows
        rows = reranker.pipeline.preprocess([Pair(*pair) for pair in LONG[:2]]).rows
    end = list(short.features["input_ids"])[-10:]
    for row in rows:
        assert list(row.features["input_ids"])[-10:] == end
        assert row.passage_truncated or row.query_truncated
    assert rows[1].query_truncated
