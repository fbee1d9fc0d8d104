"""Everything that reads a file: sound samples of it, and how it is read. All are written with numpy and the standard library."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import small_collection as small

Write = Callable[[Path], object]
Read = Callable[[Path], object]
PAIRS = [(query, small.PASSAGES[passage][:200]) for query, found in small.CANDIDATES.items() for passage in found]


@dataclass(frozen=True)
class Reader:
    """``samples`` write sound files into a folder; ``read`` reads what lies there. ``cases`` are those of a run in the tests."""

    samples: Sequence[Write]
    read: Read
    cases: int


def _file(name: str, content: str | bytes) -> Write:
    def write(folder: Path) -> None:
        raw = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(gzip.compress(raw, 1) if name.endswith(".gz") else raw)

    return write


def _only(folder: Path) -> Path:
    """The file of a sample that has one, which damage may have taken away."""
    return next(folder.iterdir(), folder / "gone")


# Pairs and tables


def _pairs(folder: Path) -> None:
    from zoo.pairs import read_pairs

    path = _only(folder)
    with read_pairs(str(path)) as source:
        source.check()
        for record in source:
            assert record.pairs


def _tables(folder: Path) -> None:
    from zoo.multi.inputs import find_inputs
    from zoo.multi.readers import read_rows
    from zoo.multi.rows import Columns

    for file in find_inputs([folder], folder.parent / "out"):
        for row in read_rows(file, Columns()):
            assert all(isinstance(text, str) for pair in row.pairs for text in pair)


JSON_PAIRS = small.json_lines({"query": q, "passage": p, "n": 1} for q, p in PAIRS)
TABS = "".join(f"{q}\t{p}\n" for q, p in PAIRS)
TABLE = "id,query,passage\n" + "".join(f'{n},"{q}","{p}"\n' for n, (q, p) in enumerate(PAIRS))
PAIR_FILES = [
    _file("pairs.jsonl", JSON_PAIRS),
    _file("pairs.txt", "".join(f"{[[q, p]]!r}\n" for q, p in PAIRS)),
    _file("pairs.tsv", TABS),
    _file("pairs.txt", TABS),
]
TABLES = [
    *PAIR_FILES,
    _file("table.csv", TABLE),
    _file("table.tsv", "query\tpassage\n" + TABS),
    _file("pairs.jsonl.gz", JSON_PAIRS),
    _file("table.csv.gz", TABLE),
]


# Data sets


def _collections(folder: Path) -> None:
    from zoo.evaluation.datasets import DataRequest, find_layouts, open_collections
    from zoo.evaluation.metrics import evaluate

    [data] = [path for path in folder.rglob("*") if path.is_dir() and path.name == "data"]
    request = DataRequest(data_path=data, work=folder / "work", offline=True)
    for collection in open_collections(find_layouts(request), request):
        for query, found in collection.candidates.items():
            assert collection.queries[query]
            assert all(isinstance(collection.passages[passage], str) for passage in found)
        evaluate(collection.candidates, collection.qrels)


def _in_data(layout: Callable[[Path], Path]) -> Write:
    def write(folder: Path) -> None:
        path = layout(folder)
        if path.name != "data":
            path.rename(path.parent / "data")

    return write


def _candidates(folder: Path) -> None:
    from zoo.evaluation.datasets.candidates import Expected, read_candidates

    path = _only(folder)
    read_candidates(path, Expected(eval_names=["mldr"], dataset_names=["en"], split="test"), 3)


TREC_RUN = "".join(
    f"{query} Q0 {passage} {rank} {score} bge-m3\n"
    for query, found in small.CANDIDATES.items()
    for rank, (passage, score) in enumerate(found.items(), start=1)
)


# Cards and checkpoints


def _card(folder: Path) -> None:
    from zoo.registry.card import load_card

    path = _only(folder)
    load_card(path)


def _cards() -> list[Write]:
    from zoo.paths import bundled

    names = ("zoo-reranker-tiny", "bge-reranker-v2-m3", "bge-reranker-large", "qwen3-reranker-0.6b")
    return [_file(f"{name}.toml", (bundled("models") / f"{name}.toml").read_bytes()) for name in names]


def _checkpoint(folder: Path, family: str) -> None:
    from direct_checkpoints import CONFIGS, SHAPES, random_tensors, save

    (folder / "config.json").write_text(json.dumps(CONFIGS[family]))
    save(folder / "model.safetensors", random_tensors(SHAPES[family](CONFIGS[family]), 1))


def _written_graph(folder: Path) -> bytes:
    from zoo_direct.build import write_graph

    return write_graph(folder, form="onnxruntime", head={"kind": "label"}).model


def _direct(folder: Path) -> None:
    from zoo.api import weight_files
    from zoo.checkpoints.model_config import read_config

    read_config(folder)
    weight_files(folder)
    _written_graph(folder)


def _sharded(folder: Path) -> None:
    from direct_checkpoints import BERT, SHAPES, random_tensors, save

    tensors, config = random_tensors(SHAPES["bert"](BERT), 1), BERT
    (folder / "config.json").write_text(json.dumps(config))
    halves = [dict(list(tensors.items())[:10]), dict(list(tensors.items())[10:])]
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name, half in zip(names, halves, strict=True):
        save(folder / name, half)
    index = {name: file for file, half in zip(names, halves, strict=True) for name in half}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def _onnx(folder: Path) -> None:
    from zoo.checkpoints.onnx_files import read_onnx
    from zoo.types import Artifact, SessionOptions
    from zoo_cpu.device import CpuDevice

    for path in folder.glob("*.onnx"):
        for file in read_onnx(path).files:
            file.stat()
        artifact = Artifact(model=path, precision="fp32", origin="a sample")
        CpuDevice().open(artifact, SessionOptions(precision="fp32", batch_size=2, max_length=16, threads=1)).close()


def _with_graph(folder: Path) -> None:
    _checkpoint(folder, "bert")
    (folder / "model.onnx").write_bytes(_written_graph(folder))


def _tokenizer(folder: Path) -> None:
    from zoo.checkpoints.model_config import read_config
    from zoo.types import Pair
    from zoo_cross_encoder.tokenizer import PairTokenizer

    tokenizer = PairTokenizer(folder, read_config(folder), max_length=32, query_max_length=16)
    tokenizer.encode([Pair("what is panda?", "大熊猫吃什么 \U0001f98a a giant bear ' \t"), Pair("", " ")])


def _word_level(folder: Path) -> None:
    from random_checkpoints import make_tokenizer

    size = make_tokenizer(folder, "xlm-roberta")
    (folder / "config.json").write_text(
        json.dumps({"model_type": "xlm-roberta", "vocab_size": size, "pad_token_id": 1})
    )
    (folder / "special_tokens_map.json").write_text(
        json.dumps({"bos_token": "<s>", "mask_token": {"content": "panda"}})
    )


def _word_pieces(folder: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"##{c}" for c in "abcdefghij"),
        "what",
        "panda",
    ]
    tokenizer = Tokenizer(models.WordPiece({piece: n for n, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": False,
        "pad_token": "[PAD]",
        "model_max_length": 512,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(
        json.dumps({"model_type": "bert", "vocab_size": len(pieces), "pad_token_id": 0})
    )


def _byte_pairs(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: n for n, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", *alphabet, "an", "pan", "is"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("a", "n"), ("p", "an"), ("i", "s")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>", "add_prefix_space": False}))
    (folder / "config.json").write_text(json.dumps({"model_type": "roberta", "vocab_size": len(vocabulary)}))


def _unigrams(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    pieces = [
        ("<s>", 0.0),
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("▁", -2.0),
        ("▁what", -3.0),
        ("▁panda", -4.0),
    ]
    tokenizer = Tokenizer(models.Unigram([*pieces, *((c, -6.0) for c in "abcdefghijklmnop熊猫")], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {"0": {"content": "<s>", "special": True}, "30": {"content": "<mask>", "lstrip": True, "special": True}}
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>", "added_tokens_decoder": added}))
    (folder / "config.json").write_text(json.dumps({"model_type": "xlm-roberta", "vocab_size": 60, "pad_token_id": 1}))


def _modules(folder: Path) -> None:
    from zoo.types import Checkpoint
    from zoo_cross_encoder.module_head import ModuleHead

    head = ModuleHead.read(folder)
    if head is not None:
        rebuilt = head.rebuilt(Checkpoint(folder=folder, served_by="a sample"), weights=True)
        _direct(rebuilt.folder)


def _module_folder(folder: Path) -> None:
    import numpy as np

    from direct_checkpoints import MODERNBERT, SHAPES, random_tensors, save

    config, tensors = MODERNBERT, random_tensors(SHAPES["modernbert"](MODERNBERT), 1)
    width = config["hidden_size"]
    (folder / "config.json").write_text(
        json.dumps({**config, "architectures": ["ModernBertModel"], "norm_eps": 1e-5, "layer_norm_eps": 1e-5})
    )
    save(
        folder / "model.safetensors",
        {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")},
    )
    kinds = ["Transformer", "Pooling", "Dense", "LayerNorm", "Dense"]
    paths = [f"{number}_{kind}" if number else "" for number, kind in enumerate(kinds)]
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(zip(paths, kinds, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    gelu, none = "torch.nn.modules.activation.GELU", "torch.nn.modules.linear.Identity"
    configs: list[Mapping[str, object]] = [
        {}, {"pooling_mode": "cls"}, {"in_features": width, "out_features": width, "bias": False, "activation_function": gelu},
        {"dimension": width}, {"in_features": width, "out_features": 1, "bias": True, "activation_function": none},
    ]  # fmt: skip
    weights = [
        {}, {}, {"linear.weight": np.ones((width, width), np.float32)},
        {"norm.weight": np.ones(width, np.float32), "norm.bias": np.ones(width, np.float32)},
        {"linear.weight": np.ones((1, width), np.float32), "linear.bias": np.ones(1, np.float32)},
    ]  # fmt: skip
    for path, settings, arrays in list(zip(paths, configs, weights, strict=True))[1:]:
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps(settings))
        if arrays:
            save(folder / path / "model.safetensors", arrays)


# What zoo wrote itself


def _journal(folder: Path) -> None:
    from zoo.evaluation.journal import Journal

    with Journal.open(folder / "journal.jsonl", {"model": "m"}) as journal:
        for number in range(12):
            journal.recall(str(number))


def _written_journal(folder: Path) -> None:
    import numpy as np

    from zoo.evaluation.journal import Journal

    with Journal.open(folder / "journal.jsonl", {"model": "m"}) as journal:
        for number in range(12):
            journal.append(str(number), np.arange(number, dtype=np.float32))


def _manifest(folder: Path) -> None:
    from zoo.checkpoints.digests import Digests
    from zoo.export.manifest import damage, read

    damage(read(folder), folder, Digests(folder.parent / "digests.json"), fresh=True)


def written_manifest(folder: Path) -> None:
    from zoo.checkpoints.digests import Digests
    from zoo.export.manifest import FORMAT, Borrowed, FileRecord, Manifest, write
    from zoo.types import StepReport

    (folder / "model.onnx").write_bytes(b"a graph")
    record = FileRecord.of(folder / "model.onnx", Digests(folder.parent / "digests.json"))
    borrowed = Borrowed(path="/somewhere/model.safetensors", size=3, sha256=record.sha256, input="model.safetensors")
    step = StepReport(name="export", seconds=1.0, peak_memory=1)
    made = Manifest(
        format=FORMAT, key="k", model="m", revision=None, source="here", weights={"model.safetensors": record}, task="label",
        head={"kind": "label"}, recipe=["export"], exporter="direct", options={"a": 1}, plugins={"export": "zoo"}, precision="fp32",
        graph="model.onnx", files={"model.onnx": record}, borrowed={"model.safetensors": borrowed}, weights_folder="/somewhere",
        steps=[step], versions={"zoo": "1"}, machine="x", made_at="2026-01-01T00:00:00Z", seconds=1.0, peak_memory=1,
    )  # fmt: skip
    write(made, folder)


def _digests(folder: Path) -> None:
    from zoo.checkpoints.digests import Digests

    assert len(Digests(folder / "digests.json").of(Path(__file__))) == 64


def _bench(folder: Path) -> None:
    from zoo.bench.compare import compare, read_report

    report = read_report(folder / "report.json")
    compare(report, report)


def _bench_report(folder: Path) -> None:
    from zoo.bench.measure import VERSION

    entry = {"target": "cpu", "shape": "1x8", "rounds": {"pairs_per_second": [1.0, 1.1, 0.9]}}
    (folder / "report.json").write_text(json.dumps({"zoo_bench": VERSION, "results": [entry]}))


def _option_words(folder: Path) -> None:
    """A line of options and their values as the command line takes them."""
    from zoo.options import Option, read_options

    declared = [Option(name="rows", help="", kind="integer"), Option(name="share", help="", kind="number")]
    path = folder / "options.txt"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else "rows=x"
    given = dict(word.partition("=")[::2] for word in text.split(" "))
    for name, value in read_options("the device 'x'", declared, given).items():
        number = float(value)
        assert value.isascii()
        assert "_" not in value
        assert 0 <= number < float("inf"), name


def _families() -> list[Write]:
    from direct_checkpoints import CONFIGS

    return [lambda folder, family=family: _checkpoint(folder, family) for family in CONFIGS]  # type: ignore[misc]


READERS: Mapping[str, Callable[[], Reader]] = {
    "pairs": lambda: Reader(PAIR_FILES, _pairs, 700),
    "tables": lambda: Reader(TABLES, _tables, 700),
    "data-sets": lambda: Reader(
        [_in_data(each) for each in (small.mldr, small.beir, small.trec, small.hub)], _collections, 700
    ),
    "candidates": lambda: Reader(
        [_file("en-test.json", small.first_stage("mldr", "en")), _file("en-test.trec", TREC_RUN)], _candidates, 600
    ),
    "cards": lambda: Reader(_cards(), _card, 500),
    "checkpoints": lambda: Reader([*_families(), _sharded, _sharded], _direct, 400),
    "tokenizers": lambda: Reader([_word_level, _word_pieces, _byte_pairs, _unigrams], _tokenizer, 600),
    "onnx": lambda: Reader([_with_graph], _onnx, 300),
    "modules": lambda: Reader([_module_folder], _modules, 250),
    "journals": lambda: Reader([_written_journal], _journal, 500),
    "manifests": lambda: Reader([written_manifest], _manifest, 500),
    "digests": lambda: Reader([_file("digests.json", '{"/a/b": [1, 2, 3, 4, "x"]}')], _digests, 200),
    "bench-reports": lambda: Reader([_bench_report], _bench, 300),
    "options": lambda: Reader([_file("options.txt", "rows=3 share=0.25")], _option_words, 500),
}
