"""A model by the name of its repository, of a card's file or of a folder: what it becomes, and what is refused by name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zoo_cross_encoder
from conftest import Zoo
from local_hub import COMMIT, Hub, Repository, local_hub, zoo_with
from zoo import Reranker
from zoo.checkpoints.resolve import resolve, short_name
from zoo.errors import ZooError
from zoo.registry.catalogue import Catalogue

pytestmark = [pytest.mark.export, pytest.mark.lowest]

README = "---\nlanguage: en\nlicense: cc-by-nc-4.0\n---\n# A model\n"


@pytest.fixture
def hub(tmp_path: Path, tiny: Path) -> Iterator[Hub]:
    """A hub with the embedded model as ``lab/tiny``."""
    folder = tmp_path / "repository"
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("*.onnx", "train"))
    (folder / "README.md").write_text(README, encoding="utf-8")
    with local_hub() as server:
        server.repositories["lab/tiny"] = Repository(folder, branches={"main", "v1"})
        yield server


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.of(cards=zoo_cross_encoder)


def checkpoint(folder: Path, tiny: Path, **changes: Any) -> Path:
    """The embedded model's small files, with another config.json."""
    folder.mkdir(parents=True)
    for path in tiny.glob("*.json"):
        shutil.copy(path, folder)
    config = {**json.loads((tiny / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


def test_a_repository_without_a_card_becomes_one_at_the_commit_that_served(hub: Hub) -> None:
    result = zoo_with(hub, "models", "hf:lab/tiny", "--json")
    assert result.returncode == 0, result.stderr
    card = json.loads(result.stdout)
    assert (card["name"], card["hub"], card["revision"]) == ("lab__tiny", "lab/tiny", COMMIT)
    assert (card["architecture"], card["max_length"], card["license"]) == ("cross-encoder", 512, "cc-by-nc-4.0")
    assert "model.safetensors" not in hub.fetched()
    before = len(hub.requests)
    again = zoo_with(hub, "models", "hf:lab/tiny", "--offline", "--json")
    assert json.loads(again.stdout)["revision"] == COMMIT
    assert len(hub.requests) == before, "offline asks nobody"


def test_a_branch_is_resolved_to_its_commit_and_offline_to_the_one_fetched_last(hub: Hub) -> None:
    first = zoo_with(hub, "models", "hf:lab/tiny@v1", "--json")
    assert json.loads(first.stdout)["revision"] == COMMIT, first.stderr
    unknown = zoo_with(hub, "models", "hf:lab/tiny@v2")
    assert unknown.returncode == 1
    assert "'v2' of lab/tiny" in unknown.stderr
    assert "no such repository, revision or file (404)" in unknown.stderr
    missing = zoo_with(hub, "models", "hf:lab/nothing@main")
    assert "no such repository, revision or file (404)" in missing.stderr


def test_a_run_names_a_restrictive_licence_once_and_records_the_commit(hub: Hub, exported: Path) -> None:
    words = ("run", "hf:lab/tiny", "--ckpt", exported / "model.onnx", "--target", "cpu")
    first = zoo_with(hub, *words)
    assert first.returncode == 0, first.stderr
    assert len(first.stdout.splitlines()) == 2
    assert f"at revision {COMMIT}" in first.stderr
    assert "the licence of 'lab__tiny' is cc-by-nc-4.0: NOT for commercial use" in first.stderr
    assert "licence" not in zoo_with(hub, *words).stderr


def test_a_report_says_which_commit_served(hub: Hub, exported: Path) -> None:
    words = (
        "run",
        "hf:lab/tiny",
        "--mode",
        "valid",
        "--limit",
        "1",
        "--ckpt",
        exported / "model.onnx",
        "--target",
        "cpu",
        "-q",
    )
    result = zoo_with(hub, *words)
    assert result.returncode == 0, result.stderr
    report = json.loads((Path("zoo-results") / "lab__tiny" / "mldr-mini" / "report.json").read_text(encoding="utf-8"))
    assert report["settings"]["revision"] == COMMIT


def test_a_repository_that_a_card_is_for_has_the_cards_settings(hub: Hub, catalogue: Catalogue, tiny: Path) -> None:
    card = catalogue.card("ms-marco-minilm-l6-v2")
    assert resolve(catalogue, f"hf:{card.hub}").card == card
    assert resolve(catalogue, f"hf:{card.hub}@{card.revision}").name == card.name
    other = resolve(catalogue, f"hf:{card.hub}@{COMMIT}", offline=True)
    assert (other.card.revision, other.card.max_length, other.card.license) == (COMMIT, 512, "Apache-2.0")
    assert other.card.golden == [], "golden scores are tied to a revision"
    assert other.name == f"hf:{card.hub}@{COMMIT}"


CUSTOM = {"architectures": ["OwnForRanking"], "model_type": "own", "auto_map": {"AutoModel": "modeling_own.OwnModel"}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (CUSTOM, r"'OwnForRanking' is code in its own repository .*never run. Write a plugin"),
        (
            {"architectures": ["BertModel"], "model_type": "bert"},
            "'BertModel' has no classification head.*Choose a checkpoint",
        ),
        ({"architectures": ["XLMRobertaForMaskedLM"]}, "'XLMRobertaForMaskedLM' has no classification head"),
        ({"id2label": {"0": "no", "1": "maybe", "2": "yes"}}, "a classifier with 3 labels; a reranker has one"),
        ({"architectures": ["NeverHeardOf"], "model_type": "never"}, "no installed architecture knows 'NeverHeardOf'"),
        ({"vocab_size": "many"}, "vocab_size"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name_with_the_way_out(
    tmp_path: Path, tiny: Path, catalogue: Catalogue, changes: dict[str, Any], said: str
) -> None:
    folder = checkpoint(tmp_path / "odd", tiny, **changes)
    with pytest.raises(ZooError, match=said):
        resolve(catalogue, str(folder))


def test_code_of_a_repository_is_no_hindrance_if_its_architecture_is_built_in(
    tmp_path: Path, tiny: Path, catalogue: Catalogue
) -> None:
    changes = {
        "architectures": ["NewForSequenceClassification"],
        "model_type": "new",
        "auto_map": {"AutoModel": "x--y.Z"},
    }
    folder = checkpoint(tmp_path / "gte", tiny, max_position_embeddings=8192, **changes)
    found = resolve(catalogue, str(folder))
    assert (found.card.architecture, found.card.max_length) == ("cross-encoder", 8192)


def test_a_folder_and_a_cards_file_are_models_too(tmp_path: Path, tiny: Path, zoo: Zoo) -> None:
    by_name = zoo("run", "zoo-reranker-tiny", "--json")
    by_folder = zoo("run", tiny, "--json")
    assert by_folder.exit_code == 0, by_folder.stderr
    assert by_folder.stdout == by_name.stdout
    shutil.copytree(tiny, "weights", ignore=shutil.ignore_patterns("train"))
    Path("mine.toml").write_text(
        'description = "d"\narchitecture = "cross-encoder"\nlicense = "MIT"\nlanguages = ["en"]\nmax_length = 64\nbundled = "weights"\n'
    )
    by_card = zoo("run", "./mine.toml", "--json")
    assert by_card.exit_code == 0, by_card.stderr
    assert by_card.stdout == by_name.stdout
    assert zoo("run", "mine.toml", "--shape", "65").exit_code == 1, "the card's length holds"


def test_the_api_opens_the_same_names(tiny: Path) -> None:
    pair = [("what is panda?", "hi")]
    with Reranker.open(str(tiny), device="cpu") as one, Reranker.open("zoo-reranker-tiny", device="cpu") as other:
        assert one.score(pair).tolist() == other.score(pair).tolist()
        assert one.card.name == "zoo-reranker-tiny"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hf:onlyone", "write hf:ORG/NAME"),
        ("hf:a/b/c", "write hf:ORG/NAME"),
        ("hf:a/b@", "write hf:ORG/NAME"),
        ("BAAI/bge-reranker-v2-m3", "A repository on the hub is written hf:BAAI/bge-reranker-v2-m3"),
        ("./nothing", "no model card or folder ./nothing"),
        ("nothing.toml", "no model card or folder nothing.toml"),
        ("./empty", "no config.json"),
        ("empty", "The folder of that name is written ./empty"),
        ("./notes.txt", "neither a folder with a checkpoint nor a model card"),
    ],
)
def test_a_name_that_stands_for_nothing_says_how_names_are_written(catalogue: Catalogue, name: str, said: str) -> None:
    Path("empty").mkdir()
    Path("notes.txt").write_text("x")
    with pytest.raises(ZooError, match=said):
        resolve(catalogue, name)


def test_short_names_are_names_of_files(tiny: Path) -> None:
    assert short_name("hf:lab/tiny@v1") == "lab__tiny"
    assert short_name("./some/card.toml") == "card"
    assert short_name(os.fspath(tiny)) == "zoo-reranker-tiny"
    assert short_name("bge-reranker-v2-m3") == "bge-reranker-v2-m3"
