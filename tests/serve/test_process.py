"""``zoo serve`` as it is run: one command, signals, workers that die, and what it says when it cannot start."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import PANDA, Zoo
from local_hub import Repository, local_hub, zoo_with
from serving import SOON, until

START = 120.0
"""Seconds that a model may take to open on a busy machine."""


class Process:
    """A server in a process of its own, of the embedded model if none is named."""

    def __init__(self, *options: str, model: str = "zoo-reranker-tiny", wait: bool = True, **environment: str) -> None:
        command = [sys.executable, "-m", "zoo", "serve", model, "--offline", "--port", "0", *options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        self.errors: list[str] = []
        self.lines: list[str] = []
        streams = ((self.process.stderr, self.errors), (self.process.stdout, self.lines))
        self.readers = [threading.Thread(target=self._read, args=both, daemon=True) for both in streams]
        for reader in self.readers:
            reader.start()
        if wait:
            until(lambda: self.said("ready: ") or self.process.poll() is not None, START)
            assert self.process.poll() is None, self.errors

    @staticmethod
    def _read(stream: Any, kept: list[str]) -> None:
        with stream:
            for line in stream:
                kept.append(line.rstrip("\n"))

    def said(self, beginning: str) -> str:
        return next((line for line in self.errors if line.startswith(beginning)), "")

    @property
    def url(self) -> str:
        found = re.search(r"http://\S+", self.said("ready: ") or self.said("listening on "))
        assert found
        return found[0].rstrip(",")

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=SOON, **more)

    def workers(self) -> list[int]:
        children: list[int] = []
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                children += map(int, (task / "children").read_text().split())
        return children

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SOON)


@contextlib.contextmanager
def process(*options: str, **more: Any) -> Iterator[Process]:
    made = Process(*options, **more)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        made.process.wait()
        for reader in made.readers:
            reader.join(SOON)


QUERY = PANDA[0][0]
TEXTS = [text for _, text in PANDA]


def test_one_command_serves_the_embedded_model_with_the_scores_of_zoo_run(zoo: Zoo, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    texts = [*TEXTS, "bamboo " * 400, "", "熊猫吃竹子"]
    pairs.write_text("".join(json.dumps([QUERY, text]) + "\n" for text in texts), encoding="utf-8")
    run = zoo("run", "zoo-reranker-tiny", "--offline", "--json", "--data-path", pairs)
    expected = [json.loads(line)["logit"] for line in run.stdout.splitlines()]
    with process("--alias", "rerank-v3.5=zoo-reranker-tiny") as server:
        answer = server.post("/rerank", {"query": QUERY, "texts": texts, "raw_scores": True})
        scores = {each["index"]: each["score"] for each in answer.json()}
        assert [scores[n] for n in range(len(texts))] == pytest.approx(expected, abs=1e-5)
        assert answer.headers["x-zoo-truncated"] == "1"
        assert re.fullmatch(
            r"ready: http://127\.0\.0\.1:\d+ \(zoo-reranker-tiny on cpu in fp32\)", server.said("ready")
        )
        named = server.post("/v2/rerank", {"model": "rerank-v3.5", "query": QUERY, "documents": TEXTS})
        assert named.json()["model"] == "zoo-reranker-tiny"
        assert server.end() == 0
        for reader in server.readers:
            reader.join(SOON)
        logged = [json.loads(line) for line in server.lines]
        assert [line["path"] for line in logged] == ["/rerank", "/v2/rerank"]
        assert server.said("shutting down")


def test_models_are_named_as_in_a_run(tmp_path: Path, tiny: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(tiny, own, ignore=shutil.ignore_patterns("train", "card.toml"))
    card = tmp_path / "carded.toml"
    card.write_text(
        'description = "x"\narchitecture = "cross-encoder"\nlicense = "mit"\nlanguages = ["en"]\n'
        'max_length = 512\nhub = "lab/tiny"\nbundled = "own"\n'
    )
    with local_hub() as hub:
        hub.repositories["lab/tiny"] = Repository(own)
        zoo_with(hub, "run", "hf:lab/tiny", "--target", "cpu")
        before = len(hub.requests)
        with process(
            "--model", str(card), "--model", "hf:lab/tiny", model=str(own), HF_ENDPOINT=hub.endpoint
        ) as server:
            listed = httpx.get(f"{server.url}/v1/models", timeout=SOON)
            body = {"query": QUERY, "documents": TEXTS}
            scores = {
                name: [
                    each["relevance_score"]
                    for each in server.post("/v1/rerank", {**body, "model": name}).json()["results"]
                ]
                for name in ("own", "carded", "lab__tiny", "lab/tiny")
            }
        assert len(hub.requests) == before, "offline asks nobody"
    assert [model["id"] for model in listed.json()["data"]] == ["own", "carded", "lab__tiny"]
    assert str(tmp_path) not in listed.text
    # The folder has its own ONNX file; the others are exported from the same weights.
    assert all(each == pytest.approx(scores["own"], abs=1e-5) for each in scores.values()), scores
    assert server.said("ready: ").count(" on cpu in fp32") == 3


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_open_requests_be_answered_and_ends_with_0(how: signal.Signals) -> None:
    with process("--no-access-log") as server:
        answers: list[int] = []
        body = {"query": QUERY, "texts": [TEXTS[1] * 4] * 100}
        asking = threading.Thread(target=lambda: answers.append(server.post("/rerank", body).status_code))
        asking.start()
        until(lambda: b"in_progress 1.0" in httpx.get(f"{server.url}/metrics").content)
        server.process.send_signal(how)
        assert server.process.wait(SOON) == 0
        asking.join(SOON)
        assert answers == [200]
        assert server.lines == []


def test_it_ends_while_it_is_still_loading() -> None:
    with process(wait=False) as server:
        until(lambda: bool(server.said("listening on")), START)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(SOON) == 0


def test_a_second_signal_does_not_wait() -> None:
    with process() as server:
        body = {"query": QUERY, "texts": [TEXTS[1] * 8] * 2000}
        threading.Thread(target=_quietly, args=(server, body)).start()
        until(lambda: b"in_progress 1.0" in httpx.get(f"{server.url}/metrics").content)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: bool(server.said("shutting down")))
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(10)


def _quietly(server: Process, body: Any) -> None:
    with contextlib.suppress(httpx.HTTPError):
        server.post("/rerank", body)


def test_workers_that_are_killed_are_answered_503_and_opened_again() -> None:
    with process("--workers", "2", "--threads", "2") as server:
        assert server.post("/rerank", {"query": QUERY, "texts": TEXTS}).status_code == 200
        before = server.workers()
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        statuses: set[int] = set()

        def recovered() -> bool:
            statuses.add(server.post("/rerank", {"query": QUERY, "texts": TEXTS}).status_code)
            return len(set(server.workers()) - set(before)) == 2 and httpx.get(f"{server.url}/ready").status_code == 200

        until(recovered, START)
        assert statuses <= {200, 503}
        assert 503 in statuses
        answer = server.post("/rerank", {"query": QUERY, "texts": TEXTS, "raw_scores": True})
        assert [each["index"] for each in answer.json()] == [1, 0]
        assert "has died" in server.said("Warning: the model 'zoo-reranker-tiny' is opened again")
        workers = server.workers()
        assert server.end() == 0
        assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_it_needs_no_place_to_write(tmp_path: Path) -> None:
    nowhere = tmp_path / "file"
    nowhere.touch()
    with process(
        ZOO_HOME=str(nowhere / "zoo"), HF_HOME=str(nowhere / "hf"), HOME=str(nowhere), TMPDIR=str(nowhere)
    ) as server:
        assert server.post("/rerank", {"query": QUERY, "texts": TEXTS}).status_code == 200
        assert server.end() == 0


def test_a_port_that_is_taken_is_said(zoo: Zoo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = zoo("serve", "zoo-reranker-tiny", "--offline", "--port", port)
    assert result.exit_code == 1
    assert (
        f"cannot listen on 127.0.0.1, port {port}: Address already in use. Choose another --host or --port"
        in result.stderr
    )


def test_what_cannot_be_served_is_said_before_anything_is_opened(zoo: Zoo, tmp_path: Path) -> None:
    assert "Did you mean 'zoo-reranker-tiny'" in zoo("serve", "zoo-reranker-tin").stderr
    assert "Did you mean 'zoo-reranker-tiny'" in zoo("serve", "zoo-reranker-tiny", "--model", "zoo-reranker-tin").stderr
    assert "there is no model card or folder ./absent" in zoo("serve", "./absent").stderr
    assert "not a repository on the hub" in zoo("serve", "zoo-reranker-tiny", "--model", "hf:x").stderr
    assert "is not served here" in zoo("serve", "zoo-reranker-tiny", "--alias", "a=b").stderr
    assert "cannot be read as keys" in zoo("serve", "zoo-reranker-tiny", "--api-key-file", tmp_path / "absent").stderr
    result = zoo("serve", "zoo-reranker-tiny", "--model", "bge-reranker-v2-m3", "--config-path", tmp_path)
    assert result.exit_code == 2
    assert "several are served here" in result.stderr


@pytest.mark.parametrize(
    ("aliases", "said"),
    [
        (
            ["x=zoo-reranker-tiny", "X=bge-reranker-base"],
            "--alias X=bge-reranker-base: 'zoo-reranker-tiny' is called so already",
        ),
        (["bge-reranker-base=zoo-reranker-tiny"], "'bge-reranker-base' is called so already"),
    ],
)
def test_a_name_of_two_models_is_refused_rather_than_answered_by_one(zoo: Zoo, aliases: list[str], said: str) -> None:
    given = [word for alias in aliases for word in ("--alias", alias)]
    result = zoo("serve", "zoo-reranker-tiny", "--model", "bge-reranker-base", "--offline", *given)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_model_that_cannot_be_opened_ends_the_command(zoo: Zoo, tmp_path: Path) -> None:
    result = zoo("serve", "zoo-reranker-tiny", "--offline", "--port", 0, "--config-path", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: ")


def test_listening_for_everybody_without_a_key_is_warned_of() -> None:
    with process("--host", "0.0.0.0") as server:
        assert "whoever reaches 0.0.0.0 may use it: give it keys (--api-key-file)" in "".join(server.errors)
    with process("--host", "0.0.0.0", ZOO_API_KEY="k") as server:
        assert "whoever reaches" not in "".join(server.errors)
        assert server.post("/rerank", {"query": "q", "texts": ["1"]}).status_code == 401


@pytest.mark.parametrize("module", ["uvicorn", "starlette", "prometheus_client"])
def test_without_the_extra_it_says_what_to_install(module: str) -> None:
    program = (
        f"import sys; sys.modules['{module}'] = None; from zoo.cli import main; main(['serve', 'zoo-reranker-tiny'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'zoo-runner[serve]'" in done.stderr
    assert module in done.stderr


def test_help_imports_nothing_of_the_extra() -> None:
    program = (
        "import sys\nfrom zoo.cli import main\ntry: main(['serve', '--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('starlette', 'uvicorn', 'prometheus_client', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_memory_does_not_grow_with_requests() -> None:
    with (
        process("--no-access-log", "--threads", "1") as server,
        httpx.Client(base_url=server.url, timeout=SOON) as client,
    ):

        def resident() -> float:
            found = re.search(r"^process_resident_memory_bytes (\S+)", client.get("/metrics").text, re.MULTILINE)
            assert found
            return float(found[1])

        def ask(count: int) -> None:
            for number in range(count):
                assert client.post("/rerank", json={"query": "q", "texts": [f"text {number}"]}).status_code == 200

        ask(300)
        before = resident()
        began = time.monotonic()
        ask(1500)
        assert resident() - before < 8e6, f"after {time.monotonic() - began:.0f} s"
