"""The artifact cache: made once, found again, never trusted blindly, and nothing left behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import ROOT, Zoo
from zoo import hookimpl
from zoo.errors import PluginError, ZooError
from zoo.export import manifest
from zoo.export.build import Builder, BuildRequest
from zoo.export.run_steps import DefaultExport, Recipe
from zoo.export.steps import Steps
from zoo.export.store import MAKING, Store
from zoo.paths import zoo_home
from zoo.quiet_imports import import_onnxruntime
from zoo.registry.catalogue import Catalogue
from zoo.registry.stages import Pipeline
from zoo.types import Artifact, Checkpoint, ExportRequest, StepReport

pytestmark = [pytest.mark.export]


class Copier:
    """An exporter that really makes a model file: it copies the one inside the checkpoint, and counts."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.made = 0
        self.fault = fault

    @hookimpl
    def export_check(self, request: ExportRequest) -> bool:
        return True

    @hookimpl
    def export(self, request: ExportRequest) -> Artifact:
        self.made += 1
        source = request.source or (request.checkpoint and request.checkpoint.folder / "model.onnx")
        assert source
        target = request.folder / "model.onnx"
        shutil.copyfile(source, target)
        if self.fault:
            raise self.fault
        step = StepReport(name="export", seconds=1.0, peak_memory=1000, max_abs_error=0.0, tolerance=1e-4)
        return Artifact(
            model=target, precision=request.precision, origin="copied", steps=(step,), versions={"copier": "1"}
        )


def make(copier: object, request: BuildRequest, name: str = "copier") -> Artifact:
    """The artifact by an observer that takes the export over."""
    return Builder(Pipeline([], [(name, copier)]), Steps({})).make(request)


@pytest.fixture
def order(tmp_path: Path, exported: Path) -> BuildRequest:
    """A checkpoint with weights that nobody here needs to understand."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(exported, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    header = json.dumps({"w": {"dtype": "F16", "shape": [500], "data_offsets": [0, 1000]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(1000))
    checkpoint = Checkpoint(folder=folder, served_by="a test", revision="abc")
    return BuildRequest(name="tiny", checkpoint=checkpoint, recipe=("export",), precision="fp32")


def folders() -> list[str]:
    return sorted(path.name for path in Store().root.iterdir() if path.is_dir())


def test_an_artifact_is_made_once_and_found_again(order: BuildRequest) -> None:
    copier = Copier()
    first = make(copier, order)
    second = make(copier, order)
    assert (copier.made, first.model) == (1, second.model)
    assert first.origin == "made now from a test"
    assert second.origin.startswith("cached, made ")


def test_the_manifest_says_what_an_artifact_is_and_was_made_from(order: BuildRequest) -> None:
    artifact = make(Copier(), order)
    content = json.loads((artifact.model.parent / "manifest.json").read_text(encoding="utf-8"))
    assert set(content) == {
        "borrowed", "exporter", "files", "format", "graph", "head", "key", "machine", "made_at", "model", "options", "peak_memory",
        "plugins", "precision", "recipe", "revision", "seconds", "source", "steps", "task", "versions", "weights", "weights_folder",
    }  # fmt: skip
    assert content["files"]["model.onnx"]["size"] == artifact.model.stat().st_size
    assert set(content["weights"]) == {"config.json", "model.safetensors"}
    assert (content["revision"], content["source"], content["precision"]) == ("abc", "a test", "fp32")
    assert content["steps"][0]["max_abs_error"] == 0.0
    assert content["versions"]["copier"] == "1"
    assert list(content) == sorted(content)


def test_other_weights_recipes_and_exporters_make_other_artifacts(order: BuildRequest) -> None:
    assert order.checkpoint
    folder = order.checkpoint.folder
    keys = {make(Copier(), order).model}
    keys.add(make(Copier(), replace(order, recipe=("export", "simplify"))).model)
    keys.add(make(Copier(), replace(order, options={"optimize": "O1"})).model)
    keys.add(make(Copier(), order, "another").model)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    keys.add(make(Copier(), order).model)
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    keys.add(make(Copier(), order).model)
    assert len(keys) == 6


def test_the_key_has_the_runtimes_minor_version_if_a_step_writes_its_operators(
    order: BuildRequest, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An artifact with ``flash`` is made again for another ONNX Runtime, one of standard operators alone is found again."""
    pytest.importorskip("onnx", reason="the step 'flash' needs onnx")
    made: list[tuple[str, ...]] = []
    monkeypatch.setattr(Recipe, "run", lambda recipe: _standing_in(recipe, made))
    steps = Steps(Catalogue.installed().steps)
    builder = Builder(Pipeline([("exporter", DefaultExport(steps))]), steps)
    recipes = [("flash",), ("first-token-only", "flash"), ("half",), ("first-token-only",)]
    requests = [replace(order, source=exported / "model.onnx", recipe=recipe) for recipe in recipes]
    for version in ("1.20.1", "1.20.2", "1.21.0"):
        monkeypatch.setattr(import_onnxruntime(), "__version__", version)
        for request in requests:
            builder.make(request)
    assert [made.count(recipe) for recipe in recipes] == [2, 2, 2, 1]


def _standing_in(recipe: Recipe, made: list[tuple[str, ...]]) -> Artifact:
    """What the steps would make: a copy."""
    request = recipe._request
    made.append(tuple(request.recipe))
    assert request.source
    shutil.copyfile(request.source, request.folder / "model.onnx")
    return Artifact(model=request.folder / "model.onnx", precision=request.precision, origin="made")


def test_the_same_weights_from_another_place_share_an_artifact(order: BuildRequest, tmp_path: Path) -> None:
    assert order.checkpoint
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(order.checkpoint.folder, elsewhere)
    copier = Copier()
    first = make(copier, order)
    second = make(copier, replace(order, checkpoint=replace(order.checkpoint, folder=elsewhere)))
    assert (copier.made, first.model) == (1, second.model)


def flip(path: Path) -> None:
    """Change one byte, and give the file back the times it had."""
    status = path.stat()
    with path.open("r+b") as handle:
        handle.seek(status.st_size // 2)
        byte = handle.read(1)
        handle.seek(status.st_size // 2)
        handle.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def strew(path: Path) -> None:
    (path.parent / "stray.bin").write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, shorten, Path.unlink, strew])
def test_a_damaged_artifact_is_detected_and_made_again(
    order: BuildRequest, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(damage)
    copier = Copier()
    artifact = make(copier, order)
    right = artifact.model.read_bytes()
    damage(artifact.model)
    artifact = make(copier, order)
    assert copier.made == 2
    assert artifact.model.read_bytes() == right
    assert "is damaged" in caplog.text
    assert [path.name for path in artifact.model.parent.iterdir() if path.name.startswith("stray")] == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}'])
def test_a_folder_without_a_good_manifest_is_unfinished(order: BuildRequest, text: str) -> None:
    copier = Copier()
    artifact = make(copier, order)
    (artifact.model.parent / manifest.NAME).write_text(text)
    make(copier, order)
    assert copier.made == 2
    manifest.read(artifact.model.parent)


def test_a_lost_memo_of_digests_costs_time_only(order: BuildRequest) -> None:
    copier = Copier()
    make(copier, order)
    for text in ("not json", "[]", '{"/some/file": "x"}'):
        (zoo_home() / "digests.json").write_text(text)
        make(copier, order)
    assert copier.made == 1


def test_an_export_that_fails_leaves_nothing(order: BuildRequest) -> None:
    with pytest.raises(ZooError, match="no such thing"):
        make(Copier(ZooError("no such thing")), order)
    assert folders() == []


def test_a_full_disk_is_told_with_what_is_needed(order: BuildRequest) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(ZooError, match=r"takes about .* GB of disk in .*artifacts.* are free.*ZOO_HOME"):
        make(Copier(full), order)
    assert folders() == []


def test_too_small_a_disk_is_told_before_anything_is_made(order: BuildRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=2000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    copier = Copier()
    with pytest.raises(ZooError, match=r"takes about 0\.00 GB of disk"):
        make(copier, order)  # 500 float32 numbers, written twice over and a bit
    assert copier.made == 0
    assert folders() == []


def test_an_exporter_that_writes_elsewhere_is_refused(order: BuildRequest, tmp_path: Path) -> None:
    class Stray(Copier):
        @hookimpl
        def export(self, request: ExportRequest) -> Artifact:
            return replace(super().export(request), model=tmp_path / "model.onnx")

    with pytest.raises(PluginError, match="not a file in the folder"):
        make(Stray(), order)
    assert folders() == []


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_exporter_that_borrows_what_nobody_watches_is_refused(
    elsewhere: bool, order: BuildRequest, tmp_path: Path
) -> None:
    (tmp_path / "stray.bin").write_bytes(b"weights")
    assert order.checkpoint
    weights = order.checkpoint.folder / "model.safetensors"

    class Borrower(Copier):
        @hookimpl
        def export(self, request: ExportRequest) -> Artifact:
            made = super().export(request)
            if elsewhere:
                return replace(made, borrowed={weights.name: weights}, weights_folder=tmp_path)
            return replace(made, borrowed={"stray.bin": tmp_path / "stray.bin"})

    said = "not where the graph looks" if elsewhere else "not one of the files that the model is made from"
    with pytest.raises(PluginError, match=said):
        make(Borrower(), order)
    assert folders() == []


def test_two_that_ask_at_once_make_one(order: BuildRequest) -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Slow(Copier):
        @hookimpl
        def export(self, request: ExportRequest) -> Artifact:
            entered.set()
            assert go_on.wait(60)
            return super().export(request)

    copier, models = Slow(), []
    threads = [threading.Thread(target=lambda: models.append(make(copier, order).model)) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert entered.wait(60)
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert copier.made == 1
    assert len(models) == 2
    assert len(set(models)) == 1


KILLED = """
import sys, os
sys.path[:0] = {tests!r}
from pathlib import Path
from test_build import Copier, BuildRequest, Checkpoint, hookimpl, make
class Hanging(Copier):
    @hookimpl
    def export(self, request):
        super().export(request)
        print("half way", flush=True)
        sys.stdin.read()
checkpoint = Checkpoint(folder=Path({folder!r}), served_by="a test", revision="abc")
make(Hanging(), BuildRequest(name="tiny", checkpoint=checkpoint, recipe=("export",), precision="fp32"))
"""


def test_what_a_killed_process_left_is_swept_away(order: BuildRequest) -> None:
    assert order.checkpoint
    code = KILLED.format(tests=[str(Path(__file__).parent), str(ROOT / "tests")], folder=str(order.checkpoint.folder))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "half way\n"
        left = folders()
        assert len(left) == 1
        assert MAKING in left[0]
        assert Store().sweep() == 0, "its maker lives"
        process.send_signal(signal.SIGKILL)
    artifact = make(Copier(), order)
    assert folders() == [artifact.model.parent.name]


def test_a_cache_that_cannot_be_made_says_what_to_do(
    order: BuildRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("zoo.export.build.SMALL", 0)  # a small model would be made for this run alone
    with pytest.raises(ZooError, match="Set ZOO_HOME"):
        make(Copier(), order)


def test_cache_lists_verifies_and_prunes(zoo: Zoo, order: BuildRequest) -> None:
    good = make(Copier(), order).model.parent
    bad = make(Copier(), replace(order, name="other")).model.parent
    assert zoo("cache", "verify").exit_code == 0
    flip(bad / "model.onnx")
    rows = {row["key"]: row for row in json.loads(zoo("cache", "list", "--json").stdout)["artifacts"]}
    assert rows[good.name]["ok"] is True
    assert "sha256 differs" in rows[bad.name]["state"]
    assert good.name in zoo("cache", "list").stdout

    verified = zoo("cache", "verify", good.name)
    assert verified.exit_code == 0, verified.stderr
    verified = zoo("cache", "verify", "--json")
    assert verified.exit_code == 1
    assert "1 of 2 artifacts are damaged" in verified.stderr
    assert [row["ok"] for row in json.loads(verified.stdout)["artifacts"]] == [False, True]

    assert json.loads(zoo("cache", "prune", "--dry-run", "--json").stdout)["deleted"] == [bad.name]
    assert bad.is_dir()
    result = zoo("cache", "prune")
    assert result.stdout == f"{bad.name}\n"
    assert folders() == [good.name]


def test_prune_takes_names_age_or_everything(zoo: Zoo, order: BuildRequest) -> None:
    kept, old, named = (make(Copier(), replace(order, name=name)).model.parent for name in ("kept", "old", "named"))
    os.utime(old / manifest.NAME, (0, 0))
    assert zoo("cache", "prune", "--unused-for", "30").stdout == f"{old.name}\n"
    assert zoo("cache", "prune", named.name).stdout == f"{named.name}\n"
    missing = zoo("cache", "prune", "kep")
    assert missing.exit_code == 1
    assert "there is no artifact 'kep'" in missing.stderr
    assert zoo("cache", "prune", "--unused-for", "-1").exit_code == 2
    assert folders() == [kept.name]
    assert zoo("cache", "prune", "--all").stdout == f"{kept.name}\n"
    assert folders() == []


def test_an_empty_cache_is_no_fault(zoo: Zoo) -> None:
    for words in (("list",), ("verify",), ("prune",)):
        result = zoo("cache", *words)
        assert result.exit_code == 0, result.stderr
    assert json.loads(zoo("cache", "list", "--json").stdout)["artifacts"] == []


def test_an_artifact_of_another_version_of_zoo_is_listed_as_such_and_pruned(zoo: Zoo, order: BuildRequest) -> None:
    folder = make(Copier(), order).model.parent
    content = json.loads((folder / manifest.NAME).read_text(encoding="utf-8"))
    old = {key: value for key, value in content.items() if key not in ("borrowed", "head", "plugins")} | {"format": 1}
    (folder / manifest.NAME).write_text(json.dumps(old), encoding="utf-8")
    [row] = json.loads(zoo("cache", "list", "--json").stdout)["artifacts"]
    assert "written by another version of zoo (format 1; this version reads 2)" in row["state"]
    assert zoo("cache", "prune").stdout == f"{folder.name}\n"
    assert folders() == []


def test_pruning_everything_takes_engines_and_quality_reports_too(zoo: Zoo, order: BuildRequest) -> None:
    make(Copier(), order)
    for name in ("engines/key", "quality"):
        (zoo_home() / name).mkdir(parents=True)
        (zoo_home() / name / "file").write_bytes(bytes(1000))
    others = {
        Path(row["path"]).name: row["size"] for row in json.loads(zoo("cache", "list", "--json").stdout)["others"]
    }
    assert others == {"engines": 1000, "quality": 1000}
    zoo("cache", "prune")
    assert (zoo_home() / "engines" / "key" / "file").exists()
    zoo("cache", "prune", "--all")
    assert not (zoo_home() / "engines").exists()
    assert not (zoo_home() / "quality").exists()
