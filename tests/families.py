"""Random checkpoints of the families that cards name, each with a tokenizer of its kind trained on the bundled texts.

They need torch and transformers, which are the reference too. ``make(folder, "bert")`` writes one and returns its torch model.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from conftest import ROOT

TORCH_JIT = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
"""transformers' DeBERTa uses it when it is imported, which other families' classes may cause."""
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
QUERIES = ("what is panda?", "What is Panda?", "大熊猫吃什么", "q", "")
PASSAGES = (
    "hi",
    "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear or simply panda, is a bear species endemic to China.",
    "大熊猫主要以竹子为食。 Éclair naïve STRASSE ß",
    "",
    "The Panda eats bamboo and more bamboo. " * 30,
    "a\tb\n\nc  d </s> [SEP] <|im_end|> 2026",
)
PAIRS = [(query, passage) for query in QUERIES for passage in PASSAGES]


@functools.cache
def texts() -> list[str]:
    """Passages of the bundled miniature collection."""
    found = []
    for path in sorted((ROOT / "datas" / "mldr-mini").rglob("corpus.jsonl")):
        found += [json.loads(line)["text"][:2000] for line in path.read_text(encoding="utf-8").splitlines()[:150]]
    return [*found, "what is panda? hi the giant panda yes no Yes No 0 1"]


def wordpiece(*, lower: bool = True, specials: tuple[str, ...] = BERT_SPECIALS, size: int = 2000) -> Tokenizer:
    _, unknown, first, last, _ = specials
    tokenizer = Tokenizer(models.WordPiece(unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        texts(), trainers.WordPieceTrainer(vocab_size=size, special_tokens=[*specials], show_progress=False)
    )
    _join(tokenizer, f"{first}:0 $A:0 {last}:0", f"{first}:0 $A:0 {last}:0 $B:1 {last}:1", first, last)
    return tokenizer


def unigram(specials: tuple[str, ...], pair: str, *, size: int = 2000) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace("\n", " "), normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    unknown = next(token for token in specials if "unk" in token.lower())
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=[*specials], unk_token=unknown, show_progress=False
    )
    tokenizer.train_from_iterator(texts(), trainer)
    _join(tokenizer, pair.partition(" $B")[0], pair, pair.split()[0], pair.split()[-1])
    return tokenizer


def byte_level(specials: tuple[str, ...], pair: str = "", *, size: int = 2000, first: bool = False) -> Tokenizer:
    """Byte-level BPE; special tokens get the highest ids, as in newer models, unless they come ``first``."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    low = [*specials] if first else []
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, special_tokens=low, show_progress=False)
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.add_special_tokens([*specials])
    if pair:
        _join(tokenizer, pair.partition(" $B")[0], pair, pair.split()[0], pair.split()[-1])
    return tokenizer


def _join(tokenizer: Tokenizer, single: str, pair: str, first: str, last: str) -> None:
    clean = (first.partition(":")[0], last.partition(":")[0])
    ids = [(token, tokenizer.token_to_id(token)) for token in dict.fromkeys(clean)]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)


ROBERTA_PAIR = "<s> $A </s> </s> $B </s>"
TOKENIZERS: Mapping[str, Callable[[], Tokenizer]] = {
    "bert": wordpiece,
    "bert-cased": functools.partial(wordpiece, lower=False),
    "mpnet": functools.partial(wordpiece, specials=("<pad>", "[UNK]", "<s>", "</s>", "<mask>")),
    "xlm-roberta": functools.partial(unigram, ROBERTA_SPECIALS, ROBERTA_PAIR),
    "deberta": functools.partial(
        unigram, ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"), "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"
    ),
    "roberta": functools.partial(byte_level, ROBERTA_SPECIALS, ROBERTA_PAIR, first=True),
    "modernbert": functools.partial(
        byte_level, ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"), "[CLS] $A [SEP] $B [SEP]"
    ),
}
"""Kinds of tokenizers."""

ENCODERS: Mapping[str, tuple[str, str, str, Mapping[str, Any]]] = {
    "bert": ("BertForSequenceClassification", "bert", "BertTokenizerFast", {}),
    "bert-cased": ("BertForSequenceClassification", "bert-cased", "PreTrainedTokenizerFast", {}),
    "electra": ("ElectraForSequenceClassification", "bert", "ElectraTokenizerFast", {"embedding_size": 16}),
    "xlm-roberta": ("XLMRobertaForSequenceClassification", "xlm-roberta", "XLMRobertaTokenizerFast", {"type_vocab_size": 1}),
    "roberta": ("RobertaForSequenceClassification", "roberta", "RobertaTokenizerFast", {"type_vocab_size": 1}),
    "camembert": ("CamembertForSequenceClassification", "xlm-roberta", "CamembertTokenizerFast", {"type_vocab_size": 1}),
    "mpnet": ("MPNetForSequenceClassification", "mpnet", "MPNetTokenizerFast", {}),
    "data2vec-text": ("Data2VecTextForSequenceClassification", "roberta", "RobertaTokenizerFast", {"type_vocab_size": 1}),
    "deberta-v2": (
        "DebertaV2ForSequenceClassification", "deberta", "DebertaV2TokenizerFast",
        {"type_vocab_size": 0, "relative_attention": True, "position_buckets": 32, "norm_rel_ebd": "layer_norm", "share_att_key": True,
         "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
    ),
    "modernbert": (
        "ModernBertForSequenceClassification", "modernbert", "PreTrainedTokenizerFast",
        {"global_attn_every_n_layers": 2, "local_attention": 16, "classifier_pooling": "mean", "reference_compile": False},
    ),
}  # fmt: skip
"""Class of transformers, kind of tokenizer, the tokenizer's class, and what differs in the configuration."""


@functools.cache
def trained(kind: str) -> Tokenizer:
    return TOKENIZERS[kind]()


def make(folder: Path, family: str, *, positions: int = 0, seed: int = 0, **config: Any) -> Any:
    """Write a checkpoint of an encoder family; returns its torch model in evaluation mode."""
    torch = pytest.importorskip("torch", reason="a random checkpoint is made by torch")
    transformers = pytest.importorskip("transformers", reason="a random checkpoint is made by transformers")
    class_name, kind, tokenizer_class, differs = ENCODERS[family]
    tokenizer = trained(kind)
    special = _special_tokens(tokenizer)
    pad = tokenizer.token_to_id(special["pad_token"])
    settings = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    settings.save_pretrained(folder)
    _rename_class(folder, tokenizer_class, do_lower_case=kind in ("bert", "mpnet"))
    reads_positions = {"max_position_embeddings": positions} if positions else {}
    model_class = getattr(transformers, class_name)
    shape = {
        "vocab_size": tokenizer.get_vocab_size(),
        "pad_token_id": pad,
        "num_labels": 1,
        **SMALL,
        **reads_positions,
        **differs,
        **config,
    }
    if family == "modernbert":
        for name in ("cls", "sep", "bos", "eos"):
            shape[f"{name}_token_id"] = tokenizer.token_to_id("[CLS]" if name in ("cls", "bos") else "[SEP]")
    torch.manual_seed(seed)
    model = model_class(model_class.config_class(**shape))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    model.eval().save_pretrained(folder)
    return model


def _special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    wanted = {
        "pad_token": ("[PAD]", "<pad>"), "unk_token": ("[UNK]", "<unk>"), "cls_token": ("[CLS]", "<s>"), "sep_token": ("[SEP]", "</s>"),
        "mask_token": ("[MASK]", "<mask>"),
    }  # fmt: skip
    return {
        name: next(token for token in tokens if token in known) for name, tokens in wanted.items() if known & {*tokens}
    }


def _rename_class(folder: Path, tokenizer_class: str, *, do_lower_case: bool) -> None:
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = (
        tokenizer_class.removesuffix("Fast") if tokenizer_class != "PreTrainedTokenizerFast" else tokenizer_class
    )
    if tokenizer_class not in ("PreTrainedTokenizerFast",):
        settings["do_lower_case"] = do_lower_case
    path.write_text(json.dumps(settings), encoding="utf-8")


def reference_scores(model: Any, folder: Path, pairs: list[tuple[str, str]], max_length: int) -> list[float]:
    """transformers' own logits, one pair at a time, the passage cut to fit."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    scores = []
    for query, passage in pairs:
        # In lists: a lone empty passage would count as none.
        inputs = tokenizer([query], [passage], truncation="only_second", max_length=max_length, return_tensors="pt")
        if getattr(model.config, "type_vocab_size", 0) < 2:
            inputs.pop("token_type_ids", None)
        with torch.inference_mode():
            scores.append(float(model(**inputs).logits[0, 0]))
    return scores


QWEN_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
GEMMA_SPECIALS = ("<pad>", "<eos>", "<bos>", "<unk>")
DECODERS: Mapping[str, tuple[str, tuple[str, ...], Mapping[str, Any]]] = {
    "qwen3": ("Qwen3ForCausalLM", QWEN_SPECIALS, {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3-untied": ("Qwen3ForCausalLM", QWEN_SPECIALS, {"head_dim": 8, "tie_word_embeddings": False}),
    "qwen3-label": ("Qwen3ForSequenceClassification", QWEN_SPECIALS, {"head_dim": 16, "num_labels": 1}),
    "qwen2": ("Qwen2ForCausalLM", QWEN_SPECIALS, {"tie_word_embeddings": True}),
    "gemma": ("GemmaForCausalLM", GEMMA_SPECIALS, {"head_dim": 16}),
}
"""Class of transformers, special tokens, and what differs in the configuration."""


@functools.cache
def decoder_tokenizer(specials: tuple[str, ...]) -> Tokenizer:
    """Byte-level BPE that knows the answers as one token each."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    answers = ["yes", "no", "Yes", "No", "0", "1"] * 300
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*answers, *texts()], trainer)
    tokenizer.add_special_tokens([*specials])
    return tokenizer


def make_decoder(folder: Path, family: str, *, seed: int = 0, **config: Any) -> Any:
    """Write a random language model with its tokenizer; returns its torch model in evaluation mode."""
    torch = pytest.importorskip("torch", reason="a random checkpoint is made by torch")
    transformers = pytest.importorskip("transformers", reason="a random checkpoint is made by transformers")
    class_name, specials, differs = DECODERS[family]
    tokenizer = decoder_tokenizer(specials)
    named = {"pad_token": specials[0], **({"bos_token": "<bos>", "eos_token": "<eos>"} if family == "gemma" else {})}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    model_class = getattr(transformers, class_name)
    shape = {
        "vocab_size": tokenizer.get_vocab_size(), "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "pad_token_id": tokenizer.token_to_id(specials[0]), **SMALL, **differs, **config,
    }  # fmt: skip
    torch.manual_seed(seed)
    model = model_class(model_class.config_class(**shape))
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm" in name and family != "gemma" else 0.0, std=0.15)
    model.eval().save_pretrained(folder)
    return model
