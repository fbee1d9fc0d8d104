"""Where weights come from: a hub on this machine that speaks the hub's language, and folders."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from conftest import Zoo
from zoo.checkpoints.files import weight_files
from zoo.checkpoints.sources import CheckpointRequest, find_checkpoint
from zoo.errors import InputError, ZooError
from zoo.paths import bundled
from zoo.registry.card import load_card

pytestmark = [pytest.mark.export, pytest.mark.lowest]

SIZE = 24_000_000
"""The hub's client writes in pieces of 10 MB, and what broke off inside a piece is lost."""
CARD = load_card(bundled("models") / "bge-reranker-v2-m3.toml")


class Hub(http.server.ThreadingHTTPServer):
    """Serves one folder as one repository at one revision, as far as snapshots need it. ``cut`` breaks a file off once, at that byte."""

    def __init__(self, folder: Path, revision: str) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder, self.revision = folder, revision
        self.requests: list[tuple[str, str, str]] = []
        self.cut: dict[str, int] = {}

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fetched(self) -> set[str]:
        return {Path(path).name for verb, path, _ in self.requests if verb == "GET" and "/resolve/" in path}


class Answer(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        hub = self.server
        wanted = self.headers.get("Range", "")
        hub.requests.append((self.command, self.path, wanted))
        prefix = f"/{CARD.hub}/resolve/{hub.revision}/"
        if self.path.startswith(f"/api/models/{CARD.hub}/revision/{hub.revision}"):
            names = sorted(path.name for path in hub.folder.iterdir())
            facts = {"private": False, "downloads": 0, "likes": 0, "tags": []}  # old clients insist on them
            answer = {"id": CARD.hub, "sha": hub.revision, "siblings": [{"rfilename": name} for name in names], **facts}
            self._send(200, json.dumps(answer).encode(), {}, body=body)
        elif self.path.startswith(
            f"/api/models/{CARD.hub}/tree/{hub.revision}"
        ):  # how the client lists files from 2.0 on
            files = [
                {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "0" * 40}
                for path in sorted(hub.folder.iterdir())
            ]
            self._send(200, json.dumps(files).encode(), {}, body=body)
        elif self.path.startswith(prefix) and (path := hub.folder / self.path.removeprefix(prefix)).is_file():
            content = path.read_bytes()
            start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": hub.revision}
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            cut = hub.cut.pop(path.name, None) if body else None
            self._send(206 if start else 200, content[start:], headers, body=body, cut=cut)
        else:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"}, body=body)

    def _send(
        self, code: int, content: bytes, headers: Mapping[str, str], *, body: bool, cut: int | None = None
    ) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content[:cut])
        if cut is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, tiny: Path) -> Iterator[Hub]:
    folder = tmp_path / "repository"
    folder.mkdir()
    for path in tiny.glob("*.json"):
        shutil.copy(path, folder)
    header = json.dumps({"w": {"dtype": "F32", "shape": [SIZE // 4], "data_offsets": [0, SIZE]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(SIZE))
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    (folder / "README.md").write_text("not needed")
    server = Hub(folder, str(CARD.revision))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


FIND = """
import sys, logging
from zoo.registry.card import load_card
from zoo.errors import ZooError
from zoo.checkpoints.sources import CheckpointRequest, find_checkpoint
from pathlib import Path
logging.basicConfig(level="INFO", format="%(message)s")
def complain(folder):
    assert (folder / "config.json").is_file()
    raise ZooError("the exporter is missing")
options = {"pickled": "pickled" in sys.argv, **({"before_download": complain} if "complain" in sys.argv else {})}
try:
    found = find_checkpoint(load_card(Path(sys.argv[1])), CheckpointRequest(weights=True, **options))
    print(found.folder, found.revision, found.served_by, sep="|")
except ZooError as error:
    print(error); sys.exit(1)
"""


def environment(hub: Hub) -> dict[str, str]:
    """The hub's client reads its settings when it is imported, so each look is a process of its own."""
    return {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}


def find(hub: Hub, *words: str) -> subprocess.CompletedProcess[str]:
    card = str(CARD.folder / f"{CARD.name}.toml")
    return subprocess.run(
        [sys.executable, "-c", FIND, card, *words], env=environment(hub), capture_output=True, text=True, timeout=120
    )


def test_the_pinned_revision_is_fetched_from_the_mirror_and_found_in_the_cache_afterwards(hub: Hub) -> None:
    result = find(hub)
    assert result.returncode == 0, result.stdout + result.stderr
    folder, revision, source = result.stdout.strip().split("|")
    assert (revision, source) == (CARD.revision, f"hub ({hub.endpoint})")
    assert (Path(folder) / "model.safetensors").stat().st_size == (hub.folder / "model.safetensors").stat().st_size
    assert "model.safetensors" in hub.fetched()
    assert not {"README.md", "pytorch_model.bin"} & hub.fetched(), "only what is needed is fetched"
    hub.requests.clear()
    again = find(hub)
    assert "Hugging Face cache" in again.stdout
    assert hub.requests == [], "the second look asks nobody"


def test_a_download_that_broke_off_goes_on_where_it_was(hub: Hub) -> None:
    hub.cut["model.safetensors"] = 15_000_000
    result = find(hub)
    assert result.returncode == 0, result.stdout + result.stderr
    folder = Path(result.stdout.split("|")[0])
    assert (folder / "model.safetensors").read_bytes() == (hub.folder / "model.safetensors").read_bytes()
    ranges = [wanted for verb, path, wanted in hub.requests if verb == "GET" and "model.safetensors" in path]
    assert "bytes=10485760-" in ranges


def test_no_weights_are_fetched_if_they_could_not_be_exported(hub: Hub) -> None:
    result = find(hub, "complain")
    assert result.returncode == 1
    assert result.stdout == "the exporter is missing\n"
    assert hub.fetched() == {path.name for path in hub.folder.glob("*.json")}, (
        "the small files, that the exporter is asked about"
    )


def test_pickled_weights_are_fetched_only_where_they_are_accepted_and_nothing_else_is_there(hub: Hub) -> None:
    find(hub, "pickled")
    assert "pytorch_model.bin" not in hub.fetched(), "there are safetensors"
    shutil.rmtree(Path(os.environ["HF_HOME"]))
    (hub.folder / "model.safetensors").unlink()
    refused = find(hub)
    assert "if you allow pickle" in refused.stdout or "neither model.onnx nor *.safetensors" in refused.stdout
    assert find(hub, "pickled").returncode == 0
    assert "pytorch_model.bin" in hub.fetched()


def test_a_mirror_without_the_revision_is_told_with_what_was_tried(hub: Hub) -> None:
    hub.revision = "0" * 40
    result = find(hub)
    assert result.returncode == 1
    assert f"hub ({hub.endpoint}): " in result.stdout
    assert "Ways out:" in result.stdout


def test_a_run_with_a_model_file_of_its_own_fetches_the_tokenizer_alone(hub: Hub, exported: Path) -> None:
    command = [sys.executable, "-m", "zoo", "run", CARD.name, "--ckpt", str(exported / "model.onnx"), "--target", "cpu"]
    result = subprocess.run(command, env=environment(hub), capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 2
    assert "model.safetensors" not in hub.fetched()


def test_offline_asks_nobody(hub: Hub, zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    result = zoo("run", CARD.name, "--offline")
    assert result.exit_code == 1
    assert f"hub ({hub.endpoint}): not asked (offline)" in result.stderr
    assert hub.requests == []


def test_folders_are_looked_into_in_their_order(tiny: Path) -> None:
    home = Path(os.environ["ZOO_HOME"]) / "checkpoints" / str(CARD.hub)
    shutil.copytree(tiny, home)
    assert find_checkpoint(CARD, CheckpointRequest(weights=True, offline=True)).served_by == "$ZOO_HOME/checkpoints"
    shutil.copytree(tiny, Path(str(CARD.hub)))
    assert find_checkpoint(CARD, CheckpointRequest(weights=True, offline=True)).served_by == f"./{CARD.hub}"


def test_an_index_whose_shard_is_missing_is_refused_by_name(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"")
    index.write_text(
        json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})
    )
    with pytest.raises(ZooError, match=r"lacks model-00002-of-00002\.safetensors"):
        weight_files(tmp_path)
    for damaged in ("{", "[]", '{"weight_map": 3}'):
        index.write_text(damaged)
        with pytest.raises(InputError, match=r"is not (JSON|a JSON object|an index of weights)"):
            weight_files(tmp_path)
