"""Decoders on SDAA: the graph takes no past there, is compiled for fixed shapes, and gives what the processor gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from direct_checkpoints import DECODERS, write
from families import GEMMA_SPECIALS, QWEN_SPECIALS, decoder_tokenizer
from sdaa_fixtures import Command
from zoo_sdaa.testing import Fake

pytest.importorskip("onnx")
pytestmark = [pytest.mark.export]

CARDS = {"qwen3-reranker-0.6b": "qwen3", "mxbai-rerank-base-v2": "qwen2", "bge-reranker-v2-gemma": "gemma"}
LENGTH, LONG = 192, "The giant panda eats bamboo and more bamboo. " * 40
PAIRS = [("what is panda?", passage) for passage in ("hi", "The giant panda is a bear.", LONG, "", "大熊猫")] + [
    ("a long query of many words " * 8, "short"),
    ("q", "d"),
]


def checkpoint(folder: Path, kind: str) -> Path:
    """Random weights, and a tokenizer that knows the answers as one token each."""
    specials = GEMMA_SPECIALS if kind == "gemma" else QWEN_SPECIALS
    tokenizer = decoder_tokenizer(specials)
    write(folder, {**DECODERS[kind], "vocab_size": tokenizer.get_vocab_size(), "pad_token_id": 0})
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"pad_token": specials[0], **({"bos_token": "<bos>", "eos_token": "<eos>"} if kind == "gemma" else {})}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder


@pytest.mark.parametrize(("card", "kind"), CARDS.items())
def test_a_decoder_gives_on_cards_what_it_gives_on_the_processor(
    fake: Fake, command: Command, tmp_path: Path, card: str, kind: str
) -> None:
    folder, data = checkpoint(tmp_path / "checkpoint", kind), tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))

    def logits(*options: object) -> list[float]:
        asked = ("--config-path", folder, "--shape", LENGTH, "--data-path", data, "--batch-size", 8)
        result = command("run", card, *asked, "--offline", "--json", *options)
        assert result.exit_code == 0, result.stderr
        return [json.loads(line)["logit"] for line in result.stdout.splitlines()]

    right = np.array(logits("--target", "cpu", "--precision", "fp32"))
    assert right.std() > 0.01
    np.testing.assert_allclose(logits("--target", "sdaa", "--precision", "fp32"), right, atol=1e-5)
    half = np.array(logits("--target", "sdaa"))
    assert 0 < np.abs(half - right).max() < 0.01 * np.abs(right).max()
    assert {event["half"] for event in fake.events("build")} == {False, True}
    for event in fake.events("build"):
        assert set(event["shapes"]) == {"input_ids", "attention_mask"}
