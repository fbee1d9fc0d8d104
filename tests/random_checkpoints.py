"""Small checkpoints: random ones of two families, which need torch and transformers, and one without weights, which needs onnx."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

WORDS = [
    *"abcdefghijklmnopqrstuvwxyz0123456789?!.,",
    "what",
    "is",
    "panda",
    "the",
    "giant",
    "bear",
    "hi",
    "大熊猫",
    "吃什么",
]


def make_checkpoint(folder: Path, family: str = "xlm-roberta", *, seed: int = 7, **config: Any) -> Any:
    """Write a checkpoint whose scores differ between pairs; returns its torch model."""
    torch = pytest.importorskip("torch", reason="a checkpoint to export is made by torch")
    transformers = pytest.importorskip("transformers", reason="a checkpoint to export is made by transformers")
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    size = make_tokenizer(folder, family)
    shape = {
        "vocab_size": size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "num_labels": 1,
        "initializer_range": 0.5,
        **config,
    }
    if family == "bert":
        model = transformers.BertForSequenceClassification(transformers.BertConfig(pad_token_id=0, **shape))
    else:
        model = transformers.XLMRobertaForSequenceClassification(
            transformers.XLMRobertaConfig(max_position_embeddings=514, type_vocab_size=1, pad_token_id=1, **shape)
        )
    model.eval().save_pretrained(folder)
    return model


def make_tokenizer(folder: Path, family: str) -> int:
    """A word-level tokenizer with the family's special tokens and template; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    bert = family == "bert"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] if bert else ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = {token: number for number, token in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special[1] if bert else special[3]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Split("", "isolated")]
    )
    first, last = ("[CLS]", "[SEP]") if bert else ("<s>", "</s>")
    pair = "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1" if bert else "<s> $A </s> </s> $B </s>"
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=pair,
        special_tokens=[(first, vocabulary[first]), (last, vocabulary[last])],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": special[0] if bert else special[1], "unk_token": special[1] if bert else special[3]}
    (folder / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")
    return len(vocabulary)


def exported_only(source: Path, folder: Path) -> Path:
    """The exported model of ``source`` in one file, with its tokenizer and config and without other weights."""
    onnx = pytest.importorskip("onnx", reason="the model file is put together with onnx")
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder)
    from zoo.api import load_onnx

    onnx.save(load_onnx(source / "model.onnx"), str(folder / "model.onnx"))
    return folder


def weights_only(source: Path, folder: Path) -> Path:
    """A copy of the checkpoint of ``source``, without an exported model."""
    folder.mkdir(parents=True)
    for path in (*source.glob("*.json"), source / "model.safetensors"):
        shutil.copy(path, folder)
    return folder


def bert_folder(folder: Path, **config: object) -> Path:
    """A BERT tokenizer of a few hundred pieces, whose own settings differ from the defaults where ``config`` says so."""
    folder.mkdir(parents=True)
    letters = [chr(c) for c in range(97, 123)] + [chr(c) for c in range(65, 91)]
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{c}" for c in letters),
        *"0123456789.,?!-熊猫中国",
    ]
    pieces += ["what", "is", "panda", "the", "giant", "bear", "##s", "##ing", "é"]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(pieces)) + "\n", encoding="utf-8")
    transformers = pytest.importorskip("transformers", reason="the reference tokenizer is transformers'")
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"), **config)
    tokenizer.save_pretrained(folder)
    settings_path = folder / "tokenizer_config.json"
    saved = json.loads(settings_path.read_text(encoding="utf-8"))
    settings_path.write_text(json.dumps(saved | config), encoding="utf-8")
    return folder


def torch_export(model: Any, folder: Path, *, token_types: bool) -> None:
    """A plain torch export with dynamic axes, independent of the project's own."""
    import torch

    names = ["input_ids", "attention_mask", *(["token_type_ids"] if token_types else [])]
    ids = torch.randint(5, 40, (2, 7))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    torch.onnx.export(
        model, (), str(folder / "model.onnx"), kwargs={name: inputs[name] for name in names}, input_names=names,
        output_names=["logits"], dynamic_axes={name: {0: "batch", 1: "sequence"} for name in names}, dynamo=False, opset_version=17,
    )  # fmt: skip
