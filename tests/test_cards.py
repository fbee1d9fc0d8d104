"""Every claim of a bundled card on a random checkpoint of its architecture: ids, scores, length, template, head.

``FAMILY`` says of which; a card without an entry fails. Cards that name the same architecture and settings share a checkpoint.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import publishers
import zoo_cross_encoder
import zoo_decoder
from conftest import ROOT
from families import PAIRS, TORCH_JIT, make, make_decoder, reference_scores, trained
from graph_device import GraphPlugin
from torch_device import TorchPlugin
from zoo import Reranker
from zoo.checkpoints.licences import is_free, name_at_first_use
from zoo.checkpoints.model_config import ModelConfig
from zoo.errors import ZooError
from zoo.paths import zoo_home
from zoo.registry.card import ModelCard, load_card
from zoo.registry.catalogue import Catalogue
from zoo.types import Pair

pytestmark = [pytest.mark.export, TORCH_JIT]

XLMR = ("bge-reranker-base", "bge-reranker-large", "bce-reranker-base_v1", "mmarco-mminilmv2-l12-h384-v1")
MSMARCO = ("tinybert-l2-v2", "minilm-l2-v2", "minilm-l4-v2", "minilm-l6-v2", "minilm-l12-v2")
FAMILY: dict[str, str] = {
    **dict.fromkeys(XLMR, "xlm-roberta"), "bge-reranker-v2-m3": "xlm-roberta-long",
    **{f"ms-marco-{name}": "bert" for name in MSMARCO}, "ms-marco-electra-base": "electra",
    **{f"mxbai-rerank-{size}-v1": "deberta-v2" for size in ("xsmall", "base", "large")},
    "gte-reranker-modernbert-base": "modernbert", "granite-embedding-reranker-english-r2": "modernbert",
    "gte-multilingual-reranker-base": "new",
    **{f"ettin-reranker-{size}-v1": "ettin" for size in ("17m", "32m", "68m", "150m", "400m", "1b")},
    **{f"qwen3-reranker-{size}": "qwen3" for size in ("0.6b", "4b", "8b")},
    **{f"mxbai-rerank-{size}-v2": "qwen2" for size in ("base", "large")},
    "bge-reranker-v2-gemma": "gemma",
    "zoo-reranker-tiny": "xlm-roberta",
}  # fmt: skip
POSITIONS = {
    "xlm-roberta": 514, "xlm-roberta-long": 8194, "bert": 512, "electra": 512, "deberta-v2": 512, "modernbert": 8192, "new": 8192,
    "ettin": 7999, "qwen3": 40960, "qwen2": 32768, "gemma": 8192,
}  # fmt: skip
"""``max_position_embeddings`` of the published configurations."""
CARDS = {path.stem: load_card(path) for path in sorted((ROOT / "models").glob("*.toml"))}
UNPINNED = {"ms-marco-electra-base"}
"""No commit of it is known to hold safetensors."""
LENGTH = 224


def test_a_damaged_note_of_a_licence_is_written_anew(caplog: pytest.LogCaptureFixture) -> None:
    card: Any = SimpleNamespace(name="odd", license="cc-by-nc-4.0", hub="lab/odd")
    note = zoo_home() / "licences" / "odd.txt"
    note.parent.mkdir(parents=True)
    note.write_bytes(b"\xff\xfe")
    name_at_first_use(card)
    assert "the licence of 'odd' is cc-by-nc-4.0" in caplog.text
    assert note.read_text(encoding="utf-8") == "cc-by-nc-4.0\n"


def test_every_card_is_tested() -> None:
    assert set(FAMILY) == set(CARDS)


@pytest.mark.parametrize("name", CARDS)
def test_a_card_says_what_must_be_known_of_a_model(name: str) -> None:
    card = CARDS[name]
    assert len(card.description) <= 120
    assert card.languages
    assert bool(card.hub and card.revision) or card.bundled or name in UNPINNED
    assert is_free(card.license) or "unconfirmed" in card.license
    assert all(reference.source and reference.settings for reference in card.reference)
    assert all(golden.source and golden.settings and golden.tolerance > 0 for golden in card.golden)


@pytest.mark.parametrize("name", CARDS)
def test_its_length_is_what_the_positions_allow(name: str) -> None:
    family = FAMILY[name]
    kind = family.removesuffix("-long").replace("ettin", "modernbert")
    pad = {"xlm-roberta": 1, "modernbert": 50283}.get(kind, 0)
    config = ModelConfig(model_type=kind, max_position_embeddings=POSITIONS[family], pad_token_id=pad)
    assert CARDS[name].max_length == config.position_limit


def opened(card: ModelCard, folder: Path, device: str, length: int = LENGTH) -> Reranker:
    catalogue = Catalogue.of(cards=zoo_cross_encoder, decoder=zoo_decoder, torch=TorchPlugin(), graph=GraphPlugin())
    return Reranker.open(
        card.name, device=device, checkpoint=folder, max_length=length, query_max_length=length, catalogue=catalogue
    )


def encoder_reference(folder: Path, family: str) -> Callable[[], list[float]]:
    """Writes the checkpoint; returns transformers' scores of the pairs."""
    model = make(folder, family)
    return lambda: reference_scores(model, folder, PAIRS, LENGTH)


def gte_reference(folder: Path) -> Callable[[], list[float]]:
    """The built-in ``new``: transformers has no such class, so the numpy reading of zoo_direct is the reference."""
    import direct_checkpoints as direct
    from zoo_direct import proof

    make(folder, "xlm-roberta")
    tokenizer = trained("xlm-roberta")
    pad = tokenizer.token_to_id("<pad>")
    direct.write(folder, {**direct.GTE_NEW, "vocab_size": tokenizer.get_vocab_size(), "pad_token_id": pad})

    def scores() -> list[float]:
        import transformers

        reference = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        batches = []
        for query, passage in PAIRS:
            found = reference([query], [passage], truncation="only_second", max_length=LENGTH, return_tensors="np")
            batches.append({"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]})
            if direct.GTE_NEW.get("type_vocab_size"):
                batches[-1]["token_type_ids"] = np.zeros_like(found["input_ids"])
        return [float(logits[0, 0]) for logits in proof.expected(folder, batches, {"kind": "label"})]

    return scores


def ettin_reference(folder: Path) -> Callable[[], list[float]]:
    from modules_of_ettin import ettin

    logit = ettin(folder)

    def scores() -> list[float]:
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        return [
            logit(tokenizer([q], [p], truncation="only_second", max_length=LENGTH, return_tensors="pt"))
            for q, p in PAIRS
        ]

    return scores


def decoder_reference(folder: Path, family: str) -> Callable[[], list[float]]:
    model = make_decoder(folder, family)
    positive, negative = {"qwen3": ("yes", "no"), "qwen2": ("1", "0"), "gemma": ("Yes", None)}[family]

    def scores() -> list[float]:
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        rows = {
            "qwen3": lambda: publishers.qwen3(tokenizer, PAIRS, LENGTH),
            "qwen2": lambda: publishers.mxbai(tokenizer, PAIRS, LENGTH, query_limit=LENGTH),
            "gemma": lambda: publishers.gemma(tokenizer, PAIRS, LENGTH, query_limit=LENGTH),
        }[family]()
        logits = publishers.last_logits(model, rows, tokenizer.pad_token_id)
        score = logits[:, tokenizer.convert_tokens_to_ids(positive)]
        return (score if negative is None else score - logits[:, tokenizer.convert_tokens_to_ids(negative)]).tolist()  # type: ignore[no-any-return]

    return scores


def reference_of(family: str, folder: Path) -> Callable[[], list[float]]:
    if family in ("qwen3", "qwen2", "gemma"):
        return decoder_reference(folder, family)
    if family == "new":
        return gte_reference(folder)
    return ettin_reference(folder) if family == "ettin" else encoder_reference(folder, family.removesuffix("-long"))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Sequence[float]]]:
    """The random checkpoint of a family, and the reference's scores, made once."""
    made: dict[str, tuple[Path, Sequence[float]]] = {}

    def get(family: str) -> tuple[Path, Sequence[float]]:
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            scores = reference_of(family, folder)
            made[family] = (folder, scores())
        return made[family]

    return get


@pytest.mark.parametrize("name", CARDS)
def test_its_scores_are_those_of_the_reference(
    name: str, checkpoints: Callable[[str], tuple[Path, Sequence[float]]]
) -> None:
    folder, right = checkpoints(FAMILY[name])
    assert np.std(right) > 1e-3
    with opened(CARDS[name], folder, "graph-reference") as reranker:
        np.testing.assert_allclose(reranker.score(PAIRS), right, atol=1e-4)
        assert reranker.card.name == name


@pytest.mark.parametrize("name", [name for name, card in CARDS.items() if card.architecture == "decoder"])
def test_its_prompt_is_the_publishers_token_by_token(
    name: str, checkpoints: Callable[[str], tuple[Path, Sequence[float]]]
) -> None:
    import transformers

    family = FAMILY[name]
    folder, _ = checkpoints(family)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = {"qwen3": publishers.qwen3, "qwen2": publishers.mxbai, "gemma": publishers.gemma}[family]
    limit: dict[str, Any] = {} if family == "qwen3" else {"query_limit": LENGTH}
    with opened(CARDS[name], folder, "graph-reference") as reranker:
        encodings = reranker.pipeline.preprocess([Pair(*pair) for pair in PAIRS])
    assert [list(row.features["input_ids"]) for row in encodings.rows] == rows(tokenizer, PAIRS, LENGTH, **limit)


@pytest.mark.parametrize("name", CARDS)
def test_a_longer_input_than_it_claims_is_refused(
    name: str, checkpoints: Callable[[str], tuple[Path, Sequence[float]]], tmp_path: Path
) -> None:
    folder, _ = checkpoints(FAMILY[name])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        if path.name != "config.json":
            (copy / path.name).symlink_to(path)
    (copy / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 10 * POSITIONS[FAMILY[name]]}))
    length = CARDS[name].max_length + 1
    with pytest.raises(ZooError, match=rf"more than '{name}' can read \({length - 1} tokens\)"):
        opened(CARDS[name], copy, "torch-reference", length)


ONE_OF_EACH = {family: name for name, family in reversed(FAMILY.items())}


@pytest.mark.parametrize("device", ["cpu", "openvino", "torch"])
@pytest.mark.parametrize("name", ONE_OF_EACH.values())
def test_its_scores_on_an_installed_device_are_those_of_the_reference(
    name: str, device: str, checkpoints: Callable[[str], tuple[Path, Sequence[float]]]
) -> None:
    if importlib.util.find_spec("onnxruntime" if device == "cpu" else device) is None:
        pytest.skip(f"{device} is not installed")
    folder, right = checkpoints(FAMILY[name])
    if (FAMILY[name], device) == ("new", "torch"):
        with pytest.raises(ZooError, match=r"transformers cannot load .* the devices cpu and openvino may know it"):
            Reranker.open(name, device=device, checkpoint=folder, offline=True)
        return
    with Reranker.open(
        name,
        device=device,
        precision="fp32",
        checkpoint=folder,
        max_length=LENGTH,
        query_max_length=LENGTH,
        offline=True,
    ) as reranker:
        np.testing.assert_allclose(reranker.score(PAIRS), right, atol=1e-4)
        np.testing.assert_allclose(list(reranker.stream(PAIRS[::-1])), right[::-1], atol=1e-4)
