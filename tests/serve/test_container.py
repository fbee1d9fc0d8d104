"""The commands of deploy/Dockerfile in a fresh environment, with no container engine: installation, start, health check, end."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from conftest import ROOT
from serving import SOON, until

pytestmark = pytest.mark.clients

DEPLOY = ROOT / "deploy"
OPENS = 120.0
"""Seconds that the first start may take on a busy machine."""


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in their order, with their arguments."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def last(name: str) -> str:
    return [argument for instruction, argument in instructions() if instruction == name][-1]


def test_the_images_commands_install_start_and_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    cache, home = tmp_path / "cache", tmp_path / "opt"
    cache.mkdir()

    def here(text: str) -> str:
        return text.replace("/opt/zoo", str(home)).replace("/cache", str(cache)).replace("8000", port)

    install = next(argument for name, argument in instructions() if name == "RUN")
    assert "pip install" in install
    # Without what a surrounding tox or pip has set, as in a new image, but for the way to the package index.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "VIRTUAL_ENV", "ZOO_", "HF_"))
    }
    done = subprocess.run(
        ["sh", "-c", here(install)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]

    for word in shlex.split(here(last("ENV"))):
        name, _, value = word.partition("=")
        environment[name] = value.replace("$PATH", environment["PATH"])
    command = [here(word) for word in json.loads(last("ENTRYPOINT")) + json.loads(last("CMD"))]
    health = [here(word) for word in json.loads(last("HEALTHCHECK").partition("CMD ")[2])]
    work = tmp_path / "empty"
    work.mkdir()

    def healthy() -> bool:
        return subprocess.run(health, cwd=work, env=environment, capture_output=True, check=False).returncode == 0

    assert not healthy(), "nothing listens yet"
    program = environment["PATH"].partition(":")[0] + "/" + command[0]
    server = subprocess.Popen([program, *command[1:]], cwd=work, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: healthy() or server.poll() is not None, OPENS)
        body = {"query": "what is panda?", "texts": ["hi", "The giant panda is a bear species endemic to China."]}
        answer = httpx.post(f"http://127.0.0.1:{port}/rerank", json=body, timeout=SOON)
        assert [each["index"] for each in answer.json()] == [1, 0]
        server.send_signal(signal.SIGTERM)
        assert server.wait(SOON) == 0
        assert not healthy()
    finally:
        server.kill()
        server.wait()
        assert server.stderr is not None
        server.stderr.close()


def test_nothing_in_the_image_runs_as_root() -> None:
    names = [name for name, _ in instructions()]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert last("USER") == "10001"
    assert all(argument.split()[0].endswith("-slim") for name, argument in instructions() if name == "FROM")


def test_prometheus_asks_the_service_of_the_compose_file() -> None:
    yaml = pytest.importorskip("yaml")
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    service = compose["services"]["reranker"]
    assert service["read_only"]
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    [job] = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"reranker:{last('EXPOSE')}"]}]
    assert job["metrics_path"] == "/metrics"
